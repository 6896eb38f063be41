"""What becomes of memory that is not needed any more."""

import contextlib
import ctypes
import sys

# <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

# What a few pictures of the model's size take.
KEPT_BYTES = 16 << 20


def give_memory_back() -> None:
    """Let the memory of a big photo go back to the system when it is freed, and keep that of a small one.

    glibc takes a freed block of megabytes for a sign that more of that size will come, and keeps them from then on
    (mallopt(3), M_MMAP_THRESHOLD); a fixed threshold ends that. But with one, every picture's buffers would go back
    too, to be asked for again at once, each page filled with zeros anew: so some megabytes are kept (M_TRIM_THRESHOLD),
    in two arenas for all threads, where one finds what another has freed. Other C libraries have no such habits.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, 1 << 20)
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
            mallopt(M_ARENA_MAX, 2)


def give_memory_back_now() -> None:
    """Return all memory that is free by now to the system."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
