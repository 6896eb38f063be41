"""Tests that each promise of SECURITY.md names tests that exist."""

import contextlib
import io
import re
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from tools.chaos.attacks import attack
from tools.chaos.attacks import suite as _suite  # noqa: F401 - registers the attacks
from unit_test import runner

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = TEXT.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0].splitlines()


class SecurityTest(unittest.TestCase):
    def test_every_promise_names_its_tests_and_each_of_these_exists(self) -> None:
        self.assertGreater(len(PROMISES), 10)
        files = [path for kind in ("test", "slow") for path in (ROOT / "unit_test").rglob(f"*_{kind}.py")]
        sources = "".join(path.read_text(encoding="utf-8") for path in files)
        existing = set(re.findall(r"def (test_\w+)\(", sources))
        for promise in PROMISES:
            with self.subTest(promise):
                _, _, tests, attacks, _ = re.split(r"(?<!\w)\|(?!\w)", promise)
                named = set(re.findall(r"`(test_\w+)`", tests))
                self.assertTrue(named)
                self.assertLessEqual(named, existing)
                self.assertLessEqual(set(re.findall(r"`([^`]+)`", attacks)), set(attack.CASES))

    def test_one_that_asserts_nothing_or_does_not_run_is_told(self) -> None:
        first, second, third, fourth, *_ = sorted(runner.promised())

        def skipped(test: unittest.TestCase) -> None:
            test.skipTest("for once")

        tests = {first: lambda test: test.assertTrue(True), second: lambda _: None, third: skipped}
        case = type("Case", (unittest.TestCase,), tests | {"test_that_is_no_promise": lambda _: None})
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        found = [*runner.ids(suite), f"module.Case.{fourth}"]
        with self.counted():
            record = unittest.TextTestRunner(io.StringIO(), resultclass=runner.Record).run(suite)
        self.assertIsInstance(record, runner.Record)
        with patch.object(runner, "missing", return_value=[]), patch.object(sys, "platform", "linux"):
            told = list(runner.broken_promises(found, record))  # type: ignore[arg-type]
        self.assertEqual(
            [re.sub(r".*\.(?=test_)", "", text) for text in told],
            [f"{second} asserts nothing", f"{third} did not run. for once", f"{fourth} did not run. "],
        )
        printed = io.StringIO()
        with patch.object(runner, "missing", return_value=["nginx"]), contextlib.redirect_stdout(printed):
            told = list(runner.broken_promises(found, record))  # type: ignore[arg-type]
        self.assertEqual(len(told), 1)
        self.assertIn(f"{third}. for once", printed.getvalue())

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count assertions during this block."""
        methods = {name: getattr(unittest.TestCase, name) for name in dir(unittest.TestCase) if "assert" in name}
        with patch.multiple(unittest.TestCase, **methods):
            runner.Assertions.watch()
            yield

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
