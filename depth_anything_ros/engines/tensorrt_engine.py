"""The `tensorrt` engine: built from the ONNX file on this machine, cached, run with pinned memory and CUDA graphs. No torch."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tensorrt as trt  # type: ignore[import-not-found]

from ..config import RuntimeConfig, TensorRtConfig
from ..contract import DEFAULT_MODEL, ModelFile, read_model_file
from ..cuda.frames import GpuFrames
from ..cuda.sources import compiled_kernels
from ..errors import EngineError
from .base import Engine, TensorSpec
from .build_watch import BuildWatch
from .cuda_runtime import CudaSession, Device, find_device
from .engine_cache import EngineCache, Key, default_folder
from .tensorrt_build import LOG, BuildSettings, build_plan, input_size_ranges, made
from .tensorrt_execution import Execution

BUILDER_VERSION = 2
"""Goes up when this package builds engines in another way."""
SIZES_KEPT = 2
"""Input sizes whose buffers and graphs are kept at least, of each number of images; a camera that changes its resolution needs two for a moment."""
BROKEN_FP16 = "10.3"


class TensorRtEngine(Engine):
    """Runs an ONNX file with TensorRT on the first GPU."""

    name: ClassVar[str] = "tensorrt"

    def __init__(self, model: ModelFile, options: TensorRtConfig, batch_max: int = 1, cameras: int = 1) -> None:
        """Remember the model and the options; nothing is loaded before `open`.

        Args:
            model: a checked file.
            options: the engine's parameters.
            batch_max: images at once that the engine is built for, where the model takes any number.
            cameras: how many take turns; each may have an input size of its own.
        """
        self.contract, self.model_sha256, self.golden = model.contract, model.sha256, model.golden
        self._model, self._options, self._wanted_batch = model, options, batch_max
        self._sizes_kept = max(SIZES_KEPT, len(model.contract.input_sizes_hw), cameras)
        self._session: CudaSession | None = None
        self._executions: dict[tuple[int, ...], Execution] = {}
        self._launches: Counter[str] = Counter()
        self._no_gpu_stages_reason = ""

    @property
    def batch_max(self) -> int:
        """How many images one call takes: as many as the engine was built for."""
        return self.input_spec.shape[0] or self._wanted_batch

    def _open(self) -> None:
        plan = load_plan(self._model, self._options, BuildWatch(), self._wanted_batch)
        self._session = CudaSession()
        self.platform = f"TensorRT {trt.__version__} on {self._session.device}"
        self.advice = _advice()
        try:
            with self._session.active():
                self._engine = self._deserialised(plan, self._session.device)
                self.input_spec, self.output_spec = (self._spec(mode) for mode in (trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT))
                # One network runs at a time, whatever its size: all of them use the same memory in between.
                self._scratch = self._session.allocate(max(1, self._engine.device_memory_size_v2))
                self._load_stages(self._session)
        except BaseException:
            self._close()
            raise

    def _load_stages(self, session: CudaSession) -> None:
        cubin, self._no_gpu_stages_reason = stage_kernels(self._options, session.device)
        if not cubin:
            return
        dtypes = self.input_spec.dtype, self.output_spec.dtype
        try:
            self.gpu = GpuFrames(session, cubin, self.contract, dtypes, lambda shape: self._execution(session, shape))
        except EngineError as error:  # the driver may be older than the compiler
            self._no_gpu_stages_reason = _numpy_instead(self._options, error)

    def _deserialised(self, plan: bytes, device: Device) -> Any:  # noqa: ANN401 - ICudaEngine
        """Load the engine; one that this machine cannot load is built again, once."""
        LOG.take()
        self._runtime = made("a runtime", lambda: trt.Runtime(LOG))
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return engine
        watch = BuildWatch()
        key = cache_key(self._model, self._options, device, self._wanted_batch)
        _cache(self._options, watch).discard(key, f"it cannot be loaded: {LOG.take()}")
        plan = load_plan(self._model, self._options, watch, self._wanted_batch)
        return made("an engine of what it built itself", lambda: self._runtime.deserialize_cuda_engine(plan))

    def _spec(self, mode: Any) -> TensorSpec:  # noqa: ANN401 - TensorIOMode
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        found = [name for name in names if self._engine.get_tensor_mode(name) == mode]
        if len(found) != 1:
            raise EngineError(f"a depth model has one input and one output, this engine has {names}")
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(found[0]))).name
        shape = tuple(axis if axis >= 0 else None for axis in self._engine.get_tensor_shape(found[0]))
        return TensorSpec(found[0], dtype, shape)

    def _infer(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._session is None:
            raise EngineError("engine 'tensorrt' is not open")
        with self._session.active():
            execution = self._execution(self._session, tensor.shape)
            output = execution.run(tensor)
            self._launches["graph" if execution.graph else "plain"] += 1
            return output

    def _execution(self, session: CudaSession, shape: tuple[int, ...]) -> Execution:
        """Return the execution for an input shape; for a new one, let go of the one that was not used for the longest time."""
        execution = self._executions.pop(shape, None)
        if execution is None:
            if len(self._executions) >= self._sizes_kept * self.batch_max:
                self._executions.pop(next(iter(self._executions))).close()
            execution = Execution(self._engine, session, (self.input_spec.name, self.output_spec.name), shape, int(self._scratch))
        self._executions[shape] = execution
        return execution

    def details(self) -> dict[str, str]:
        """Say where the stages run, how the network was launched, and why not as a CUDA graph where it was not."""
        gpu = self.gpu  # once: the worker's thread may take it away
        reasons = {execution.no_graph_reason for execution in tuple(self._executions.values())} | (gpu.no_graph_reasons() if gpu else set())
        launches = {how: self._launches[how] + (gpu.launches[how] if gpu else 0) for how in ("graph", "plain")}
        stages = gpu.details() if gpu else {"stages": f"numpy: {self._no_gpu_stages_reason}"}
        return stages | {
            "cuda_graph_launches": str(launches["graph"]),
            "plain_launches": str(launches["plain"]),
            "no_cuda_graph_reason": "; ".join(sorted(reasons - {""})),
        }

    def _close(self) -> None:
        session, self._session = self._session, None
        gpu, self.gpu = self.gpu, None
        if session is None:
            return
        with session.active():
            if gpu is not None:
                gpu.close()
            for execution in self._executions.values():
                execution.close()
            self._executions.clear()
            self._engine = self._runtime = self._scratch = None
        session.close()


def _advice() -> str:
    if trt.__version__.startswith(BROKEN_FP16):
        return "TensorRT 10.3 (JetPack 6.2) miscompiles vision transformers in fp16: install TensorRT 10.16 or later, or use the model in fp32"
    return "try another TensorRT version, or the model in fp32"


def stage_kernels(options: TensorRtConfig, device: Device) -> tuple[bytes, str]:
    """Return the compiled kernels of the GPU stages; empty where the stages are to run in numpy, with the reason.

    Raises:
        EngineError: `tensorrt.gpu_stages` is on, and they cannot be compiled.
    """
    if options.gpu_stages == "off":
        return b"", "tensorrt.gpu_stages is off"
    try:
        return compiled_kernels(device.compute_capability, Path(options.cache_dir).expanduser() if options.cache_dir else None), ""
    except EngineError as error:
        return b"", _numpy_instead(options, error)


def _numpy_instead(options: TensorRtConfig, error: EngineError) -> str:
    """Say why the stages run in numpy; raise the error where they must not."""
    if options.gpu_stages == "on":
        raise error
    logging.getLogger(__name__).warning(f"only the network runs on the GPU, the other stages in numpy: {error}")
    return str(error)


def cache_key(model: ModelFile, options: TensorRtConfig, device: Device, batch_max: int) -> Key:
    """Return everything that an engine depends on."""
    return {
        "onnx_sha256": model.sha256,
        "tensorrt": trt.__version__,
        "gpu": device.name,
        "compute_capability": list(device.compute_capability),
        "sizes": [[list(size) for size in size_range] for size_range in input_size_ranges(model.contract)],
        "batch_max": batch_max,
        "workspace_mib": options.workspace_mib,
        "optimisation_level": options.optimisation_level,
        "builder_version": BUILDER_VERSION,
    }


def load_plan(model: ModelFile, options: TensorRtConfig, watch: BuildWatch, batch_max: int = 1) -> bytes:
    """Return the serialised engine of a model from the cache; build it where it is not there.

    `batch_max`: images at once that it is built for, where the model takes any number.

    Raises:
        EngineError: there is no GPU, TensorRT cannot build it, or the build was stopped.
    """
    device = find_device()
    cache = _cache(options, watch)
    settings = BuildSettings(options.workspace_mib, options.optimisation_level, input_size_ranges(model.contract), batch_max)
    times = cache.folder / f"{re.sub(r'[^.a-zA-Z0-9]+', '_', f'{trt.__version__} {device}').strip('_')}.timing"
    watch.limit(options.build_timeout_s)
    try:
        return cache.get_or_build(cache_key(model, options, device, batch_max), lambda: build_plan(_onnx(model), settings, times, watch))
    finally:
        watch.done()


def _onnx(model: ModelFile) -> bytes:
    """Return the file whose hash is in the key, and no other."""
    content = model.path.read_bytes()
    if hashlib.sha256(content).hexdigest() != model.sha256:
        raise EngineError(f"model file '{model.path}' changed while it was opened; configure again")
    return content


def _cache(options: TensorRtConfig, watch: BuildWatch) -> EngineCache:
    folder = Path(options.cache_dir).expanduser() if options.cache_dir else default_folder()
    return EngineCache(folder, options.cache_max_mib, watch)


def _model(config: RuntimeConfig) -> ModelFile:
    return read_model_file(config.model or DEFAULT_MODEL)


def _batch_max(config: RuntimeConfig) -> int:
    """Return how many images may come at once: one of each camera, unless a parameter says fewer."""
    cameras = max(1, len(config.cameras))
    return min(cameras, config.batch_max or cameras)


def create(config: RuntimeConfig) -> TensorRtEngine:
    """Make the engine for a configuration."""
    return TensorRtEngine(_model(config), config.tensorrt, _batch_max(config), len(config.cameras))


def prepare(config: RuntimeConfig, watch: BuildWatch) -> None:
    """Build the engine and the kernels of the other stages into their caches where they are not there yet; may run on any thread."""
    load_plan(_model(config), config.tensorrt, watch, _batch_max(config))
    stage_kernels(config.tensorrt, find_device())
