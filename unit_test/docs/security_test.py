"""SECURITY.md promises nothing that no test holds."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

from tools.chaos.attacks import attack
from tools.chaos.attacks import suite as _suite  # noqa: F401 - registers the attacks

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = TEXT.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0].splitlines()


class SecurityTest(unittest.TestCase):
    def test_every_promise_names_its_tests_and_each_of_these_exists(self) -> None:
        self.assertGreater(len(PROMISES), 10)
        sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "unit_test").rglob("*_test.py"))
        existing = set(re.findall(r"def (test_\w+)\(", sources))
        for promise in PROMISES:
            with self.subTest(promise):
                _, _, tests, attacks, _ = re.split(r"(?<!\w)\|(?!\w)", promise)
                named = set(re.findall(r"`(test_\w+)`", tests))
                self.assertTrue(named)
                self.assertLessEqual(named, existing)
                self.assertLessEqual(set(re.findall(r"`([^`]+)`", attacks)), set(attack.CASES))

    def test_every_command_and_file_that_it_names_exists(self) -> None:
        for name in set(re.findall(r"python (\w[\w/]*\.py)", TEXT)):
            with self.subTest(name):
                self.assertTrue((ROOT / name).is_file())
        usage = subprocess.run(
            [sys.executable, ROOT / "run.py", "--help"], capture_output=True, text=True, check=True
        ).stdout
        for command in set(re.findall(r"python run\.py (\w+)", TEXT)):
            with self.subTest(command):
                self.assertIn(f"python run.py {command}", usage)

    def test_the_readme_links_it(self) -> None:
        self.assertIn("(SECURITY.md)", (ROOT / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
