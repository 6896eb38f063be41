"""Runs a measurement side by side from end to end."""

import unittest

from tools.system_packages import find, why_skipped
from unit_test.tools.programs import run_tool


class SlowSideBySideTest(unittest.TestCase):
    @unittest.skipUnless(find("wrk"), why_skipped("wrk"))
    def test_ours_is_measured_beside_the_limit(self) -> None:
        done = run_tool("bench.side_by_side", "--turns", "2", "--seconds", "1", "--only", "nobody else")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\| this project \| [1-9]\d* \|")
        self.assertRegex(done.stdout, r"\| the limit \| [1-9]\d* \| \d\.\d{3} ± \d")


if __name__ == "__main__":
    unittest.main()
