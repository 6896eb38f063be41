"""Tests that both services count only their own cores: those that affinity and a CPU quota allow."""

import math
import os
import tempfile
import unittest
from pathlib import Path

from serving_common import cpu_quota

# Line of /proc/self/cgroup, files in /sys/fs/cgroup, cores of the quota.
QUOTAS = {
    "a container, version 2": ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
    "a container without a limit, version 2": ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
    "a machine, whose root group has no such file": ("0::/user.slice", {"user.slice/memory.max": "max\n"}, math.inf),
    "a service of systemd": ("0::/system.slice/x.service", {"system.slice/x.service/cpu.max": "50000 100000"}, 0.5),
    "the tightest of the groups around it counts": (
        "0::/a/b",
        {"a/cpu.max": "200000 100000", "a/b/cpu.max": "400000 100000"},
        2,
    ),
    "a container, version 1, under its name outside": (
        "11:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f",
        {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        3,
    ),
    "a container without a limit, version 1": (
        "4:cpu,cpuacct:/",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "a file that says nothing we know": ("0::/", {"cpu.max": "plenty\n"}, math.inf),
}


class CpuQuotaTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_the_quota_is_that_of_the_control_groups(self) -> None:
        for name, (membership, files, expected) in QUOTAS.items():
            with self.subTest(name):
                groups = self.folder / name
                for file, text in files.items():
                    (groups / file).parent.mkdir(parents=True, exist_ok=True)
                    (groups / file).write_text(text)
                (groups / "membership").write_text(membership + "\n")
                self.assertEqual(cpu_quota.cpu_quota(groups / "membership", groups), expected)

    def test_a_system_without_control_groups_has_no_quota(self) -> None:
        self.assertEqual(cpu_quota.cpu_quota(self.folder / "none", self.folder), math.inf)


class UsableCoresTest(unittest.TestCase):
    def quota(self, value: float) -> None:
        former = cpu_quota.cpu_quota
        self.addCleanup(setattr, cpu_quota, "cpu_quota", former)
        cpu_quota.cpu_quota = lambda: value

    @unittest.skipUnless(hasattr(os, "sched_setaffinity"), "only Linux confines a process to some cores")
    def test_cores_that_the_process_may_not_use_are_not_counted(self) -> None:
        allowed = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {min(allowed)})
        self.assertEqual(cpu_quota.usable_cores(), 1)

    def test_only_whole_cores_of_a_quota_count_and_one_at_least(self) -> None:
        for quota in (0.1, 1, 1.9):
            with self.subTest(quota):
                self.quota(quota)
                self.assertEqual(cpu_quota.usable_cores(), 1)

    def test_a_quota_of_more_than_the_machine_changes_nothing(self) -> None:
        self.quota(math.inf)
        everything = cpu_quota.usable_cores()
        self.quota(everything + 0.5)
        self.assertEqual(cpu_quota.usable_cores(), everything)


if __name__ == "__main__":
    unittest.main()
