"""Which version of the model is used: the newest that is AVAILABLE, fits this service, and passes its golden check."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from preprocess_service.app.errors import (
    DeadlineExceeded,
    GoldenMismatch,
    ModelError,
    ModelUnavailable,
    Overloaded,
    ServiceError,
)
from preprocess_service.app.recipe import Golden
from preprocess_service.app.serving_client.model_version import AnotherVersion, ModelVersion
from preprocess_service.app.serving_client.predict_response import Prediction

# How far a probability of a golden photo may be from the expected one.
GOLDEN_TOLERANCE = 1e-2
# How long finding a version out may take, whoever waits for it.
REFRESH_SECONDS = 10.0
# For how long a version stays refused, or a new one that nobody has asked about is overlooked while an older one is
# used. For as long a version is not read again, though its answers make no sense.
RETRY_SECONDS = 1.0
# Versions that are remembered; a server has one or two.
_MOST_VERSIONS = 8
# These say something of the moment, not of a version.
_PASSING = (DeadlineExceeded, ModelUnavailable, Overloaded)

logger = logging.getLogger(__name__)

Classify = Callable[[Golden, ModelVersion, float], Awaitable[Prediction]]


class Source(Protocol):
    """What is needed of a ``ModelRunner``."""

    async def available(self, timeout: float) -> list[int]: ...
    async def load(self, version: int, timeout: float) -> ModelVersion: ...
    def approve(self, model: ModelVersion) -> None: ...
    def disapprove(self, version: int) -> None: ...


class ModelVersions:
    """Keeps one recipe a version, and the version in use.

    Args:
        source: asks the model server.
        classify: answers a golden photo within so many seconds.
    """

    def __init__(self, source: Source, classify: Classify) -> None:
        self._source = source
        self._classify = classify
        self._known: dict[int, ModelVersion] = {}
        self._refused: dict[int, tuple[float, ModelError]] = {}
        self._loaded_at: dict[int, float] = {}
        self._current: ModelVersion | None = None
        self._refresh: asyncio.Task[ModelVersion | ServiceError] | None = None
        self._refreshed_at = -float("inf")
        # Why the newest version is not the one in use; None where it is.
        self.rejected: ModelError | None = None

    async def current(self, timeout: float) -> ModelVersion:
        """The version to prepare photos for; raises as ``refresh`` does where there is none."""
        model = self._current
        if model is None:
            return await self.refresh(timeout)
        if model.is_pinned and time.monotonic() - self._refreshed_at > RETRY_SECONDS:
            # Nothing else would show that there is a newer one by now.
            self._start_refresh(None)
        return model

    async def refresh(self, timeout: float, seen: int | None = None) -> ModelVersion:
        """Ask which versions there are, and choose one; all who ask at the same time share one answer.

        Args:
            seen: a version that has answered, and so is there, whatever the status says.

        Raises:
            ModelError: no version can be used; it says why the newest can't.
            ServiceError: the model server could not be asked.
        """
        task = self._start_refresh(seen)
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            raise DeadlineExceeded
        outcome = task.result()
        if isinstance(outcome, ServiceError):
            raise outcome.again()
        return outcome

    async def replacement(self, model: ModelVersion, timeout: float, seen: int | None) -> ModelVersion:
        """The version to use in place of ``model``, which did not answer; ``seen`` did, if any."""
        current = self._current
        if current is not None and current is not model and seen in (None, current.version):
            return current
        return await self.refresh(timeout, seen)

    def doubt(self, model: ModelVersion) -> None:
        """Read a version anew when it is next asked for: what it answered makes no sense.

        Another model may have taken its place under the same number.
        """
        if time.monotonic() - self._loaded_at.get(model.version, 0) > RETRY_SECONDS:
            self._known.pop(model.version, None)
            if self._current is not None and self._current.version == model.version:
                self._current = None

    def suspect(self) -> None:
        """Look, without being waited for, whether the model server is still there: a photo was refused.

        It may just be full; then all stays as it is.
        """
        if time.monotonic() - self._refreshed_at > RETRY_SECONDS:
            self._start_refresh(None)

    def _forget(self) -> None:
        """Read all versions anew: the model server was away, and may have come back with another model."""
        self._known.clear()
        self._refused.clear()
        self._current = None

    async def close(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._refresh

    def _start_refresh(self, seen: int | None) -> "asyncio.Task[ModelVersion | ServiceError]":
        if self._refresh is None or self._refresh.done():
            # Of no request: its calls stand in nobody's trace.
            self._refresh = asyncio.create_task(self._outcome(seen), context=contextvars.Context())
        return self._refresh

    async def _outcome(self, seen: int | None) -> ModelVersion | ServiceError:
        """What ``_choose`` gives or raises: the task that is kept must keep no frames of those that wait for it."""
        try:
            return await self._choose(seen)
        except ServiceError as exc:
            return exc.again()
        except AnotherVersion:
            return ModelUnavailable("model_changes")
        finally:
            self._refreshed_at = time.monotonic()

    async def _choose(self, seen: int | None) -> ModelVersion:
        end = time.monotonic() + REFRESH_SECONDS
        try:
            versions = await self._source.available(REFRESH_SECONDS)
        except ModelUnavailable:
            self._forget()
            raise
        if seen is not None and seen not in versions:
            versions = sorted([seen, *versions], reverse=True)
        rejected: ModelError | None = None
        for version in versions:
            try:
                model = await self._usable(version, end - time.monotonic())
            except ModelError as exc:
                rejected = rejected or exc.again()
                continue
            except AnotherVersion:
                # It was unloaded meanwhile.
                continue
            return self._use(replace(model, is_pinned=True) if version != versions[0] else model, rejected)
        self._current, self.rejected = None, None
        raise rejected or ModelUnavailable

    def _use(self, model: ModelVersion, rejected: ModelError | None) -> ModelVersion:
        former, self.rejected = self._current, rejected
        # Photos of two objects are not sent together, so one that is pinned is not made anew each time.
        same = former is not None and (former.version, former.is_pinned) == (model.version, model.is_pinned)
        if former is not None and same and former.signature is model.signature:
            return former
        self._current = model
        logger.info("version %d of the model is used", model.version, extra={"rejected": str(rejected or "")})
        return model

    async def _usable(self, version: int, timeout: float) -> ModelVersion:
        """A version that passed; raises the ModelError that it fails of."""
        if version in self._known:
            return self._known[version]
        at, error = self._refused.get(version, (0.0, None))
        if error is not None and time.monotonic() - at < RETRY_SECONDS:
            raise error.again()
        end = time.monotonic() + timeout
        try:
            model = await self._source.load(version, timeout)
            await self._check_golden(model, end)
        except ModelError as exc:
            self._source.disapprove(version)
            self._refused[version] = time.monotonic(), exc.again()
            _trim(self._refused)
            raise
        self._known[version] = model
        self._loaded_at[version] = time.monotonic()
        self._refused.pop(version, None)
        _trim(self._known)
        _trim(self._loaded_at)
        self._source.approve(model)
        return model

    async def _check_golden(self, model: ModelVersion, end: float) -> None:
        pinned = replace(model, is_pinned=True)
        findings = []
        for golden in model.recipe.golden:
            try:
                prediction = await self._classify(golden, pinned, end - time.monotonic())
            except _PASSING:
                raise
            except ServiceError as exc:
                findings.append(f"{golden.name}: {exc}")
                continue
            findings += _difference(golden, prediction)
        if findings:
            error = GoldenMismatch(version=model.version, findings="; ".join(findings))
            logger.error("model server: %s", error)
            raise error


def _difference(golden: Golden, prediction: Prediction) -> list[str]:
    """``golden_1.jpg: Sparrow 0.61, expected 0.95``, or nothing."""
    found = prediction.probabilities
    label = max(golden.probabilities, key=lambda name: abs(found[name] - golden.probabilities[name]))
    if abs(found[label] - golden.probabilities[label]) <= GOLDEN_TOLERANCE:
        return []
    return [f"{golden.name}: {label} {found[label]:.2f}, expected {golden.probabilities[label]:.2f}"]


def _trim(versions: dict[int, Any]) -> None:
    while len(versions) > _MOST_VERSIONS:
        del versions[next(iter(versions))]
