"""How much of the machine is this process's to use."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Linux: the control groups of this process, and where they are looked up. Elsewhere there are none.
MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many threads can compute at the same time, 1 or more: in a container fewer than the machine has cores.

    Of a core and a half only the whole one counts: a thread for the half would have all of them stopped for a part of
    each 100 ms, and what is left serves the threads that don't compute.
    """
    confined = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(confined(0)) if confined else os.cpu_count() or 1
    return max(1, math.floor(min(cores, cpu_quota())))


def cpu_quota(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> float:
    """Return how many cores' worth of time the control groups of this process grant, infinity without a limit.

    Docker's --cpus, Kubernetes' limits.cpu and systemd's CPUQuota= all end here (kernel documentation, cgroup-v2.rst,
    cpu.max; version 1: sched-bwc.rst). No count of cores knows of it.
    """
    found = control_groups("cpu", membership)
    return min((_read_quota(groups / ("cpu" if is_old else "") / name) for name, is_old in found), default=math.inf)


def control_groups(controller: str, membership: Path) -> Iterator[tuple[PurePosixPath, bool]]:
    """The groups that this process is in, by name: each, and those around it, since all their limits hold; and
    whether it is of version 1, where each controller has a tree of its own."""
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers or controller in controllers.split(","):  # no controllers: version 2, one tree for all
                group = PurePosixPath(name.lstrip("/"))
                for part in (group, *group.parents):
                    yield part, bool(controllers)


def _read_quota(folder: Path) -> float:
    # A container sees its own group at the root, perhaps under a name that only means something outside.
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
