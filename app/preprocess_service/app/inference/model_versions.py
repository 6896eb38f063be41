"""Chooses the version of the model: the newest that is AVAILABLE, fits this service and passes its golden check."""

import asyncio
import contextvars
import logging
import random
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

# The largest allowed difference between a probability of a golden photo and the expected one.
GOLDEN_TOLERANCE = 1e-2
# The time limit of one refresh, however long its callers wait.
REFRESH_SECONDS = 10.0
# For this time, a rejected version is not tried again, the versions are not listed again while an older version is in
# use, and a version with invalid answers is not read again.
RETRY_SECONDS = 1.0
# The number of versions that are remembered. A server usually has one or two.
_MOST_VERSIONS = 8
# Temporary errors. They say nothing about a version.
_PASSING = (DeadlineExceeded, ModelUnavailable, Overloaded)

logger = logging.getLogger(__name__)

Classify = Callable[[Golden, ModelVersion, float], Awaitable[Prediction]]


class Source(Protocol):
    """The part of ``ModelRunner`` that is used here."""

    async def available(self, timeout: float) -> list[int]: ...
    async def load(self, version: int, timeout: float) -> ModelVersion: ...
    def approve(self, model: ModelVersion) -> None: ...
    def disapprove(self, version: int) -> None: ...


class ModelVersions:
    """Holds the known versions with their recipes, and the version in use.

    Args:
        source: sends requests to the model server.
        classify: returns the prediction for a golden photo; its last argument is a timeout in seconds.
        name: the model's, for the log.
        wanted: returns whether a version may be used. If it is given, each request names its version: the newest one
            may not be wanted. None: every version.
    """

    def __init__(
        self, source: Source, classify: Classify, name: str, wanted: Callable[[int], bool] | None = None
    ) -> None:
        self.name = name
        self._wanted = wanted
        self._source = source
        self._classify = classify
        self._known: dict[int, ModelVersion] = {}
        self._refused: dict[int, tuple[float, ModelError]] = {}
        self._loaded_at: dict[int, float] = {}
        self._current: ModelVersion | None = None
        self._refresh: asyncio.Task[ModelVersion | ServiceError] | None = None
        self._refreshed_at = -float("inf")
        # Why the newest version is not in use; None if it is.
        self.rejected: ModelError | None = None

    async def current(self, timeout: float) -> ModelVersion:
        """Return the version in use. If there is none, refresh; the errors are those of ``refresh``."""
        return self.at_hand() or await self.refresh(timeout)

    def at_hand(self) -> ModelVersion | None:
        """Return the version in use without waiting; None: there is none, and one is looked for in the background."""
        model = self._current
        # A pinned version is not the newest. Only a refresh shows whether a newer version can be used by now.
        if model is None or model.is_pinned:
            self.suspect()
        return model

    @property
    def error(self) -> ServiceError | None:
        """Why the last refresh found no version that can be used; None: it found one, or there was none yet."""
        if self._refresh is None or not self._refresh.done() or self._refresh.cancelled():
            return None
        outcome = self._refresh.result()
        return outcome if isinstance(outcome, ServiceError) else None

    async def refresh(self, timeout: float, seen: int | None = None) -> ModelVersion:
        """List the versions of the model server and choose one. Concurrent callers share one refresh.

        Args:
            seen: a version that has answered. It exists, even if the status does not list it.

        Raises:
            ModelError: no version can be used; the message says why the newest can't.
            ServiceError: the model server did not answer.
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
        """Return the version to use instead of ``model``. ``seen``: the version that answered; None if unknown."""
        current = self._current
        if current is not None and current is not model and seen in (None, current.version):
            return current
        return await self.refresh(timeout, seen)

    def doubt(self, model: ModelVersion) -> None:
        """Read a version again at the next request, because its answer was invalid.

        Another model may have replaced it under the same version number.
        """
        if time.monotonic() - self._loaded_at.get(model.version, 0) > RETRY_SECONDS:
            self._known.pop(model.version, None)
            if self._current is not None and self._current.version == model.version:
                self._current = None

    def suspect(self) -> None:
        """Start a refresh in the background, because the model server rejected a photo or was unreachable.

        If the model server is only full, nothing changes.
        """
        if time.monotonic() - self._refreshed_at > RETRY_SECONDS:
            self._start_refresh(None)

    def _forget(self) -> None:
        """Forget all versions: the model server was unavailable, and may have restarted with another model."""
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
            # In an empty context: a refresh belongs to no request, so its calls must not appear in a request's trace.
            self._refresh = asyncio.create_task(self._outcome(seen), context=contextvars.Context())
        return self._refresh

    async def _outcome(self, seen: int | None) -> ModelVersion | ServiceError:
        """Return the result of ``_choose``, or its error: a raised error in the kept task would keep frames alive."""
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
        for version in filter(self._wanted or (lambda _: True), versions):
            try:
                model = await self._usable(version, end - time.monotonic())
            except ModelError as exc:
                rejected = rejected or exc.again()
                continue
            except AnotherVersion:
                # The version was unloaded meanwhile.
                continue
            is_pinned = version != versions[0] or self._wanted is not None
            return self._use(replace(model, is_pinned=True) if is_pinned else model, rejected)
        self._current, self.rejected = None, None
        raise rejected or ModelUnavailable

    def _use(self, model: ModelVersion, rejected: ModelError | None) -> ModelVersion:
        former, self.rejected = self._current, rejected
        # A batch has photos for one ModelVersion object only. So an unchanged version keeps its object.
        same = former is not None and (former.version, former.is_pinned) == (model.version, model.is_pinned)
        if former is not None and same and former.signature is model.signature:
            return former
        self._current = model
        fields = {"model": self.name, "rejected": str(rejected or "")}
        logger.info("version %d of the model is used", model.version, extra=fields)
        return model

    async def _usable(self, version: int, timeout: float) -> ModelVersion:
        """Return a version that passes all checks. Raises the ModelError of the first check that fails."""
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
            logger.error("model server: %s", error, extra={"model": self.name})
            raise error


class Canary:
    """A version that answers a share of the photos, as long as it passes all checks.

    A photo never waits for it, and no photo fails because of it.

    Args:
        versions: with this version only.
        share: of all photos, 0 to 1.
    """

    def __init__(self, versions: ModelVersions, share: float) -> None:
        self.versions = versions
        self._share = share
        # Why it gets no photos any more, until the service is started again; None: it may get some.
        self.off: ModelError | None = None

    def draw(self) -> ModelVersion | None:
        """Return the version if the next photo is for it."""
        return self.usable() if random.random() < self._share else None

    def usable(self) -> ModelVersion | None:
        """Return the version if it may answer photos."""
        # Before ``at_hand``, which may start the next refresh.
        error = self.versions.error
        if self.off is None and isinstance(error, ModelError):
            self.off = error
            logger.error("the canary is off: %s", error, extra={"model": self.versions.name})
        return None if self.off else self.versions.at_hand()


def _difference(golden: Golden, prediction: Prediction) -> list[str]:
    """Return a text such as ``golden_1.jpg: Sparrow 0.61, expected 0.95`` in a list; an empty list if it matches."""
    found = prediction.probabilities
    label = max(golden.probabilities, key=lambda name: abs(found[name] - golden.probabilities[name]))
    if abs(found[label] - golden.probabilities[label]) <= GOLDEN_TOLERANCE:
        return []
    return [f"{golden.name}: {label} {found[label]:.2f}, expected {golden.probabilities[label]:.2f}"]


def _trim(versions: dict[int, Any]) -> None:
    while len(versions) > _MOST_VERSIONS:
        del versions[next(iter(versions))]
