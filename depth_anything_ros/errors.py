"""Everything this package raises on purpose: one root, one class per thing that the caller can put right."""


class DepthAnythingError(Exception):
    """Root of all errors of this package; the message says what is wrong and what to do."""


class DecodeError(DepthAnythingError):
    """One image message cannot be read; the next one may be fine."""


class ContractError(DepthAnythingError):
    """A model file is damaged, is not ONNX, or does not say what its numbers mean."""


class EngineError(DepthAnythingError):
    """An inference engine is unknown, not installed, cannot open the model or failed while running."""


class CalibrationError(DepthAnythingError):
    """A camera_info cannot be used for this image."""


class TransformError(DepthAnythingError):
    """Where a sensor or the camera is, is not known: TF has no such transform, or tf2_ros is not installed."""


class ConfigError(DepthAnythingError):
    """A parameter value is out of range, of the wrong type, or contradicts another one."""
