"""Who is let in: no more than there are places, and the rest is refused at a pace that can be afforded."""

import json
import unittest
from typing import Any
from unittest.mock import patch

from app_server_test import settings
from preprocess_service import errors, gate, logs, metrics


def make(**limits: Any) -> Any:
    return gate.Gate(settings(**limits).limits, metrics.Metrics())


class GateTest(unittest.TestCase):
    def test_those_that_are_on_their_way_in_have_their_places_kept(self) -> None:
        with patch.object(gate.time, "monotonic", return_value=100.0) as now:
            it = make(in_flight=2)
            first, second, third = it.let_in(), it.let_in(), it.let_in()
            self.assertIsNone(third)
            self.assertNotEqual(first, second)
            for _ in range(2):
                it.came(first)
            with it.enter():
                self.assertIsNone(it.let_in())
            self.assertIsNotNone(it.let_in())
            self.assertIsNone(it.let_in())
            now.return_value += 2 * gate.COMING_SECONDS
            self.assertIsNotNone(it.let_in())

    def test_bodies_that_dont_come_take_no_places_but_are_bounded(self) -> None:
        with patch.object(gate.time, "monotonic", return_value=100.0) as now:
            it = make(in_flight=1)
            for _ in range(gate.BODIES_PER_PLACE):
                ticket = it.let_in()
                self.assertIsNotNone(ticket)
                self.enterContext(it.reading(ticket))
                now.return_value += 2 * gate.COMING_SECONDS
            self.assertIsNone(it.let_in())
            with it.enter():
                pass

    def test_one_free_place_lets_a_batch_in_and_none_is_free_until_all_of_it_is_done(self) -> None:
        it = make(in_flight=2)
        with it.enter(), it.enter(5), self.assertRaises(errors.Overloaded), it.enter():
            pass
        self.assertEqual(it.taken, 0)

    def test_whoever_asks_again_without_a_pause_is_slowed_down_to_what_can_be_afforded(self) -> None:
        with patch.object(gate.time, "monotonic", return_value=100.0) as now:
            it = make(in_flight=2)
            a_second = 2 * gate.REFUSALS_PER_PLACE
            at_once = [it.refuse() for _ in range(int(a_second * gate.BURST_SECONDS))]
            self.assertAlmostEqual(max(at_once), 0)
            pauses = [it.refuse() for _ in range(a_second)]
            self.assertAlmostEqual(pauses[-1], 1)
            self.assertEqual(pauses, sorted(pauses))
            now.return_value += 3
            self.assertEqual(it.refuse(), 0)

    def test_all_refusals_since_the_last_report_are_one_line(self) -> None:
        it = make(in_flight=1)
        with self.assertLogs("request", "INFO") as log:
            for _ in range(7):
                it.refuse()
            it.report()
            it.report()
        (line,) = [json.loads(logs.JsonFormatter().format(record)) for record in log.records]
        self.assertEqual((line["status"], line["code"], line["requests"]), (503, "overloaded", 7))
