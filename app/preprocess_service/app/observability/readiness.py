"""Checks whether a photo would be answered now. /readyz and the gauge of the model server's state use it.

All callers share one check, which is valid for a second: a hundred probes cost the model server as much as one.

A busy model server is not an unavailable one. Its queue may be full, or an answer late, while photos are answered all
the time. To say "not ready" then would take this service out of the load balancer, and reduce the capacity further.
So answered photos count as well. If there was one within a second, the check asks for no prediction. A check that is
rejected or late is ignored while photos are answered. If no photo is answered any more, for example because an engine
hangs behind a full queue, the service becomes not ready within seconds.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

from preprocess_service.app.errors import DeadlineExceeded, GoldenMismatch, ModelUnavailable, Overloaded, ServiceError
from preprocess_service.app.observability.metrics import ModelMetrics

# The time limit of a check. Orchestrators wait 1 to 5 s for a probe.
PROBE_SECONDS = 2.0
# How long the result of a check, or an answered photo, is valid: less than the usual interval of probes.
FRESH_SECONDS = 1.0
# For how long after an answered photo a rejected or late check is ignored. Even far above its capacity, the model
# server answers some photos in each second.
BUSY_SECONDS = 3.0
# How long a scrape waits for a check. After that it gets the last state.
SCRAPE_SECONDS = 0.5
# The request id of the check in the model server's log.
REQUEST_ID = "readyz"

logger = logging.getLogger(__name__)

Checks = dict[str, ServiceError | None]


class Models(Protocol):
    """The part of ``ModelVersions`` that is used here."""

    async def refresh(self, timeout: float) -> Any: ...


# Requests a prediction, with a timeout in seconds and a request id.
Predict = Callable[[float, str], Awaitable[None]]


class ReadinessProbe:
    """Checks one model on demand, at most once per ``FRESH_SECONDS``. ``name``: the model's, for the log."""

    def __init__(self, models: Models, predict: Predict, metrics: ModelMetrics, name: str) -> None:
        self._models = models
        self._predict_grey = predict
        self._metrics = metrics
        self._name = name
        self._check: asyncio.Task[Checks] | None = None
        self._checked_at = self._predicted_at = -float("inf")
        self._was_ready: bool | None = None

    def record_prediction(self) -> None:
        """Record that a photo was answered."""
        self._predicted_at = time.monotonic()

    async def check(self) -> Checks:
        """Return the checks by name, each with its error or None.

        ``model``: a version is AVAILABLE and fits. ``golden``: its golden photos get the expected answers.
        ``prediction``: the model answers a photo. A check is absent if one before it failed.
        """
        # Shielded: if one caller is cancelled, the check continues for the others.
        return dict(await asyncio.shield(self._current()))

    async def refresh(self) -> None:
        """Update the gauge. After ``SCRAPE_SECONDS`` the gauge keeps the last state."""
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
        self._metrics.ready.set(is_ready)
        if is_ready != self._was_ready:
            failing = {name: error.code for name, error in checks.items() if error}
            level, words = (logging.INFO, "is") if is_ready else (logging.WARNING, "is not")
            logger.log(level, "the model server %s ready", words, extra={"model": self._name, "failing": failing})
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
