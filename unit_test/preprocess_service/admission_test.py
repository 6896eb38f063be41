"""Tests admission control: the limit of photos in flight, and the rate of rejections."""

import json
import unittest
from typing import Any
from unittest.mock import patch

from preprocess_service.app import errors
from preprocess_service.app.observability import metrics
from preprocess_service.app.server import admission
from serving_common import json_logging
from unit_test.preprocess_service.app_server_test import settings


def make(**limits: Any) -> Any:
    return admission.AdmissionController(settings(**limits).limits, metrics.Metrics())


class AdmissionControllerTest(unittest.TestCase):
    def test_those_that_are_on_their_way_in_have_their_places_kept(self) -> None:
        with patch.object(admission.time, "monotonic", return_value=100.0) as now:
            it = make(in_flight=2)
            first, second, third = it.reserve(), it.reserve(), it.reserve()
            self.assertIsNone(third)
            self.assertIsNot(first, second)
            for _ in range(2):
                it.release(first)
            with it.acquire():
                self.assertIsNone(it.reserve())
            self.assertIsNotNone(it.reserve())
            self.assertIsNone(it.reserve())
            now.return_value += 2 * admission.RESERVATION_TTL
            self.assertIsNotNone(it.reserve())

    def test_of_those_on_their_way_in_only_fast_ones_have_their_places_kept(self) -> None:
        with patch.object(admission.time, "monotonic", return_value=100.0) as now:
            it = make(in_flight=2)
            silent, fast = it.reserve(), it.reserve()
            fast.receive(100_000)
            now.return_value += 2 * admission.RESERVATION_GRACE_SECONDS
            self.assertIsNotNone(it.reserve())
            self.assertIsNone(it.reserve())
            # The silent request was not rejected. It gets a slot if one is free when its whole body has arrived.
            with it.body(silent), it.acquire():
                pass

    def test_what_was_not_asked_about_at_its_head_is_let_in_or_refused_by_the_route(self) -> None:
        it = make(in_flight=1)
        with it.body(None) as body:
            it.release(body)
        with it.acquire(), self.assertRaises(errors.Overloaded), it.body(None):
            pass

    def test_one_free_place_lets_a_batch_in_and_none_is_free_until_all_of_it_is_done(self) -> None:
        it = make(in_flight=2)
        with it.acquire(), it.acquire(5), self.assertRaises(errors.Overloaded), it.acquire():
            pass
        self.assertEqual(it.in_flight, 0)

    def test_whoever_asks_again_without_a_pause_is_slowed_down_to_what_can_be_afforded(self) -> None:
        with patch.object(admission.time, "monotonic", return_value=100.0) as now:
            it = make(in_flight=2)
            a_second = 2 * admission.REJECTIONS_PER_SLOT
            at_once = [it.record_rejection() for _ in range(int(a_second * admission.BURST_SECONDS))]
            self.assertAlmostEqual(max(at_once), 0)
            pauses = [it.record_rejection() for _ in range(a_second)]
            self.assertAlmostEqual(pauses[-1], 1)
            self.assertEqual(pauses, sorted(pauses))
            now.return_value += 3
            self.assertEqual(it.record_rejection(), 0)

    def test_all_refusals_since_the_last_report_are_one_line_for_each_reason(self) -> None:
        it = make(in_flight=1)
        with self.assertLogs("request", "INFO") as log:
            for _ in range(7):
                it.count_rejection(503, "overloaded", None)
            it.count_rejection(400, "invalid_http", None)
            it.log_rejections()
            it.log_rejections()
        lines = [json.loads(json_logging.json_formatter().format(record)) for record in log.records]
        found = [(line["status"], line["code"], line["requests"], line.get("clients")) for line in lines]
        self.assertEqual(found, [(503, "overloaded", 7, None), (400, "invalid_http", 1, None)])

    def test_the_addresses_that_were_refused_most_are_named_where_addresses_are_logged(self) -> None:
        it = make(in_flight=1)
        with self.assertLogs("request", "INFO") as log:
            for number in range(20):
                for _ in range(1 + number):
                    it.count_rejection(503, "overloaded", f"192.0.2.{number}")
            it.log_rejections()
        (line,) = [json.loads(json_logging.json_formatter().format(record)) for record in log.records]
        self.assertEqual(len(line["clients"]), admission.NAMED_CLIENTS)
        self.assertEqual(line["clients"]["192.0.2.19"], 20)
