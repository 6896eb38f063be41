"""Watches the model's folder: a new version is loaded beside the old one and then replaces it.

As in TensorFlow Serving, the highest version is the target, the old version is served until the target is ready, and a
version that can't be loaded is tried again a few times. All of this runs in a thread of its own.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grpc import StatusCode

from model_service.errors import StartError, one_line, without_folders
from model_service.models.saved_model import duplicates, find_versions, no_versions
from model_service.models.servables import END, LOADING, Servable, Servables, VersionStatus, label

logger = logging.getLogger(__name__)

# How often the thread checks whether something is due, in seconds; TensorFlow Serving's manager has the same interval.
_TICK_S = 0.1

Load = Callable[[int, Path], Servable]


@dataclass(frozen=True)
class Schedule:
    """How often to poll the folder and to retry a load, in seconds.

    `keep_s`: how long a replaced version stays, since it was replaced or since a call last named it. So a client that
    finds a fault in the new version can go on with the old one.
    """

    poll_s: float
    retries: int
    retry_s: float
    keep_s: float = 0.0


@dataclass
class LoadAttempt:
    """A target version that is not loaded yet. `at` is the time of the next attempt, on the monotonic clock."""

    version: int
    folder: Path
    at: float
    failures: int = 0


class VersionPoller:
    """Keeps the highest version in `base_path` served as the model `name`. `load` loads and warms up one version."""

    def __init__(self, servables: Servables, name: str, base_path: Path, load: Load, schedule: Schedule) -> None:
        self._servables = servables
        self._name = name
        self._base_path = base_path
        self._load = load
        self._schedule = schedule
        self._poll_at = 0.0
        self._attempt: LoadAttempt | None = None
        self._given_up: int | None = None
        self._replaced_at: dict[int, float] = {}
        self._warned: list[str] = []
        self._stop = threading.Event()
        self.is_loading = False

    def start(self) -> None:
        """Start to poll, unless the interval is 0 or less."""
        if self._schedule.poll_s > 0:
            self._poll_at = time.monotonic() + self._schedule.poll_s
            # A daemon thread, so that the process can end while a version is loaded.
            threading.Thread(target=self._run, name="version poller", daemon=True).start()

    def stop(self) -> None:
        """Stop polling. It does not wait for a version that is being loaded."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_TICK_S):
            try:
                self.step(time.monotonic())
            except Exception:
                # Whatever the error is, the current version is still served, and the polling goes on.
                logger.exception("The folder of versions could not be followed")

    def step(self, now: float) -> None:
        """Do what is due at `now` on the monotonic clock. It takes as long as loading a version."""
        if now >= self._poll_at:
            self._poll_at = now + self._schedule.poll_s
            self._poll(now)
        if self._attempt and now >= self._attempt.at:
            self._try(self._attempt)
        self._unload_replaced()

    def _poll(self, now: float) -> None:
        try:
            versions = find_versions(self._name, self._base_path)
        except StartError as exc:
            # The file system may be unavailable for a moment, so the current version is still served.
            logger.error("%s", exc)
            return
        warnings = duplicates(versions)
        for text in warnings:
            # Warn once, not at each poll.
            if text not in self._warned:
                logger.warning("%s", text)
        self._warned = warnings
        if not versions:
            logger.warning("%s", no_versions(self._name, self._base_path))
            self._set_target(None)
            self._unload_all_but(None)
            return
        newest = max(versions)
        if newest in self._servables.available(self._name):
            self._set_target(None)
            self._unload_above(newest)
        elif self._attempt and newest == self._attempt.version:
            # The version may have several folders; the first of them may have changed.
            self._attempt.folder = versions[newest][0]
        elif newest != self._given_up:
            self._set_target(LoadAttempt(newest, versions[newest][0], now))

    def _set_target(self, attempt: LoadAttempt | None) -> None:
        """Replace the target. Then a failed version can be loaded again, after it was repaired under its number."""
        if self._attempt:
            text = "No longer wanted before it could be loaded"
            status = VersionStatus(self._attempt.version, END, StatusCode.CANCELLED, text)
            self._servables.set_status(self._name, status)
        self._attempt = attempt
        self._given_up = None

    def _try(self, attempt: LoadAttempt) -> None:
        logger.info("Loading servable version %s", label(self._name, attempt.version))
        self._servables.set_status(self._name, VersionStatus(attempt.version, LOADING))
        self.is_loading = True
        try:
            servable = self._load(attempt.version, attempt.folder)
        except StartError as exc:
            self._fail(attempt, exc.code, str(exc))
        except Exception as exc:
            logger.exception("%s could not be loaded", attempt.folder)
            self._fail(attempt, StatusCode.INTERNAL, one_line(f"{type(exc).__name__}: {exc}"))
        else:
            self._attempt = None
            self._servables.add(servable)
            logger.info("Successfully loaded servable version %s", label(self._name, attempt.version))
            self._unload_above(attempt.version)
            self._unload_replaced()
        finally:
            self.is_loading = False

    def _fail(self, attempt: LoadAttempt, code: StatusCode, reason: str) -> None:
        what = label(self._name, attempt.version)
        logger.error("Loading servable: %s failed: %s: %s", what, code.name, reason)
        attempt.failures += 1
        if attempt.failures <= self._schedule.retries:
            attempt.at = time.monotonic() + self._schedule.retry_s
            logger.info("Retrying of Loading servable: %s retry: %d", what, attempt.failures)
            return
        if self._schedule.retries:
            logger.error("Retrying of Loading servable: %s exhausted max_num_retries: %d", what, self._schedule.retries)
        self._attempt = None
        self._given_up = attempt.version
        told = without_folders(reason, attempt.folder.parent)
        self._servables.set_status(self._name, VersionStatus(attempt.version, END, code, told))

    def _unload_above(self, wanted: int) -> None:
        """Unload what is newer than the version that is wanted: its folder is gone."""
        for version in self._servables.available(self._name):
            if version > wanted:
                self._servables.unload(self._name, version)

    def _unload_replaced(self) -> None:
        versions = sorted(self._servables.available(self._name))
        now = time.monotonic()
        self._replaced_at = {version: self._replaced_at.get(version, now) for version in versions[:-1]}
        for version, replaced_at in self._replaced_at.items():
            if now - max(replaced_at, self._servables.asked_at(self._name, version)) >= self._schedule.keep_s:
                self._servables.unload(self._name, version)

    def _unload_all_but(self, kept: int | None) -> None:
        for version in self._servables.available(self._name):
            if version != kept:
                self._servables.unload(self._name, version)
