"""Memory that a training process keeps between steps."""

from __future__ import annotations

import ctypes
import platform

# The numbers of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, and return whether it agreed.

    A step frees and takes the same gigabytes of activations again and again. By default glibc
    gives large blocks back to the kernel at once, which then has to clear them page by page in
    the next step: a tenth of a step's time on a CPU. It is a setting of the whole process, so
    commands ask for it and the library does not. Elsewhere than on glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
