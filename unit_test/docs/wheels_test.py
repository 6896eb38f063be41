"""Tests that each locked package has a wheel wherever it is installed, by the files of wheels beside the locks."""

import functools
import re
import unittest

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

from tools import lock
from unit_test.docs.lock_test import AGAIN, ROOT, container_locks, locked


@functools.cache
def locked_wheels(lock_file: str, wheels_file: str) -> dict[str, set[Tag]]:
    """Return package==version -> the tags of its wheels in `wheels_file` whose hash is in the lock."""
    digests = set(re.findall(r"sha256:(\w+)", (ROOT / lock_file).read_text(encoding="utf-8")))
    wheels: dict[str, set[Tag]] = {}
    for line in (ROOT / wheels_file).read_text(encoding="utf-8").splitlines():
        digest, file = line.split("  ")
        if digest in digests:
            package, version, _, tags = parse_wheel_filename(file)
            wheels.setdefault(f"{package}=={version}", set()).update(tags)
    return wheels


@functools.cache
def usable_tags(python: tuple[int, int], system: str) -> frozenset[Tag]:
    """Return the tags of the wheels that pip accepts there."""
    return lock.wheel_tags(python, lock.TARGETS[system][1])


class WheelsTest(unittest.TestCase):
    def test_every_package_has_a_wheel_for_each_python_and_system_of_its_lock(self) -> None:
        needed = 0
        for name, (pythons, systems) in lock.WHEELS.items():
            for python in pythons:
                for system in systems:
                    needed += self.check_wheels(name, lock.wheels_of(name), python, system)
        self.assertGreater(needed, 16 * 30)

    def test_every_package_of_the_containers_has_a_wheel_for_linux_on_both_processors(self) -> None:
        for path in container_locks():
            wheels = lock.wheels_of(path if path in lock.WHEELS else "requirements-serve.lock")
            for system in ("Linux x86-64", "Linux arm64"):
                self.assertGreater(self.check_wheels(path, wheels, (3, 11), system), 0)

    def check_wheels(self, lock_file: str, wheels_file: str, python: tuple[int, int], system: str) -> int:
        """Check that each package of a lock has a wheel for this Python and system, and that the lock has its hash.

        Return the number of packages.
        """
        wheels, usable = locked_wheels(lock_file, wheels_file), usable_tags(python, system)
        version = f"{python[0]}.{python[1]}"
        place = {**lock.TARGETS[system][0], "python_version": version, "python_full_version": f"{version}.0"}
        needed = [
            requirement
            for requirement, _ in locked(lock_file).values()
            if not requirement.marker or requirement.marker.evaluate(place)
        ]
        for requirement in needed:
            with self.subTest(f"{lock_file}: {requirement} for Python {version} on {system}"):
                package = f"{canonicalize_name(requirement.name)}{requirement.specifier}"
                self.assertTrue(wheels.get(package, set()) & usable, AGAIN)
        return len(needed)

    def test_the_files_of_wheels_name_nothing_that_is_not_locked(self) -> None:
        for name in lock.WHEELS:
            with self.subTest(name):
                digests = set(re.findall(r"sha256:(\w+)", (ROOT / name).read_text(encoding="utf-8")))
                lines = (ROOT / lock.wheels_of(name)).read_text(encoding="utf-8").splitlines()
                self.assertLessEqual({line.split("  ")[0] for line in lines}, digests, AGAIN)


if __name__ == "__main__":
    unittest.main()
