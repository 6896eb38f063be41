"""Follows the folder of one model: new versions are loaded, and then the versions that they replace are unloaded.

As in TensorFlow Serving, a version is served until another one that is wanted is ready, and a version that can't be
loaded is tried again a few times.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from grpc import StatusCode

from model_service.errors import StartError, one_line, without_folders
from model_service.lifecycle.versions import duplicates, find_versions, no_versions, wanted_versions
from model_service.models.servables import END, LOADING, Servable, Servables, VersionStatus, label

logger = logging.getLogger(__name__)

Load = Callable[[int, Path], Servable]


@dataclass(frozen=True)
class Schedule:
    """How often to poll the folder and to retry a load, in seconds. With `poll_s` of 0 or less it is polled once.

    `keep_s`: how long a replaced version stays, since it was replaced or since a call last named it. So a client that
    finds a fault in the new version can go on with the old one.
    """

    poll_s: float
    retries: int
    retry_s: float
    keep_s: float = 0.0


@dataclass
class LoadAttempt:
    """A version that is wanted and not loaded yet. `at` is the time of the next attempt, on the monotonic clock."""

    version: int
    folder: Path
    at: float
    failures: int = 0


class VersionPoller:
    """Keeps the versions of one model served that its ModelConfig wants. `load` loads and warms up one version.

    All methods must be called by one thread.
    """

    def __init__(self, servables: Servables, config: Any, load: Load, schedule: Schedule) -> None:
        self._servables = servables
        self._name: str = config.name
        self._config = config
        self._load = load
        self._schedule = schedule
        self._poll_at = 0.0
        self._wanted: set[int] = set()
        self._attempts: dict[int, LoadAttempt] = {}
        self._given_up: set[int] = set()
        self._replaced_at: dict[int, float] = {}
        self._warned: list[str] = []
        self._problem = ""
        self.is_loading = False

    @property
    def problem(self) -> str | None:
        """Why no version is available; "" if one is; None while the first one is still being loaded or retried."""
        if self._servables.available(self._name):
            return ""
        return None if self._attempts or not self._poll_at else self._problem

    def load_first(self) -> None:
        """Load the versions that are wanted at the start; raises StartError if none of them can be loaded."""
        self._choose(find_versions(self._name, self._base_path), time.monotonic())
        if not self._wanted:
            raise StartError(no_versions(self._name, self._base_path))
        failure: StartError | None = None
        for version in sorted(self._attempts, reverse=True):
            try:
                self._add(self._load(version, self._attempts[version].folder))
            except StartError as exc:
                failure = failure or exc
        if failure and not self._servables.available(self._name):
            raise failure
        self._poll_at = self._next_poll(time.monotonic())

    def configure(self, config: Any) -> None:
        """Follow a new ModelConfig of the same model from now on."""
        if config != self._config:
            self._config = config
            self._poll_at = 0.0

    def end(self) -> None:
        """Unload all versions: the model is no longer wanted."""
        self._want(set(), {}, time.monotonic())
        self._problem = f"{{name: {self._name}}} due to error: CANCELLED: The model was removed from the config"
        self._unload(self._servables.available(self._name))
        self._servables.forget(self._name)

    def step(self, now: float) -> None:
        """Do what is due at `now` on the monotonic clock. It takes as long as loading a version."""
        if now >= self._poll_at:
            self._poll_at = self._next_poll(now)
            self._poll(now)
        for version in sorted(self._attempts, reverse=True):
            if now >= self._attempts[version].at:
                self._try(self._attempts[version])
        self._unload_unwanted()

    @property
    def _base_path(self) -> Path:
        return Path(self._config.base_path)

    def _next_poll(self, now: float) -> float:
        return now + self._schedule.poll_s if self._schedule.poll_s > 0 else inf

    def _poll(self, now: float) -> None:
        try:
            versions = find_versions(self._name, self._base_path)
        except StartError as exc:
            # The file system may be unavailable for a moment, so the current version is still served.
            self._found_nothing(logging.ERROR, str(exc))
            return
        self._choose(versions, now)
        if not self._wanted:
            self._found_nothing(logging.WARNING, no_versions(self._name, self._base_path))
            self._unload(self._servables.available(self._name))

    def _found_nothing(self, level: int, reason: str) -> None:
        logger.log(level, "%s", reason)
        told = reason.replace(str(self._base_path), self._base_path.name)
        self._problem = f"{{name: {self._name}}} due to error: NOT_FOUND: {told}"

    def _choose(self, versions: Mapping[int, list[Path]], now: float) -> None:
        """Want the versions that the policy chooses. Each warning is logged once, not at each poll."""
        policy = self._config.model_version_policy
        wanted = wanted_versions(policy, versions)
        missing = sorted(set(policy.specific.versions) - wanted)
        warnings = duplicates(versions) + [
            f"Version {version} of servable {self._name}, which was requested to be served as a 'specific' version in "
            "the servable's version policy, was not found in the file system"
            for version in missing
        ]
        for text in warnings:
            if text not in self._warned:
                logger.warning("%s", text)
        self._warned = warnings
        self._want(wanted, versions, now)

    def _want(self, wanted: set[int], versions: Mapping[int, list[Path]], now: float) -> None:
        """Set the attempts: one for each version that is wanted, not loaded and not given up."""
        self._wanted = wanted
        # A failed version can be loaded again after it was removed and put back under its number.
        self._given_up &= self._wanted
        for version in self._attempts.keys() - self._wanted:
            del self._attempts[version]
            text = "No longer wanted before it could be loaded"
            self._servables.set_status(self._name, VersionStatus(version, END, StatusCode.CANCELLED, text))
        for version in self._wanted.difference(self._given_up, self._servables.available(self._name)):
            attempt = self._attempts.setdefault(version, LoadAttempt(version, versions[version][0], now))
            # The version may have several folders; the first of them may have changed.
            attempt.folder = versions[version][0]

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
            self._add(servable)
            self._unload_unwanted()
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
        del self._attempts[attempt.version]
        self._given_up.add(attempt.version)
        told = without_folders(reason, attempt.folder.parent)
        self._problem = f"{what} due to error: {code.name}: {told}"
        self._servables.set_status(self._name, VersionStatus(attempt.version, END, code, told))

    def _add(self, servable: Servable) -> None:
        del self._attempts[servable.version]
        self._servables.add(servable)
        logger.info("Successfully loaded servable version %s", label(self._name, servable.version))

    def _unload_unwanted(self) -> None:
        """Unload the versions that a wanted one has replaced, older ones when their time is over."""
        now = time.monotonic()
        available = set(self._servables.available(self._name))
        serving = available & self._wanted
        replaced = sorted(available - self._wanted)
        # Until a wanted version is ready, the newest one is served.
        over = replaced if serving else replaced[:-1]
        self._replaced_at = {version: self._replaced_at.get(version, now) for version in over}
        for version, replaced_at in self._replaced_at.items():
            # A newer one would answer the calls that name no version. Its folder is gone.
            is_newer = version > max(serving, default=version)
            unused_since = max(replaced_at, self._servables.asked_at(self._name, version))
            if is_newer or now - unused_since >= self._schedule.keep_s:
                self._unload([version])

    def _unload(self, versions: list[int]) -> None:
        for version in versions:
            self._servables.unload(self._name, version)
