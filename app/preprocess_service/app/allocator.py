"""What becomes of memory that is not needed any more."""

import contextlib
import ctypes
import sys

M_MMAP_THRESHOLD = -3  # <malloc.h>


def give_memory_back() -> None:
    """Let the memory of a big photo go back to the system when it is freed.

    glibc takes a freed block of megabytes for a sign that more of that size will come, and keeps them from then on
    (mallopt(3), M_MMAP_THRESHOLD); a fixed threshold ends that. Other C libraries have no such habit.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
