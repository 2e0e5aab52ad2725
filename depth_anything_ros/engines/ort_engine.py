"""The `onnxruntime` engine: CPU by default, other execution providers by name, never silently another one than asked for."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ..config import OnnxRuntimeConfig, RuntimeConfig
from ..contract import DEFAULT_MODEL, ModelFile, read_model_file
from ..errors import EngineError
from .base import Engine, TensorSpec

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


class OnnxRuntimeEngine(Engine):
    """Runs an ONNX file with onnxruntime."""

    name: ClassVar[str] = "onnxruntime"

    def __init__(self, model: ModelFile, options: OnnxRuntimeConfig) -> None:
        """Remember the model and the options; nothing is loaded before `open`."""
        self.contract, self.model_sha256, self.golden = model.contract, model.sha256, model.golden
        self._model, self._options = model, options
        self.batch_pays = options.providers != ("CPUExecutionProvider",)  # there, three images take 2.5 to 2.8 times as long as one
        self._session: ort.InferenceSession | None = None

    def _open(self) -> None:
        wanted = list(self._options.providers)
        missing = [name for name in wanted if name not in ort.get_available_providers()]
        if missing or not wanted:
            raise EngineError(
                f"onnxruntime has no provider {', '.join(missing) or '(none given)'}; it has {', '.join(ort.get_available_providers())}; "
                "set onnxruntime.providers or install the onnxruntime package that brings it"
            )
        try:
            session = ort.InferenceSession(str(self._model.path), session_options(self._options.threads), providers=wanted)
        except Exception as error:  # onnxruntime raises a dozen classes of its own
            raise EngineError(f"onnxruntime cannot open '{self._model.path}': {error}") from error
        unused = [name for name in wanted if name not in session.get_providers()]
        if unused:
            raise EngineError(f"onnxruntime could not start provider {', '.join(unused)} (its log says why); set onnxruntime.providers")
        self._session = session
        self.platform = f"onnxruntime {ort.__version__} with {', '.join(session.get_providers())}"
        self.input_spec, self.output_spec = _spec(session.get_inputs()), _spec(session.get_outputs())

    def _infer(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._session is None:
            raise EngineError("engine 'onnxruntime' is not open")
        try:
            output: npt.NDArray[np.float32] = self._session.run([self.output_spec.name], {self.input_spec.name: tensor})[0]
        except Exception as error:  # see _open
            raise EngineError(f"onnxruntime failed on '{self._model.path}': {error}") from error
        return output

    def _close(self) -> None:
        self._session = None


def session_options(threads: int) -> ort.SessionOptions:
    """Return the options of a session that shares its cores with camera, DDS and this node's own threads.

    By default onnxruntime's threads spin while they wait for each other; where another process holds one of the cores, that
    doubles the time of an inference. Waking them costs about a millisecond of an inference on a quiet machine.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _spec(tensors: list[ort.NodeArg]) -> TensorSpec:
    if len(tensors) != 1:
        raise EngineError(f"a depth model has one input and one output, this one has {[t.name for t in tensors]}")
    shape = tuple(axis if isinstance(axis, int) else None for axis in tensors[0].shape)
    return TensorSpec(tensors[0].name, _DTYPES.get(tensors[0].type, tensors[0].type), shape)


def create(config: RuntimeConfig) -> OnnxRuntimeEngine:
    """Make the engine for a configuration."""
    return OnnxRuntimeEngine(read_model_file(config.model or DEFAULT_MODEL), config.onnxruntime)
