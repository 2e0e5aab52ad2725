"""The scale of each image, measured: against a sensor (`scale.mode` reference) or the floor (ground_plane)."""

from __future__ import annotations

from .config import RuntimeConfig
from .config_scale import ScaleConfig
from .errors import ConfigError, DecodeError, TransformError
from .ground_scale import fit_to_ground
from .prediction import MEASURED_SCALES
from .rays import ImageCamera
from .reference_scale import fit_to_reference
from .scale_filter import Fit, ScaleFilter, ScaleLimits, ScaleState
from .sensors import Sensors
from .structs import DepthMap, RgbFrame


class LiveScale:
    """Fits one map after another and filters the fits. Not thread-safe: the worker's thread owns it."""

    def __init__(self, sensors: Sensors) -> None:
        """Start without a scale."""
        self._sensors = sensors
        self.reset()

    def reset(self) -> None:
        """Forget the scale."""
        self._filter, self._measured_by = ScaleFilter(), ("", "", "")

    def forget(self, scale: ScaleConfig) -> str:
        """Forget the scale because somebody asked for it; returns what to tell them.

        Raises:
            ConfigError: no scale is measured.
        """
        if scale.mode not in MEASURED_SCALES:
            raise ConfigError(f"scale.mode is {scale.mode}: there is no measured scale to reset")
        self.reset()
        return "the scale is forgotten; the next frame that gives one starts anew"

    def __call__(self, depth_map: DepthMap, frame: RgbFrame, camera: ImageCamera | None, config: RuntimeConfig) -> ScaleState:
        """Return the scale of a map.

        Args:
            depth_map: what the model gave for the frame, at the network's size, of either kind.
            frame: the camera image; its stamp and frame count.
            camera: of the image, None where it is not calibrated.
            config: `scale.mode` is reference or ground_plane.

        Returns:
            The filtered scale; where this frame gives none, the last good one is held, and `reason` says why.
        """
        scale = config.scale
        measured_by = scale.mode, scale.reference.type, scale.ground.source
        if measured_by != self._measured_by:
            self.reset()
            self._measured_by = measured_by
        source = scale.reference if scale.mode == "reference" else scale.ground
        limits = ScaleLimits(
            *(source.max_error, source.min_points, source.min_inlier_ratio, source.min_depth_ratio),
            *(scale.filter_s, scale.max_jump, scale.max_age_s),
        )
        try:
            fit = self._fit(depth_map, frame, camera, config, limits)
        except (ConfigError, DecodeError, TransformError) as error:
            fit = Fit(reason=str(error))
        return self._filter.update(fit, frame.stamp_ns, limits)

    def _fit(self, depth_map: DepthMap, frame: RgbFrame, camera: ImageCamera | None, config: RuntimeConfig, limits: ScaleLimits) -> Fit:
        scale = config.scale
        max_dt_s = scale.reference.max_dt_s
        if scale.mode == "reference":
            reference = self._sensors.reference_pixels(frame, camera, scale.reference)
            return fit_to_reference(depth_map, reference, frame.stamp_ns, max_dt_s, limits)
        plane = self._sensors.ground_plane(frame, scale.ground, config.camera, max_dt_s)
        return fit_to_ground(depth_map, camera, plane, scale.ground.max_m, limits)
