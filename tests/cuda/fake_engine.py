"""An engine on the fake device: its network is depth = 1 + mean of the channels, between device buffers, and the GPU stages run around it."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from depth_anything_ros.contract import ModelContract
from depth_anything_ros.cuda.frames import GpuFrames
from depth_anything_ros.engines import Engine, TensorSpec
from depth_anything_ros.errors import EngineError

from .fake_driver import FakeDriver


def network(tensor: np.ndarray) -> np.ndarray:
    """Return (N, h, w) of the input's type for (N, 3, h, w)."""
    values = tensor.astype(np.float32)
    return (np.float32(1) + (values[:, 0] + values[:, 1] + values[:, 2]) / np.float32(3)).astype(tensor.dtype)


class FakeSession:
    """What `GpuFrames` uses of a `CudaSession`, on the fake device.

    Attributes:
        refuses_capture: what is captured cannot be.
        graphs: that live.
    """

    def __init__(self, driver: FakeDriver) -> None:
        self.driver, self.stream, self.device = driver, driver.Stream(), SimpleNamespace(compute_capability=(8, 7))
        self.refuses_capture, self.graphs, self._depth = False, [], 0

    @contextmanager
    def active(self):
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def translated(self, action):
        try:
            yield
        except self.driver.Error as error:
            raise EngineError(f"CUDA cannot {action}: {error}") from error

    def capture(self, enqueue):
        assert self._depth, "no context is current"
        with self.driver.captured(self.stream) as work:
            enqueue()
        if self.refuses_capture:
            raise EngineError("operation not permitted when stream is capturing")
        self.graphs.append(SimpleNamespace(work=work))
        return self.graphs[-1]

    def launch(self, graph):
        assert graph in self.graphs, "it was freed"
        self.stream.queue += graph.work

    def free_graph(self, graph):
        self.graphs.remove(graph)

    def synchronize(self):
        assert self._depth, "no context is current"
        self.stream.synchronize()


class FakeNetwork:
    """The network for one input shape."""

    def __init__(self, session: FakeSession, shape: tuple[int, ...], dtype: str) -> None:
        self._session, self._shape, self._dtype = session, shape, np.dtype(dtype)
        pixels = shape[0] * shape[2] * shape[3]
        self._input, self._output = (session.driver.mem_alloc(channels * pixels * self._dtype.itemsize) for channels in (3, 1))

    input_address = property(lambda self: int(self._input))
    output_address = property(lambda self: int(self._output))

    def enqueue(self):
        self._session.stream.queue.append(self._run)

    def _run(self):
        tensor = self._input.values(self._dtype).reshape(self._shape)
        self._output.values(self._dtype)[:] = network(tensor).ravel()

    def close(self):
        self._input.free()
        self._output.free()


class FakeEngine(Engine):
    """Takes batches of three; the self-made twin of `TensorRtEngine`."""

    name = "fake"
    model_sha256 = "none"

    def __init__(self, library, contract: ModelContract, dtype: str = "float32", memory_bytes: int = 2**30) -> None:
        self.contract, self.driver, self._dtype = contract, FakeDriver(library, memory_bytes), dtype
        self.input_spec, self.output_spec = TensorSpec("image", "float32", (None, 3, None, None)), TensorSpec("depth", "float32", (None, None, None))
        self.session, self.networks = FakeSession(self.driver), {}
        self.open()

    batch_max = 3

    def _open(self):
        self.gpu = GpuFrames(self.session, b"host loops", self.contract, (self._dtype, self._dtype), self._network_for)

    def _network_for(self, shape):
        if shape not in self.networks:
            self.networks[shape] = FakeNetwork(self.session, shape, self._dtype)
        return self.networks[shape]

    def _infer(self, tensor):
        return network(tensor)

    def _close(self):
        gpu, self.gpu = self.gpu, None
        if gpu is not None:
            with self.session.active():
                gpu.close()
            for one in self.networks.values():
                one.close()
            self.networks.clear()
