"""Tests the list of programs that tests need: it names what is not tested without each, and CI installs them."""

import re
import subprocess
import sys
import unittest
from unittest.mock import patch

from tools import system_packages
from unit_test.tools.programs import PROJECT


class SystemPackagesTest(unittest.TestCase):
    def test_what_is_missing_is_told_with_what_is_not_tested(self) -> None:
        with patch.object(system_packages, "find", return_value=None), patch.object(sys, "platform", "linux"):
            packages = [program.package for program in system_packages.missing()]
            report = system_packages.report()
        expected = [
            "chromium",
            "nodejs",
            "curl",
            "nginx-light",
            "haproxy",
            "openssl",
            "prometheus",
            "docker-compose",
            "wrk",
        ]
        self.assertEqual(packages, expected)
        for program in system_packages.PROGRAMS[1:]:
            self.assertRegex(report, f"{program.name}. Not tested: {program.without}. .*install {program.package}\\n")
        with patch.object(system_packages, "find", return_value="/bin/it"):
            self.assertEqual(system_packages.report(), "")

    def test_it_needs_no_other_package_and_gives_names_alone(self) -> None:
        command = [sys.executable, "-S", "-m", "tools.system_packages", "--missing"]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        known = {program.package for program in system_packages.PROGRAMS}
        self.assertLessEqual(set(done.stdout.split()), known)
        self.assertIn("tools.system_packages --missing", (PROJECT / ".ci" / "run").read_text(encoding="utf-8"))

    def test_no_test_looks_for_such_a_program_by_itself(self) -> None:
        names = "|".join(program.name for program in system_packages.PROGRAMS)
        for path in (PROJECT / "unit_test").rglob("*.py"):
            with self.subTest(path.name):
                text = path.read_text(encoding="utf-8")
                self.assertIsNone(re.search(rf"""skip\w+\((not )?shutil\.which\(["']({names})""", text))


if __name__ == "__main__":
    unittest.main()
