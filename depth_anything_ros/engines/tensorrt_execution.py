"""One execution context for one input size: buffers and addresses bound once, for stages on the GPU around it or for host memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorrt as trt  # type: ignore[import-not-found]

from ..errors import EngineError
from .cuda_runtime import CudaGraph, CudaSession
from .tensorrt_build import LOG, made


class Execution:
    """Runs an engine at one input size. All methods are called inside `session.active()`.

    A size has a context of its own, as a captured graph holds only while the context's shapes stay as they are.

    Attributes:
        graph: what `run` launches, or None.
        no_graph_reason: why there is none.
    """

    def __init__(self, engine: Any, session: CudaSession, names: tuple[str, str], shape: tuple[int, ...], scratch_address: int) -> None:  # noqa: ANN401
        """Prepare for an input shape, and run once: TensorRT finishes its set-up then.

        Args:
            engine: TensorRT's ICudaEngine.
            session: the GPU.
            names: of the input and the output.
            shape: of the input.
            scratch_address: device memory of the engine's `device_memory_size_v2`, used while the network runs; others may use it afterwards.

        Raises:
            EngineError: the engine was not built for this shape, or there is not enough memory.
        """
        self._session, (self._input, self._output), self._shape = session, names, shape
        managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = made("an execution context", lambda: engine.create_execution_context(managed))
        self._host_input: Any = None
        self._host_output: Any = None
        self._device_input: Any = None
        self._device_output: Any = None
        self.graph: CudaGraph | None = None
        self.no_graph_reason = ""
        try:
            self._context.set_device_memory(scratch_address, engine.device_memory_size_v2)
            self._choose_profile(engine, shape)
            self._bind(shape)
            self.enqueue()  # of whatever lies in the memory
            session.synchronize()
        except BaseException:
            self.close()  # a traceback may keep this object, but must not keep its memory
            raise

    @property
    def input_address(self) -> int:
        """Device memory of the input; what writes it goes on the session's stream before `enqueue`."""
        return int(self._device_input)

    @property
    def output_address(self) -> int:
        """Device memory of the output; what reads it goes on the session's stream after `enqueue`."""
        return int(self._device_output)

    def _choose_profile(self, engine: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401
        """Select the optimisation profile that holds the shape; an engine for one fixed shape has nothing to choose."""
        if -1 not in tuple(engine.get_tensor_shape(self._input)):
            return
        ranges = [engine.get_tensor_profile_shape(self._input, index) for index in range(engine.num_optimization_profiles)]
        for index, (least, _, most) in enumerate(ranges):
            if all(low <= side <= high for low, side, high in zip(least, shape, most)):
                if not self._context.set_optimization_profile_async(index, self._session.stream_handle):
                    raise EngineError(f"the engine cannot switch to its profile {index}: {LOG.take()}")
                self._session.synchronize()
                return
        taken = ", ".join(f"{tuple(least)[2:]} to {tuple(most)[2:]}" for least, _, most in ranges)
        raise EngineError(
            f"the engine takes inputs (height, width) of {taken}, not {shape[2:]}: the image is too wide or too tall; "
            "crop it, or export the model for one fixed size"
        )

    def _bind(self, shape: tuple[int, ...]) -> None:
        """Fix the input's shape, make the buffers and tell TensorRT where they are."""
        if not self._context.set_input_shape(self._input, shape):
            raise EngineError(f"the engine does not take an input of {shape}: {LOG.take()}")
        output_shape = tuple(self._context.get_tensor_shape(self._output))
        if min(output_shape, default=-1) < 1:
            raise EngineError(f"the engine's output for an input of {shape} has no fixed size: {output_shape}")
        self._output_shape = output_shape
        self._device_input, self._device_output = (self._session.allocate(4 * math.prod(sides)) for sides in (shape, output_shape))
        for name, address in ((self._input, self.input_address), (self._output, self.output_address)):
            if not self._context.set_tensor_address(name, address):
                raise EngineError(f"the engine refuses the memory of '{name}': {LOG.take()}")

    def enqueue(self) -> None:
        """Put the network alone on the session's stream: device input -> device output.

        Raises:
            EngineError: TensorRT refused.
        """
        if not self._context.execute_async_v3(self._session.stream_handle):
            raise EngineError(f"TensorRT {trt.__version__} failed to run the engine: {LOG.take()}")

    def run(self, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the network once, from host memory to host memory, and wait for it; the result is overwritten by the next run."""
        if self._host_input is None:
            self._host_input, self._host_output = self._session.pinned(self._shape), self._session.pinned(self._output_shape)
            try:
                self.graph = self._session.capture(self._enqueue_all)
            except EngineError as error:
                self.no_graph_reason = str(error)
        np.copyto(self._host_input, tensor)
        if self.graph is not None:
            self._session.launch(self.graph)
        else:
            self._enqueue_all()
        self._session.synchronize()
        output: npt.NDArray[np.float32] = self._host_output
        return output

    def _enqueue_all(self) -> None:
        self._session.upload(self._device_input, self._host_input)
        self.enqueue()
        self._session.download(self._host_output, self._device_output)

    def close(self) -> None:
        """Free the graph and the memory; an output that somebody still holds goes with its last reference."""
        if self.graph is not None:
            self._session.free_graph(self.graph)
        for name in ("graph", "_context", "_host_input", "_host_output", "_device_input", "_device_output"):
            setattr(self, name, None)
