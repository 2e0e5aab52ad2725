"""ONNX -> TensorRT engine, on the machine and the GPU that will run it. TensorRT 10 and 11 from the same code.

The network is strongly typed: the precision of every layer is the one that stands in the ONNX graph (TensorRT 11 knows nothing else).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tensorrt as trt  # type: ignore[import-not-found]

from ..contract import ModelContract
from ..errors import EngineError
from .build_watch import BuildWatch
from .engine_cache import write_atomically

LONGEST_SIDE = 2.5
"""`lower_bound` models: the longer side may be this many times the bound. A square bound takes images from 2:5 to 5:2."""
Made = TypeVar("Made")
SizeRange = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Least, most common and greatest (height, width) of one optimisation profile, in pixels."""


@dataclass(frozen=True)
class BuildSettings:
    """What changes the engine that comes of a model: MiB of scratch memory, 0..5, the sizes it is made for, and how many images at once.

    `batch_max` counts where the model's batch axis is free. The engine is tuned for one image.
    """

    workspace_mib: int
    optimisation_level: int
    sizes: tuple[SizeRange, ...]
    batch_max: int = 1


class ErrorLog(trt.ILogger):  # type: ignore[misc]
    """Keeps the last errors of TensorRT, which returns None and says why only here."""

    def __init__(self) -> None:
        """Start empty."""
        trt.ILogger.__init__(self)
        self._errors: deque[str] = deque(maxlen=5)

    def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401 - name and types are TensorRT's
        """Take one message."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self._errors.append(msg)

    def take(self) -> str:
        """Return the errors since the last call, in one line."""
        text = "; ".join(self._errors) or "TensorRT does not say why"
        self._errors.clear()
        return text


LOG = ErrorLog()
"""One for the process: TensorRT keeps using the first that it gets."""


def made(what: str, make: Callable[[], Made | None]) -> Made:
    """Return what a call of TensorRT makes.

    Raises:
        EngineError: it made nothing; the message has the reason from TensorRT's log.
    """
    try:
        thing = make()
    except (TypeError, RuntimeError, MemoryError) as error:  # the bindings' ways to say that a constructor gave nothing
        raise EngineError(f"TensorRT {trt.__version__} cannot make {what}: {LOG.take()} ({error}); {_remedy()}") from error
    if thing is None:
        raise EngineError(f"TensorRT {trt.__version__} cannot make {what}: {LOG.take()}; {_remedy()}")
    return thing


def _remedy() -> str:
    return (
        "where it speaks of memory, close other programs or lower tensorrt.workspace_mib; where it speaks of the driver or of CUDA initialization, "
        "install the driver that this TensorRT needs"
    )


def input_size_ranges(contract: ModelContract) -> tuple[SizeRange, ...]:
    """Return the input sizes that an engine must take, as one optimisation profile each.

    `stretch` and `letterbox` models: each of the contract's sizes. `lower_bound` models: one side is always at its bound, so one range
    for wide images and one for tall ones are enough, and no memory is held for an input that is long in both directions.
    """
    if contract.resize != "lower_bound":
        return tuple((size, size, size) for size in contract.input_sizes_hw)
    least_h, least_w = (-(-side // contract.size_multiple) * contract.size_multiple for side in contract.input_sizes_hw[0])
    most_h, most_w = (int(LONGEST_SIDE * side) // contract.size_multiple * contract.size_multiple for side in (least_h, least_w))
    least = (least_h, least_w)
    return (least, least, (least_h, most_w)), (least, least, (most_h, least_w))


def build_plan(onnx: bytes, settings: BuildSettings, timing_cache: Path, watch: BuildWatch) -> bytes:
    """Build an engine; takes minutes.

    Args:
        onnx: an ONNX file: one float32 input (N, 3, h, w), one float32 output.
        settings: see `BuildSettings`.
        timing_cache: measured times of kernels, read if it fits and written afterwards; makes later builds fast.
        watch: progress, and the wish to stop.

    Returns:
        The serialised engine, for this TensorRT version and GPU only.

    Raises:
        EngineError: TensorRT cannot start, parse or build the model, or the build was stopped.
    """
    LOG.take()
    builder = made("a builder", lambda: trt.Builder(LOG))
    network = made("a network", lambda: builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)))
    parser = made("a parser", lambda: trt.OnnxParser(network, LOG))
    if not parser.parse(onnx):
        raise EngineError(f"TensorRT {trt.__version__} cannot read the ONNX file: {_parser_errors(parser)}")
    _check_tensors(network)
    config = made("a builder configuration", builder.create_builder_config)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib * 2**20)
    config.builder_optimization_level = settings.optimisation_level
    monitor = ProgressMonitor(watch)
    config.progress_monitor = monitor
    _add_profiles(builder, network, config, settings)
    times = _timing_cache(config, timing_cache, watch)
    plan = builder.build_serialized_network(network, config)
    watch.raise_if_stopped()
    plan = made("an engine of this model", lambda: plan)
    write_atomically(timing_cache, bytes(made("a timing cache", times.serialize)))
    return bytes(plan)


def _parser_errors(parser: Any) -> str:  # noqa: ANN401
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    LOG.take()
    return "; ".join(f"node '{e.node_name()}' ({e.node_operator()}): {e.desc()}" for e in errors) or "the parser does not say why"


def _check_tensors(network: Any) -> None:  # noqa: ANN401
    tensors = [network.get_input(i) for i in range(network.num_inputs)] + [network.get_output(i) for i in range(network.num_outputs)]
    if (network.num_inputs, network.num_outputs) != (1, 1):
        raise EngineError(f"a depth model has one input and one output, this one has {[t.name for t in tensors]}")
    for tensor in tensors:
        if tensor.dtype != trt.DataType.FLOAT:
            raise EngineError(f"tensor '{tensor.name}' is {tensor.dtype.name}; export the model with float32 input and output")


def _add_profiles(builder: Any, network: Any, config: Any, settings: BuildSettings) -> None:  # noqa: ANN401
    image = network.get_input(0)
    if -1 not in tuple(image.shape):
        return
    batches = (1, 1, settings.batch_max if image.shape[0] == -1 else 1)
    for size_range in settings.sizes:
        profile = made("an optimisation profile", builder.create_optimization_profile)
        profile.set_shape(image.name, *((batch, 3, *size) for batch, size in zip(batches, size_range)))
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"input '{image.name}' {tuple(image.shape)} does not take sizes {size_range} of the contract: {LOG.take()}")


def _timing_cache(config: Any, path: Path, watch: BuildWatch) -> Any:  # noqa: ANN401
    content = path.read_bytes() if path.exists() else b""
    times = config.create_timing_cache(content)
    if times is None or not config.set_timing_cache(times, False):
        watch.log(f"engine: '{path}' does not fit this machine and is made anew: {LOG.take()}")
        times = made("a timing cache", lambda: config.create_timing_cache(b""))
        if not config.set_timing_cache(times, False):
            raise EngineError(f"TensorRT {trt.__version__} refuses an empty timing cache: {LOG.take()}")
    return times


class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc]
    """Turns the builder's nested phases into one percentage, and stops the build when the watch says so."""

    def __init__(self, watch: BuildWatch) -> None:
        """Report to a watch."""
        trt.IProgressMonitor.__init__(self)
        self._watch = watch
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name: (parent, steps, steps done)

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Take the beginning of a phase."""
        self._phases[phase_name] = (parent_phase, max(1, num_steps), 0)
        self._note()

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Take a finished step (counted from 0); False stops the build."""
        if phase_name in self._phases:
            parent, steps, _ = self._phases[phase_name]
            self._phases[phase_name] = (parent, steps, min(steps, step + 1))
            self._note()
        return not self._watch.must_stop

    def phase_finish(self, phase_name: str) -> None:
        """Take the end of a phase; it may come before its last step."""
        self._phases.pop(phase_name, None)

    def _note(self) -> None:
        root = next(iter(self._phases))
        self._watch.note(root, 100 * min(1.0, self._fraction(root)))

    def _fraction(self, name: str) -> float:
        _, steps, done = self._phases[name]
        inner = [self._fraction(child) for child, (parent, _, _) in self._phases.items() if parent == name]
        return (done + max(inner, default=0.0)) / steps
