"""Page-locked host arrays that are lent: what is made of a frame stays as it is for as long as somebody holds it, without being copied."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError


class PinnedPool:
    """Owns page-locked memory of one CUDA context. For the thread that has the context; only arrays come back from any thread.

    Memory that another thread lets go of for good is lost to pycuda, so what comes back always comes back here.

    What is still lent when the context goes must not be looked at any more.
    """

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 - the module pycuda.driver
        """Take the module `pycuda.driver`; nothing is allocated before `lend`."""
        self._driver = driver
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def lend(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array that is the caller's until the last reference to it, or to a view of it, is gone. Not initialised.

        Raises:
            EngineError: no such memory can be locked.
        """
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        free = self._free.setdefault(nbytes, [])
        memory = free.pop() if free else self._locked(nbytes)
        return np.asarray(_Lent(memory, shape, dtype, free))

    def _locked(self, nbytes: int) -> npt.NDArray[np.uint8]:
        try:
            return self._driver.pagelocked_empty((nbytes,), np.uint8)  # type: ignore[no-any-return]
        except self._driver.MemoryError as error:
            raise EngineError(f"no {nbytes} bytes of page-locked memory are left: {error}; use a smaller image or depth.downsample") from error

    def free_unused(self) -> None:
        """Free what is not lent now."""
        for free in self._free.values():
            free.clear()


class _Lent:
    """What numpy holds on to while an array or a view of it lives."""

    def __init__(self, memory: npt.NDArray[np.uint8], shape: tuple[int, ...], dtype: npt.DTypeLike, free: list[npt.NDArray[np.uint8]]) -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.view(dtype).reshape(shape).__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)
