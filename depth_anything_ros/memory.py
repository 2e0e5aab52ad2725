"""How the C library hands back memory: camera-sized buffers are wanted again a frame later."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MMAP_THRESHOLD_BYTES = 32 * 2**20  # glibc's upper limit
_KEEP_BYTES = 512 * 2**20
_TOP_PAD_BYTES = 16 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed instead of returning it to the kernel; call once, at the start of a process.

    By default every buffer of a megabyte is mapped anew, and the kernel clears its pages again for every frame: a third of
    the node's time at 1080p. Nothing grows by this; the process stays as large as its largest frame made it.

    Returns:
        Whether it took effect; False where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _TOP_PAD_BYTES))
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)
