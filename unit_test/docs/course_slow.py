"""Follows the Portuguese course by copy and paste, from an empty folder; course_test.py checks that English equals it.

It takes long: the reader installs all packages. Chapter 9 needs a cluster: `python run.py e2e --kubernetes` follows it.
"""

import os
import subprocess
import sys
import unittest
from pathlib import Path

PROJECT = Path(__file__).parents[2]
HOURS = 2


@unittest.skipIf(os.name == "nt", "the course is followed in bash")
class CourseTest(unittest.TestCase):
    def test_a_fresh_machine_follows_the_course_by_copy_and_paste(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "tools.course.follow", "pt"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=HOURS * 3600,
        )
        # Chapter 2 is left out without Docker.
        sys.stderr.writelines(line for line in ended.stdout.splitlines(keepends=True) if "SKIPPED" in line)
        self.assertEqual(ended.returncode, 0, ended.stdout)
        self.assertIn("10_ler_o_codigo.md", ended.stdout)


if __name__ == "__main__":
    unittest.main()
