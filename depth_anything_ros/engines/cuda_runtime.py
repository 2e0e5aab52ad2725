"""One GPU for one thread: its primary context, one stream, pinned and device memory, and CUDA graphs.

pycuda is imported when a session is opened, never before. It has no CUDA graphs, so those few calls go to the driver itself. The context is
current only inside `active()`: a thread that ends while pycuda holds a context current takes the whole process with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError

DRIVER_LIBRARY = "libcuda.so.1"
CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not spoil a capture."""
HOW_TO_GET_PYCUDA = "pip install pycuda (needs the CUDA toolkit, see docs/tensorrt.md)"
HOW_TO_GET_A_DEVICE = "see what nvidia-smi says (Jetson: tegrastats; Docker: --gpus all or --runtime nvidia), or use engine onnxruntime"


@dataclass(frozen=True)
class Device:
    """The first GPU that CUDA shows (`CUDA_VISIBLE_DEVICES` chooses another): name, compute capability, CUDA version of its driver."""

    name: str
    compute_capability: tuple[int, int]
    driver_cuda: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability[0]}.{self.compute_capability[1]})"


def find_device() -> Device:
    """Return the GPU, without making a context on it.

    Raises:
        EngineError: pycuda, the driver or a GPU is missing; the message says what to do.
    """
    driver = _pycuda_driver()
    device = driver.Device(0)
    version = driver.get_driver_version()
    return Device(device.name(), tuple(device.compute_capability()), f"{version // 1000}.{version % 1000 // 10}")


def _pycuda_driver() -> Any:  # noqa: ANN401 - a module without types
    """Import and start pycuda."""
    try:
        import pycuda.driver as driver  # type: ignore[import-not-found]
    except ImportError as error:
        if "libcuda" in str(error):
            raise EngineError(f"there is no NVIDIA driver on this machine ({error}); {HOW_TO_GET_A_DEVICE}") from error
        raise EngineError(f"engine 'tensorrt' needs pycuda ({error}); get it with: {HOW_TO_GET_PYCUDA}") from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise EngineError(f"CUDA cannot start ({error}); update the driver if it is older than CUDA; {HOW_TO_GET_A_DEVICE}") from error
    if count == 0:
        raise EngineError(f"there is no CUDA device on this machine; {HOW_TO_GET_A_DEVICE}")
    return driver


