"""How much memory this process can still allocate: on the machine, and within its control groups."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from serving_common.cpu_quota import GROUPS, MEMBERSHIP, control_groups

MACHINE = Path("/proc/meminfo")


def free_bytes(machine: Path = MACHINE, membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> int | None:
    """Return how many bytes this process can still allocate: the least of what the machine and its groups have left.

    None if the system has no such information. Source: kernel documentation, cgroup-v2.rst (memory.max), and memory.rst
    for version 1.
    """
    found = [*_of_machine(machine)]
    for name, _ in control_groups("memory", membership):
        found += [*_of_group(groups / name, "memory.max", "memory.current")]
        found += [*_of_group(groups / "memory" / name, "memory.limit_in_bytes", "memory.usage_in_bytes")]
    return max(0, min(found)) if found else None


def _of_machine(machine: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for kilobytes in re.findall(r"^MemAvailable: *(\d+) kB$", machine.read_text(encoding="ascii"), re.MULTILINE):
            yield int(kilobytes) << 10


def _of_group(folder: Path, limit: str, usage: str) -> Iterator[int]:
    # Without a limit the file contains "max", or does not exist.
    with contextlib.suppress(OSError, ValueError):
        most, used = (int((folder / file).read_text(encoding="ascii")) for file in (limit, usage))
        # The page cache counts as used, but the system can free its inactive part.
        kept = re.findall(r"^(?:total_)?inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
        yield most - used + max(map(int, kept), default=0)
