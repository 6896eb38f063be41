"""How the C library keeps memory, for a program that takes and frees megabytes with every request; what is free."""

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from model_service.cores import GROUPS, MEMBERSHIP

MACHINE = Path("/proc/meminfo")

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


def free_bytes(machine: Path = MACHINE, membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> int | None:
    """Return how much memory this process could still take: of the machine's, and of what its control groups allow.

    None where the system doesn't say. (Kernel documentation: cgroup-v2.rst, memory.max; version 1: memory.rst.)
    """
    found = [*_of_machine(machine)]
    for group in _groups(membership):
        for name in (group, *group.parents):
            found += [*_of_group(groups / name, "memory.max", "memory.current")]
            found += [*_of_group(groups / "memory" / name, "memory.limit_in_bytes", "memory.usage_in_bytes")]
    return max(0, min(found)) if found else None


def _groups(membership: Path) -> Iterator[PurePosixPath]:
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):  # no controllers: version 2, one tree for all
                yield PurePosixPath(name.lstrip("/"))


def _of_machine(machine: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for kilobytes in re.findall(r"^MemAvailable: *(\d+) kB$", machine.read_text(encoding="ascii"), re.MULTILINE):
            yield int(kilobytes) << 10


def _of_group(folder: Path, limit: str, usage: str) -> Iterator[int]:
    # Where there is no limit, the file says "max", or isn't there.
    with contextlib.suppress(OSError, ValueError):
        most, used = (int((folder / file).read_text(encoding="ascii")) for file in (limit, usage))
        # Of files that were read the system keeps what would else be free.
        kept = re.findall(r"^(?:total_)?inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        yield most - used + max(map(int, kept), default=0)