class CudaGraph:
    """What was enqueued once, to be launched again and again. Made by `CudaSession.capture`."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        """Take an instantiated graph."""
        self.executable = executable


class CudaSession:
    """The primary context of the GPU, for the one thread that makes it, with one stream. All work goes through `with session.active():`.

    Attributes:
        device: the GPU.
        driver: the module `pycuda.driver`, for those who load kernels of their own.
        stream: pycuda's stream; everything is enqueued on it.
    """

    def __init__(self) -> None:
        """Take the primary context and make a stream.

        Raises:
            EngineError: pycuda, the driver or a GPU is missing.
        """
        self.device = find_device()
        self.driver = _pycuda_driver()
        self._library = _graph_library()
        self._graphs: list[CudaGraph] = []
        with self.translated("open the GPU"):
            self._context = self.driver.Device(0).retain_primary_context()
        try:
            with self.active(), self.translated("make a stream"):
                self.stream = self.driver.Stream()
        except BaseException:
            self._give_context_back()
            raise

    @property
    def stream_handle(self) -> int:
        """The stream as a number (`CUstream`), as TensorRT takes it."""
        return int(self.stream.handle)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current for this thread, and leave the thread as it was."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    @contextmanager
    def translated(self, action: str) -> Iterator[None]:
        """Turn pycuda's errors into EngineErrors that say what could not be done."""
        try:
            yield
        except self.driver.MemoryError as error:
            raise EngineError(
                f"out of GPU memory: cannot {action} on {self.device} ({error}); close other programs, or use a smaller model or input size"
            ) from error
        except self.driver.Error as error:
            raise EngineError(f"CUDA cannot {action} on {self.device}: {error}") from error

    def pinned(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return page-locked host memory, float32, not initialised."""
        with self.translated(f"pin {4 * np.prod(shape)} bytes"):
            array: npt.NDArray[np.float32] = self.driver.pagelocked_empty(shape, np.float32)
        return array

    def allocate(self, nbytes: int) -> Any:  # noqa: ANN401 - pycuda's DeviceAllocation
        """Return device memory; `int()` of it is its address, and it is freed with its last reference."""
        with self.translated(f"allocate {nbytes} bytes"):
            return self.driver.mem_alloc(nbytes)

    def upload(self, target: Any, source: npt.NDArray[Any]) -> None:  # noqa: ANN401
        """Enqueue a copy of a pinned array to the device."""
        with self.translated("copy to the GPU"):
            self.driver.memcpy_htod_async(target, source, self.stream)

    def download(self, target: npt.NDArray[Any], source: Any) -> None:  # noqa: ANN401
        """Enqueue a copy from the device to a pinned array."""
        with self.translated("copy from the GPU"):
            self.driver.memcpy_dtoh_async(target, source, self.stream)

    def synchronize(self) -> None:
        """Wait until everything that was enqueued is done."""
        with self.translated("finish its work"):
            self.stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> CudaGraph:
        """Turn everything that `enqueue` puts on the stream into a graph; nothing of it runs now.

        Args:
            enqueue: must have run once before, outside of a capture: TensorRT finishes its set-up on the first run.

        Raises:
            EngineError: something in it cannot be captured; the stream is usable as before.
        """
        stream, graph, executable = ctypes.c_void_p(self.stream_handle), ctypes.c_void_p(), ctypes.c_void_p()
        self._checked("cuStreamBeginCapture_v2", stream, CAPTURE_THREAD_LOCAL)
        try:
            with self.translated("capture its work"):
                enqueue()
        except BaseException:
            self._library.cuStreamEndCapture(stream, ctypes.byref(graph))
            if graph:
                self._library.cuGraphDestroy(graph)
            raise
        self._checked("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self._checked("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._library.cuGraphDestroy(graph)
        self._graphs.append(CudaGraph(executable))
        return self._graphs[-1]

    def launch(self, graph: CudaGraph) -> None:
        """Enqueue a graph."""
        self._checked("cuGraphLaunch", graph.executable, ctypes.c_void_p(self.stream_handle))

    def free_graph(self, graph: CudaGraph) -> None:
        """Free a graph that is not running."""
        self._graphs.remove(graph)
        self._library.cuGraphExecDestroy(graph.executable)

    def close(self) -> None:
        """Give the context back; whoever holds memory of it frees it before."""
        with self.active():
            for graph in list(self._graphs):
                self.free_graph(graph)
            del self.stream
        self._give_context_back()

    def _give_context_back(self) -> None:
        self._context.push()
        handle = self._context.handle
        self._context.detach()
        # pycuda gives a primary context back but leaves it on the driver's stack of this thread.
        current = ctypes.c_void_p()
        self._library.cuCtxGetCurrent(ctypes.byref(current))
        if current.value == handle:
            self._library.cuCtxPopCurrent_v2(ctypes.byref(current))

    def _checked(self, function: str, *arguments: Any) -> None:  # noqa: ANN401 - as the function's argtypes
        code = getattr(self._library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise EngineError(f"{function} failed on {self.device}: {(text.value or b'unknown error').decode()} ({code})")


def _graph_library() -> Any:  # noqa: ANN401 - functions of a C library
    """Return the driver with the types of the functions that are used of it. Source: CUDA driver API, sections Stream, Graph, Context."""
    library = ctypes.CDLL(DRIVER_LIBRARY)
    pointer, out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    types: dict[str, list[Any]] = {
        "cuStreamBeginCapture_v2": [pointer, ctypes.c_int],
        "cuStreamEndCapture": [pointer, out],
        "cuGraphInstantiateWithFlags": [out, pointer, ctypes.c_ulonglong],
        "cuGraphLaunch": [pointer, pointer],
        "cuGraphDestroy": [pointer],
        "cuGraphExecDestroy": [pointer],
        "cuCtxGetCurrent": [out],
        "cuCtxPopCurrent_v2": [out],
        "cuGetErrorString": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    }
    for name, arguments in types.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return library
