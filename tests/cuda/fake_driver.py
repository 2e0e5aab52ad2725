"""A stand-in for `pycuda.driver` on a machine without a GPU: real arithmetic (the kernels, compiled by g++), no device.

It is stricter than a GPU: what is enqueued happens only when the stream is synchronised; asynchronous copies take page-locked arrays
alone; addresses must lie in live memory; a write outside an allocation, and anything that a graph cannot hold, is an error.
"""

from __future__ import annotations

import builtins
import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

_GUARD = 4096
_GUARD_BYTE, _GARBAGE_BYTE = 0xA5, 0xCD


class Allocation:
    """Device memory between two guards, full of garbage."""

    def __init__(self, driver: FakeDriver, nbytes: int) -> None:
        self._driver, self.nbytes = driver, nbytes
        self.memory = np.full(nbytes + 2 * _GUARD, _GUARD_BYTE, np.uint8)
        self.memory[_GUARD : _GUARD + nbytes] = _GARBAGE_BYTE
        assert int(self) % 16 == 0, "points of four floats are stored at once"

    def __int__(self) -> int:
        return self.memory.ctypes.data + _GUARD

    def values(self, dtype: np.dtype) -> np.ndarray:
        """What lies in it, for a stand-in of a network."""
        return self.memory[_GUARD : _GUARD + self.nbytes].view(dtype)

    def free(self) -> None:
        assert self in self._driver.live, "freed twice"
        self.check()
        self._driver.live.remove(self)

    def check(self) -> None:
        guards = np.concatenate([self.memory[:_GUARD], self.memory[-_GUARD:]])
        assert (guards == _GUARD_BYTE).all(), f"a kernel wrote outside {self.nbytes} bytes of device memory"


class Stream:
    """A queue of work that has not been done yet."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver, self.queue = driver, []

    def synchronize(self) -> None:
        assert not self._driver.capturing, "a graph cannot hold a synchronisation"
        for work in self.queue:
            work()
        self.queue.clear()
        for allocation in self._driver.live:
            allocation.check()


class Function:
    """One kernel of the library."""

    def __init__(self, run: Callable[..., None], struct_bytes: int) -> None:
        self._run, self._struct_bytes = run, struct_bytes

    def __call__(self, args: np.void, *, block: tuple[int, int, int], grid: tuple[int, int, int], stream: Stream) -> None:
        assert isinstance(args, np.void), "pycuda passes a struct as numpy.void"
        assert args.itemsize == self._struct_bytes, f"struct of {args.itemsize} bytes, the kernel takes {self._struct_bytes}"
        assert all(type(n) is int and n > 0 for n in (*block, *grid))
        assert np.prod(block) <= 1024
        assert block[2] == grid[2] == 1
        struct = args.tobytes()
        threads_yx = (ctypes.c_int * 2)(block[1] * grid[1], block[0] * grid[0])
        stream.queue.append(lambda: self._run(struct, threads_yx))


STRUCTS = {"preprocess": "PreprocessArgs", "network": "NetworkMapArgs", "enlarge": "EnlargeArgs", "cloud": "CloudArgs", "picture": "PictureArgs"}


class Module:
    """The loaded kernels."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def get_function(self, name: str) -> Function:
        struct = STRUCTS[name.split("_")[0]]
        return Function(getattr(self._library, name), getattr(self._library, f"size_of_{struct}")())


class FakeDriver:
    """The names of the module `pycuda.driver` that the stages use."""

    Error = type("Error", (Exception,), {})
    MemoryError = type("MemoryError", (Error, builtins.MemoryError), {})

    def __init__(self, library: ctypes.CDLL, memory_bytes: int = 2**30) -> None:
        self._library, self._memory_bytes = library, memory_bytes
        self.live: list[Allocation] = []
        self.pinned: dict[int, int] = {}  # address: bytes
        self.capturing = False

    def module_from_buffer(self, cubin: bytes) -> Module:
        assert cubin == b"host loops"
        return Module(self._library)

    def mem_alloc(self, nbytes: int) -> Allocation:
        assert type(nbytes) is int
        assert nbytes > 0
        assert not self.capturing, "a graph cannot hold an allocation"
        if nbytes + sum(allocation.nbytes for allocation in self.live) > self._memory_bytes:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        self.live.append(Allocation(self, nbytes))
        return self.live[-1]

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        assert not self.capturing, "a graph cannot hold an allocation"
        memory = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, _GARBAGE_BYTE, np.uint8)
        self.pinned[memory.ctypes.data] = memory.nbytes
        weakref.finalize(memory, self.pinned.pop, memory.ctypes.data)
        return memory.view(dtype).reshape(shape)

    def is_pinned(self, array: np.ndarray) -> bool:
        at = array.ctypes.data
        return any(start <= at and at + array.nbytes <= start + nbytes for start, nbytes in self.pinned.items())

    def memcpy_htod(self, dest: int, src: np.ndarray) -> None:
        assert not self.capturing, "a graph cannot hold a copy that waits"
        self._move(self._checked(dest, src), src.ctypes.data, src.nbytes)

    def memcpy_dtoh(self, dest: np.ndarray, src: int) -> None:
        assert not self.capturing, "a graph cannot hold a copy that waits"
        self._move(dest.ctypes.data, self._checked(src, dest), dest.nbytes)

    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: Stream) -> None:
        assert self.is_pinned(src), "copies from ordinary memory are not asynchronous"
        address = self._checked(dest, src)
        stream.queue.append(lambda: self._move(address, src.ctypes.data, src.nbytes))

    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: Stream) -> None:
        assert self.is_pinned(dest), "copies to ordinary memory are not asynchronous"
        address = self._checked(src, dest)
        stream.queue.append(lambda: self._move(dest.ctypes.data, address, dest.nbytes))

    def Stream(self) -> Stream:
        return Stream(self)

    @contextmanager
    def captured(self, stream: Stream) -> Iterator[list[Callable[[], None]]]:
        """Capture what is enqueued meanwhile; extend a stream's queue with the result to launch it."""
        assert not stream.queue
        graph: list[Callable[[], None]] = []
        self.capturing = True
        try:
            yield graph
        finally:
            self.capturing = False
            graph += stream.queue
            stream.queue.clear()

    def _checked(self, address: int, array: np.ndarray) -> int:
        assert type(address) is int
        assert array.flags.c_contiguous
        assert any(int(a) <= address and address + array.nbytes <= int(a) + a.nbytes for a in self.live), "address outside device memory"
        return address

    def _move(self, dest: int, src: int, nbytes: int) -> None:
        ctypes.memmove(dest, src, nbytes)
