"""Settings of glibc's memory allocator, for programs that allocate and free megabytes with every request."""

import contextlib
import ctypes
import sys

# <malloc.h>, glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def configure_malloc(mmap_threshold: int, trim_threshold: int) -> None:
    """Set the thresholds that glibc otherwise adapts (mallopt(3)), and let all threads share two arenas.

    Without this, glibc raises its thresholds after a block of megabytes is freed. Then it keeps large blocks for
    ever. It also requests small ones from the system again and again, and the system clears each page.
    Other C libraries have no such settings.

    Args:
        mmap_threshold: bytes; a larger block returns to the system as soon as it is freed.
        trim_threshold: bytes of freed memory that are kept for reuse.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, mmap_threshold)
            mallopt(_M_TRIM_THRESHOLD, trim_threshold)
            mallopt(_M_ARENA_MAX, 2)


def trim_malloc() -> None:
    """Return all memory that is free now to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
