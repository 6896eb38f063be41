"""How many CPU cores this process may use."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Linux: the file with the control groups of this process, and the folder of all groups. Other systems have neither.
MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return how many threads can compute in parallel, 1 or more. A container may have fewer cores than the machine.

    A quota of 1.5 cores counts as 1. With a thread for the half core, the system would stop all threads for a part of
    each 100 ms. The rest of the quota is for threads that do not compute.
    """
    confined = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(confined(0)) if confined else os.cpu_count() or 1
    return max(1, math.floor(min(cores, cpu_quota())))


def cpu_quota(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> float:
    """Return how many cores the control groups of this process allow; infinity if there is no limit.

    Docker's --cpus, Kubernetes' limits.cpu and systemd's CPUQuota= all set this limit, and os.cpu_count() ignores it.
    Source: kernel documentation, cgroup-v2.rst (cpu.max), and sched-bwc.rst for version 1.
    """
    found = control_groups("cpu", membership)
    return min((_read_quota(groups / ("cpu" if is_old else "") / name) for name, is_old in found), default=math.inf)


def control_groups(controller: str, membership: Path) -> Iterator[tuple[PurePosixPath, bool]]:
    """Yield this process's groups and all groups around them, because all their limits apply.

    Each comes with whether it is of version 1, where each controller has a tree of its own.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers or controller in controllers.split(","):  # no controllers: version 2, one tree for all
                group = PurePosixPath(name.lstrip("/"))
                for part in (group, *group.parents):
                    yield part, bool(controllers)


def _read_quota(folder: Path) -> float:
    # In a container its own group may be at the root; then the folder of its name does not exist.
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
