"""Device memory and page-locked host memory with addresses that stay the same until everything is freed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError


class Buffers:
    """Owns memory of one CUDA context. Use it, and free it, on the thread that has the context."""

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 - the module pycuda.driver
        """Take the module `pycuda.driver`; a context must be current."""
        self._driver = driver
        self._allocations: list[Any] = []

    def device(self, nbytes: int) -> int:
        """Return the address of new device memory.

        Raises:
            EngineError: the device has no such memory left.
        """
        try:
            self._allocations.append(self._driver.mem_alloc(nbytes))
        except self._driver.MemoryError as error:
            raise EngineError(f"the GPU has no {nbytes} bytes left: {error}; use a smaller image or depth.downsample") from error
        return int(self._allocations[-1])

    def constant(self, values: npt.NDArray[Any]) -> int:
        """Return the address of device memory that holds a copy of an array."""
        address = self.device(values.nbytes)
        self._driver.memcpy_htod(address, np.ascontiguousarray(values))
        return address

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a page-locked host array, which copies that do not wait need.

        Raises:
            EngineError: no such memory can be locked.
        """
        try:
            return self._driver.pagelocked_empty(shape, dtype)  # type: ignore[no-any-return]
        except self._driver.MemoryError as error:
            raise EngineError(
                f"no page-locked memory of {shape} {np.dtype(dtype)} is left: {error}; use a smaller image or depth.downsample"
            ) from error

    def free(self) -> None:
        """Free the device memory; page-locked arrays live as long as somebody holds them."""
        for allocation in self._allocations:
            allocation.free()
        self._allocations.clear()
