"""How the C library keeps memory, for a program that takes and frees megabytes with every request."""

import contextlib
import ctypes
import sys

# <malloc.h>, glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# More than calls hold together as a rule, and above any one message.
_KEPT_BYTES = 64 << 20
_LARGEST_BYTES = 32 << 20


def keep_freed_memory() -> None:
    """Let memory that is freed be used again, up to 64 MiB of it, instead of going back to the system at once.

    By default glibc (mallopt(3)) gives back what a picture took and asks for it again for the next one, several times
    for each call; the system fills each page with zeros every time. Two arenas for all threads: what one frees, the
    next one finds. Other C libraries have no such settings.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 2)


def give_back_freed_memory() -> None:
    """Return to the system all memory that is free by now: what reading a model took would else be kept as well."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
