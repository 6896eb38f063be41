"""Tests readiness: each model has a version, no call is stuck, and the server is not stopping."""

import unittest
from typing import Any

from model_service.observability import readiness


class Fake:
    """Stands in for the models and for the threads."""

    def __init__(self) -> None:
        self.without: list[str] | None = []
        self.seconds = 0.0

    def missing(self) -> list[str] | None:
        return self.without

    def longest(self) -> float:
        return self.seconds


class ReadinessTest(unittest.TestCase):
    def setUp(self) -> None:
        self.fake: Any = Fake()
        self.readiness = readiness.Readiness(self.fake, self.fake, 30)

    def test_all_is_well(self) -> None:
        self.fake.seconds = 29.9
        self.assertEqual(self.readiness.failing(), "")

    def test_a_server_that_stops_is_not_ready(self) -> None:
        self.readiness.is_stopping = True
        self.assertEqual(self.readiness.failing(), "the server is stopping")

    def test_without_a_version_it_is_not_ready_until_one_is_back(self) -> None:
        self.fake.without = ["M"]
        self.assertEqual(self.readiness.failing(), "no version of M is available")
        self.fake.without = []
        self.assertEqual(self.readiness.failing(), "")

    def test_each_model_without_a_version_is_named(self) -> None:
        self.fake.without = ["A", "B"]
        self.assertEqual(self.readiness.failing(), "no version of A, B is available")

    def test_without_any_model_it_is_not_ready(self) -> None:
        self.fake.without = None
        self.assertEqual(self.readiness.failing(), "no model is available")

    def test_with_a_stuck_call_it_is_not_ready_until_that_returns(self) -> None:
        self.fake.seconds = 30.1
        self.assertEqual(self.readiness.failing(), "a call computes for more than 30 s (--stuck_call_seconds)")
        self.fake.seconds = 0
        self.assertEqual(self.readiness.failing(), "")

    def test_at_zero_seconds_no_call_is_stuck(self) -> None:
        self.fake.seconds = 1e6
        self.assertEqual(readiness.Readiness(self.fake, self.fake, 0).failing(), "")


if __name__ == "__main__":
    unittest.main()
