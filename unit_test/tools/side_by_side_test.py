"""Tests that ratios side by side are of the same turn, and that invalid loads are not counted."""

import contextlib
import io
import sys
import unittest
from collections.abc import Iterator
from itertools import count
from unittest import mock

from tools.bench import contestants, samples, side_by_side
from unit_test.tools.programs import run_tool


def growing(first: float, step: float) -> side_by_side.Measure:
    """Return a measure that is faster at each call."""
    rates: Iterator[float] = count(first, step)
    return lambda seconds: next(rates)


class SideBySideTest(unittest.TestCase):
    def test_a_ratio_is_that_of_rates_of_the_same_turn(self) -> None:
        """In the second turn the machine is three times as fast. In both turns ours is twice as fast as the other."""
        found = side_by_side.ratio([100, 300], [50, 150])
        self.assertAlmostEqual(found.mean, 2.0)
        self.assertAlmostEqual(found.error, 0.0)

    def test_the_error_is_the_standard_error_of_the_mean(self) -> None:
        """The logarithms are -0.1 and 0.1: mean 0, standard deviation 0.1414, divided by the root of 2: 0.1."""
        found = side_by_side.ratio([0.904837, 1.105171], [1, 1])
        self.assertAlmostEqual(found.mean, 1.0, places=5)
        self.assertAlmostEqual(found.error, 0.1, places=5)

    def test_who_answered_nothing_is_told(self) -> None:
        with self.assertRaisesRegex(samples.LoadError, "more --seconds"):
            side_by_side.ratio([100, 100], [50, 0])

        with (
            mock.patch.object(side_by_side, "start"),
            mock.patch.object(side_by_side, "take_turns", return_value={contestants.OURS: [0.0]}),
            mock.patch.object(sys, "argv", ["side_by_side.py"]),
            contextlib.redirect_stderr(io.StringIO()) as told,
        ):
            self.assertEqual(side_by_side.main(), 1)
        self.assertIn("side_by_side: nothing was answered", told.getvalue())

    def test_the_first_turn_only_warms_up(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            rates = side_by_side.take_turns({"one": growing(1, 1), "other": growing(10, 10)}, turns=2, seconds=1)
        self.assertEqual(rates, {"one": [2, 3], "other": [20, 30]})

    def test_the_limit_is_the_way_that_is_mostly_the_fastest(self) -> None:
        rates = {"steady": iter([100.0] * 7), "lucky once": iter([90.0] * 6 + [200.0])}

        def measure(name: str) -> side_by_side.Measure:
            return lambda seconds: next(rates[name])

        steady, lucky = measure("steady"), measure("lucky once")
        self.assertIs(side_by_side.fastest([lucky, steady]), steady)

    def test_the_table_has_ours_beside_each(self) -> None:
        printed = side_by_side.table({contestants.OURS: [90, 100, 110], "another": [45, 50, 55]})
        self.assertEqual(
            printed.splitlines()[2:], [f"| {contestants.OURS} | 100 |  |", "| another | 50 | 2.000 ± 0.000 |"]
        )

    def test_what_cannot_be_measured_is_refused_in_a_line(self) -> None:
        done = run_tool("bench.side_by_side", "--turns", "0")
        self.assertIn("1 or more", done.stderr.splitlines()[-1])
        self.assertNotEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main()
