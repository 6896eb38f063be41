"""Whether a photo would be answered now: what stands behind /readyz and the gauge of the model server's state.

All who ask share one check, which is valid for a second: a hundred probes cost the model server as much as one.

A model server that is busy is not one that is away. Its queue may be full, or the answer late, while photos are being
answered all the time; to say "not ready" then would take this service out, and with it the other half of what can be
answered. So predictions that came back to photos count as well: where there are some, none is asked for; and a check
that is rejected or late is forgiven as long as they go on. Where none comes back any more, be the reason a full queue
before an engine that is stuck, that ends within seconds.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from preprocess_service.app.errors import DeadlineExceeded, GoldenMismatch, ModelUnavailable, Overloaded, ServiceError
from preprocess_service.app.observability.metrics import Metrics

# A probe that waits longer than this is of no use to its sender; orchestrators wait 1 to 5 s.
PROBE_SECONDS = 2.0
# How long a check, or an answered photo, speaks for the model server: less than orchestrators leave between probes.
FRESH_SECONDS = 1.0
# How long answered photos excuse a check that was rejected or late. Even far beyond its limit the model server answers
# some in each second.
BUSY_SECONDS = 3.0
# How long a scrape may wait for a check; it reads the last state where that takes longer.
SCRAPE_SECONDS = 0.5
# The probe's name in the log of the model server.
REQUEST_ID = "readyz"

logger = logging.getLogger(__name__)

Checks = dict[str, ServiceError | None]


class Models(Protocol):
    """What is asked of ``ModelVersions``."""

    async def refresh(self, timeout: float) -> Any: ...


# Asks for a prediction within so many seconds, by this request id.
Predict = Callable[[float, str], Awaitable[None]]


class ReadinessProbe:
    """Checks the model server when asked, at most once in ``FRESH_SECONDS``."""

    def __init__(self, models: Models, predict: Predict, metrics: Metrics) -> None:
        self._models = models
        self._predict_grey = predict
        self._metrics = metrics
        self._check: asyncio.Task[Checks] | None = None
        self._checked_at = self._predicted_at = -float("inf")
        self._was_ready: bool | None = None

    def record_prediction(self) -> None:
        """A prediction has come back."""
        self._predicted_at = time.monotonic()

    async def check(self) -> Checks:
        """By name what a photo needs of the model server, and what it fails of.

        ``model``: a version is AVAILABLE and fits; ``golden``: its golden photos are answered as they should be;
        ``prediction``: one comes back.
        """
        # The check goes on for the others where one of those who wait for it leaves.
        return dict(await asyncio.shield(self._current()))

    async def refresh(self) -> None:
        """Bring the gauge up to date, or as near as can be within ``SCRAPE_SECONDS``."""
        await asyncio.wait([self._current()], timeout=SCRAPE_SECONDS)

    async def close(self) -> None:
        if self._check is not None:
            self._check.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._check

    def _current(self) -> asyncio.Task[Checks]:
        if self._check is None or (self._check.done() and time.monotonic() - self._checked_at >= FRESH_SECONDS):
            self._check = asyncio.create_task(self._run_checks())
        return self._check

    async def _run_checks(self) -> Checks:
        end = time.monotonic() + PROBE_SECONDS
        checks: Checks = {}
        try:
            failure = await self._failure(self._models.refresh(PROBE_SECONDS), DeadlineExceeded, Overloaded)
            checks["model"] = None if isinstance(failure, GoldenMismatch) else failure
            if checks["model"] is None:
                checks["golden"] = failure
            if failure is None:
                checks["prediction"] = await self._failure(
                    self._predict(end - time.monotonic()), DeadlineExceeded, ModelUnavailable, Overloaded
                )
            return checks
        finally:
            self._checked_at = time.monotonic()
            self._report(len(checks) == 3 and not any(checks.values()), checks)

    def _report(self, is_ready: bool, checks: Checks) -> None:
        self._metrics.model_ready.set(is_ready)
        if is_ready != self._was_ready:
            failing = {name: error.code for name, error in checks.items() if error}
            level, words = (logging.INFO, "is") if is_ready else (logging.WARNING, "is not")
            logger.log(level, "the model server %s ready", words, extra={"failing": failing})
        self._was_ready = is_ready

    async def _predict(self, timeout: float) -> None:
        if not self._has_predicted_within(FRESH_SECONDS):
            await self._predict_grey(timeout, REQUEST_ID)
            self.record_prediction()

    async def _failure(self, answer: Awaitable[object], *when_busy: type[ServiceError]) -> ServiceError | None:
        try:
            await answer
        except ServiceError as exc:
            if not (isinstance(exc, when_busy) and self._has_predicted_within(BUSY_SECONDS)):
                return exc
        return None

    def _has_predicted_within(self, seconds: float) -> bool:
        return time.monotonic() - self._predicted_at < seconds
