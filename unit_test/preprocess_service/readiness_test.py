"""Tests readiness: one check serves all callers, and a busy model server counts as ready."""

import asyncio
import unittest
from unittest import mock

from preprocess_service.app import errors
from preprocess_service.app.observability import metrics, readiness


class FakeModel:
    """Gives the answers that the test sets, and counts the calls."""

    def __init__(self) -> None:
        self.state: Exception | None = None
        self.answer: Exception | None = None
        self.seconds = 0.0
        self.asked = {"state": 0, "prediction": 0}

    async def refresh(self, timeout: float) -> int:
        return await self._reply("state", timeout, self.state)

    async def predict(self, timeout: float, request_id: str) -> None:
        await self._reply("prediction", timeout, self.answer)

    async def _reply(self, what: str, timeout: float, error: Exception | None) -> int:
        self.asked[what] += 1
        await asyncio.sleep(min(self.seconds, timeout))
        if self.seconds > timeout:
            raise errors.DeadlineExceeded
        if error:
            raise error
        return 3


class ReadinessProbeTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.model = FakeModel()
        self.metrics = metrics.Metrics()
        self.probe = readiness.ReadinessProbe(self.model, self.model.predict, self.metrics.of_model("M"), "M")

    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value("catdog_model_ready")

    async def failing(self) -> list[str]:
        checks = await self.probe.check()
        return [name for name, error in checks.items() if error]

    def forget(self) -> None:
        """Make the last check look old."""
        self.probe._checked_at = -float("inf")

    async def test_a_hundred_probes_at_once_are_one_look_and_so_are_those_right_after(self) -> None:
        self.model.seconds = 0.1
        # However slow the machine is, the result is still valid.
        with mock.patch.object(readiness, "FRESH_SECONDS", float("inf")):
            await asyncio.gather(*(self.probe.check() for _ in range(100)))
            await self.probe.check()
        self.assertEqual(self.model.asked, {"state": 1, "prediction": 1})

    async def test_a_look_is_good_for_a_moment_only(self) -> None:
        self.assertEqual(await self.failing(), [])
        self.model.state = errors.ModelUnavailable()
        self.forget()
        self.assertEqual(await self.failing(), ["model"])
        self.assertEqual(self.gauge(), 0)

    async def test_one_who_leaves_ends_the_look_for_nobody(self) -> None:
        self.model.seconds = 0.1
        leaves, stays = asyncio.create_task(self.probe.check()), asyncio.create_task(self.probe.check())
        await asyncio.sleep(0.01)
        leaves.cancel()
        self.assertEqual(await stays, {"model": None, "golden": None, "prediction": None})

    async def test_where_photos_are_answered_no_prediction_is_asked_for(self) -> None:
        self.probe.record_prediction()
        self.assertEqual(await self.failing(), [])
        self.assertEqual(self.model.asked, {"state": 1, "prediction": 0})

    async def test_a_full_queue_is_forgiven_as_long_as_photos_are_answered(self) -> None:
        for error in (errors.Overloaded(), errors.ModelUnavailable(), errors.DeadlineExceeded()):
            with self.subTest(error.code):
                self.model.answer = error
                self.probe._predicted_at = asyncio.get_running_loop().time() - (readiness.FRESH_SECONDS + 0.1)
                self.forget()
                self.assertEqual(await self.failing(), [])
                self.assertEqual(self.gauge(), 1)
                self.probe._predicted_at -= readiness.BUSY_SECONDS
                self.forget()
                self.assertEqual(await self.failing(), ["prediction"])
                self.assertEqual(self.gauge(), 0)

    async def test_a_model_server_that_is_gone_or_answers_nonsense_is_never_forgiven(self) -> None:
        self.probe.record_prediction()
        self.model.state = errors.ModelUnavailable()
        self.assertEqual(await self.failing(), ["model"])
        self.model.state, self.model.answer = None, errors.ModelError()
        self.probe._predicted_at -= readiness.FRESH_SECONDS
        self.forget()
        self.assertEqual(await self.failing(), ["prediction"])

    async def test_a_look_is_late_after_its_seconds_not_after_twice_as_many(self) -> None:
        self.model.seconds = 0.75 * readiness.PROBE_SECONDS
        self.assertEqual(await self.failing(), ["prediction"])

    async def test_a_scrape_waits_for_no_look_that_takes_long(self) -> None:
        self.model.seconds = 60
        async with asyncio.timeout(readiness.PROBE_SECONDS / 2):
            await self.probe.refresh()
        await self.probe.close()

    async def test_a_scrape_brings_the_gauge_up_to_date(self) -> None:
        for state, expected in ((None, 1), (errors.ModelUnavailable(), 0), (None, 1)):
            with self.subTest(expected=expected):
                self.model.state = state
                self.forget()
                await self.probe.refresh()
                self.assertEqual(self.gauge(), expected)

    async def test_the_log_tells_of_each_change_once(self) -> None:
        with self.assertLogs(readiness.logger, "INFO") as log:
            for state in (None, None, errors.ModelUnavailable(), errors.ModelUnavailable(), None):
                self.model.state = state
                self.forget()
                await self.probe.check()
        told = [(record.levelname, vars(record)["failing"]) for record in log.records]
        self.assertEqual(told, [("INFO", {}), ("WARNING", {"model": "model_unavailable"}), ("INFO", {})])

    async def test_a_version_that_fails_its_golden_check_is_told_as_such(self) -> None:
        self.model.state = errors.GoldenMismatch(2, "golden_1.jpg: Sparrow 0.61, expected 0.95")
        checks = await self.probe.check()
        self.assertEqual([name for name, error in checks.items() if error], ["golden"])
        self.assertIn("golden_1.jpg: Sparrow 0.61, expected 0.95", str(checks["golden"]))
        self.assertEqual(self.gauge(), 0)

    async def test_a_defect_of_ours_is_told_and_the_next_look_is_a_new_one(self) -> None:
        self.model.state = ZeroDivisionError()
        with self.assertRaises(ZeroDivisionError):
            await self.probe.check()
        self.assertEqual(self.gauge(), 0)
        self.model.state = None
        self.forget()
        self.assertEqual(await self.failing(), [])


if __name__ == "__main__":
    unittest.main()
