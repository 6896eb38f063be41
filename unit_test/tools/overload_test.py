"""Tests that the overload measurement reads hey's output correctly."""

import unittest

from tools.bench import overload, samples

HEAD = "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset\n"


def lines(*requests: tuple[float, int, float]) -> str:
    """Return hey's CSV of requests: seconds, status, and when each was sent."""
    return HEAD + "".join(f"{took},0,0,0,0,0,{status},{offset}\n" for took, status, offset in requests)


class OverloadTest(unittest.TestCase):
    def test_what_is_answered_and_what_is_refused_is_told_apart(self) -> None:
        printed = lines((0.1, 200, 0.0), (0.3, 200, 1.7), (0.002, 503, 0.5), (0.004, 503, 0.6), (1.0, 500, 0.1))
        found = overload.phase_of(printed, worst_livez=12.0)
        self.assertAlmostEqual(found.goodput, 1.0)
        self.assertAlmostEqual(found.refused, 1.0)
        self.assertAlmostEqual(found.refused_median, 3.0)
        self.assertAlmostEqual(found.accepted_p99, 298.0)
        self.assertEqual((found.others, found.worst_livez), (1, 12.0))

    def test_a_phase_without_answers_is_no_measurement(self) -> None:
        with self.assertRaisesRegex(samples.LoadError, "of 1 requests, 0 were answered"):
            overload.phase_of(lines((0.002, 503, 0.0)), worst_livez=0.0)


if __name__ == "__main__":
    unittest.main()
