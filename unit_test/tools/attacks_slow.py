"""Runs all attacks of the fault suite in their short form."""

import os
import unittest

from unit_test.tools.attacks_test import check_attacks
from unit_test.tools.programs import run_tool


@unittest.skipIf(os.name == "nt", "Windows has no SIGKILL")
class AllAttacksTest(unittest.TestCase):
    def test_under_attack_others_are_answered_and_memory_stays_within_that_of_the_containers(self) -> None:
        check_attacks(self, least=11)

    def test_refused_files_leave_nothing_in_memory(self) -> None:
        ended = run_tool("chaos", "--attacks", "--refused", 300)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr[-2000:])
        self.assertRegex(ended.stdout, r"\d+ 400.* MB after the first 100")


if __name__ == "__main__":
    unittest.main()
