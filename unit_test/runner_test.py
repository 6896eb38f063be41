"""Tests the program that runs the tests."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tools.system_packages import missing

PROJECT = Path(__file__).parents[1]
FILES = {
    "good_test.py": """
    def test_right(self): self.assertTrue(True)
    @unittest.skip("for once")
    def test_left_out(self): self.fail()
""",
    "bad_test.py": """
    def test_wrong(self): self.assertEqual(1, 2)
    def test_parts(self):
        with self.subTest(part=7): self.fail("in part")
    @unittest.expectedFailure
    def test_unexpected(self): pass
""",
    "no_setup_test.py": """
    @classmethod
    def setUpClass(cls): raise ValueError("no set up")
    def test_nothing(self): pass
""",
    "no_import_test.py": "\nimport a_module_that_is_not_there\n",
    "once_test.py": """
    def test_once(self):
        self.assertTrue(os.path.exists("failed"), open("failed", "w").close())
""",
    "ends_test.py": """
    def test_end(self): os._exit(0)
""",
}


class RunnerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("unit_test/__init__.py", "unit_test/runner.py", "tools/__init__.py", "tools/system_packages.py"):
            (self.folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(PROJECT / name, self.folder / name)
        (self.folder / "SECURITY.md").write_text("| --- |\n`test_right` `test_hidden`\n\n", encoding="utf-8")
        for name, text in FILES.items():
            head = "import os, unittest\nclass T(unittest.TestCase):\n    pass"
            (self.folder / "unit_test" / name).write_text(head + text, encoding="utf-8")

    def run_tests(self, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "unit_test.runner", *arguments]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)
        return ended.returncode, ended.stdout + ended.stderr

    def test_passed_and_skipped_tests_are_counted(self) -> None:
        code, printed = self.run_tests("good*.py")
        self.assertEqual(code, 0, printed)
        self.assertRegex(printed, r"\[1/1\] ok     unit_test/good_test.py: 2 tests, 1 skipped in ")
        self.assertRegex(printed, r"\n2 tests, 1 skipped in .* s, 0 failed\n")

    def test_every_kind_of_failure_fails_the_run_and_is_named(self) -> None:
        for name, *texts in (
            ("bad", "test_wrong", "test_parts) (part=7)", "test_unexpected passes", "1 != 2", "3 failed"),
            ("no_setup", "no set up", "1 failed"),
            ("no_import", "a_module_that_is_not_there", "1 failed"),
            ("ends", "ends_test.py: a test ended the process", "1 failed"),
        ):
            with self.subTest(name):
                code, printed = self.run_tests(f"{name}_test.py")
                self.assertEqual(code, 1, printed)
                for text in texts:
                    self.assertIn(text, printed)

    def test_several_processes_run_all_files_and_one_failure_is_enough(self) -> None:
        code, printed = self.run_tests("--processes=2", "good*.py", "no_*.py")
        self.assertEqual(code, 1, printed)
        for name in ("good", "no_setup", "no_import"):
            self.assertIn(f"unit_test/{name}_test.py", printed)
        self.assertIn("2 failed", printed)

    def test_a_file_that_fails_beside_others_is_run_again_alone(self) -> None:
        code, printed = self.run_tests("--processes=2", "good_test.py", "once_test.py", "ends_test.py")
        self.assertEqual(code, 1, printed)
        self.assertIn("Again, alone: once_test.py failed beside others", printed)
        self.assertIn("3 tests, 1 skipped", printed)
        # Another file's end of the process harms neither of the two.
        self.assertIn("1 failed", printed)
        self.assertIn("FAILED ends_test.py", printed)

    def test_with_one_process_nothing_is_run_again(self) -> None:
        code, printed = self.run_tests("good_test.py", "once_test.py")
        self.assertEqual(code, 1, printed)
        self.assertNotIn("Again", printed)

    def test_a_promised_test_that_does_not_run_fails_the_run(self) -> None:
        path = self.folder / "unit_test" / "good_test.py"
        path.write_text(path.read_text() + "    if False:\n        def test_hidden(self): pass\n", encoding="utf-8")
        code, printed = self.run_tests("good*.py")
        self.assertIn("test_hidden", printed)
        self.assertEqual(code, sys.platform == "linux" and not missing())


if __name__ == "__main__":
    unittest.main()
