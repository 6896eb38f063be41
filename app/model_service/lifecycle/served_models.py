"""Keeps all models of a ModelServerConfig served. One thread loads and unloads; it also follows the config file."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grpc import StatusCode

from model_service.errors import Failure, ServingError, StartError, failed_precondition, resource_exhausted
from model_service.lifecycle import model_config
from model_service.lifecycle.version_poller import Schedule, VersionPoller
from model_service.models.servables import Servable, Servables

logger = logging.getLogger(__name__)

# How often the thread checks whether something is due, in seconds; TensorFlow Serving's manager has the same interval.
_TICK_S = 0.1
# How many changes of the config may wait while a version is loaded.
_MAX_CHANGES = 16

Load = Callable[[str, int, Path], Servable]


@dataclass(frozen=True)
class Changes:
    """How the config may change: by `--model_config_file`, read every `poll_s` seconds (0 or less: at the start only).

    With `any_new_label` a new label may name a version that is not available yet. Without `by_clients` no client may
    change the config.
    """

    path: str = ""
    poll_s: float = 0.0
    any_new_label: bool = False
    by_clients: bool = True


class ServedModels:
    """The models that are configured. `load` loads and warms up one version: name, version, folder."""

    def __init__(self, servables: Servables, load: Load, schedule: Schedule, allowed: Changes) -> None:
        self._servables = servables
        self._load = load
        self._schedule = schedule
        self._allowed = allowed
        self._file_at = 0.0
        self._file_error = ""
        self._config = model_config.ModelServerConfig()
        self._pollers: dict[str, VersionPoller] = {}
        self._changes: queue.Queue[tuple[Any, Future[None]]] = queue.Queue(_MAX_CHANGES)
        self._waiting: list[tuple[Future[None], list[VersionPoller]]] = []
        self._stop = threading.Event()

    @property
    def is_loading(self) -> bool:
        """Whether a version is being loaded."""
        return any(poller.is_loading for poller in list(self._pollers.values()))

    def load_first(self, config: Any) -> None:
        """Load the models of a checked ModelServerConfig; raises StartError if one of them has no version."""
        try:
            for poller in self._configure(config):
                poller.load_first()
        except ServingError as exc:
            raise StartError(exc.message, exc.code) from exc

    def start(self) -> None:
        """Follow the models' folders and the config file from now on."""
        self._file_at = time.monotonic() + self._allowed.poll_s
        # A daemon thread, so that the process can end while a version is loaded.
        threading.Thread(target=self._run, name="version poller", daemon=True).start()

    def stop(self) -> None:
        """Change nothing more. It does not wait for a version that is being loaded."""
        self._stop.set()

    def reload(self, config: Any) -> "Future[None]":
        """Replace the ModelServerConfig; any thread may call it.

        The future ends when each new model has a version, or with the ServingError why not. Raises ServingError if
        clients may not do this, or if too many changes wait.
        """
        if not self._allowed.by_clients:
            raise ServingError(StatusCode.PERMISSION_DENIED, "Off by --allow_reload_requests=false")
        future: Future[None] = Future()
        try:
            self._changes.put_nowait((config, future))
        except queue.Full:
            raise resource_exhausted(f"{_MAX_CHANGES} changes of the config wait already") from None
        return future

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                self._change(*self._changes.get(timeout=_TICK_S))
            self._follow_file(time.monotonic())
            for poller in list(self._pollers.values()):
                try:
                    poller.step(time.monotonic())
                except Exception:
                    # Whatever the error is, the current versions are still served, and the polling goes on.
                    logger.exception("The folder of versions could not be followed")
            self._report()

    def _follow_file(self, now: float) -> None:
        if self._allowed.poll_s <= 0 or now < self._file_at:
            return
        self._file_at = now + self._allowed.poll_s
        error = ""
        try:
            config = model_config.read(self._allowed.path)
            # An empty file changes nothing: it may just be written.
            if config.WhichOneof("config"):
                model_config.check(config, self._config)
                self._configure(config)
        except (StartError, ServingError) as exc:
            error = str(exc)
        if error and error != self._file_error:
            # Once, not at each poll.
            logger.error("The models stay as they are: %s", error)
        self._file_error = error

    def _change(self, config: Any, future: "Future[None]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            model_config.check(config, self._config)
            self._waiting.append((future, self._configure(config)))
        except Failure as exc:
            logger.error("ReloadConfig failed: %s", exc)
            future.set_exception(exc)

    def _configure(self, config: Any) -> list[VersionPoller]:
        """Replace the config and return the pollers of new models; raises ServingError because of a label."""
        models = {model.name: model for model in config.model_config_list.config}
        self._servables.set_labels({name: self._labels(model) for name, model in models.items()})
        if config != self._config:
            logger.info("Models: %s", ", ".join(models) or "none")
        self._config = config
        for name in self._pollers.keys() - models.keys():
            self._pollers.pop(name).end()
        new = []
        for name, model in models.items():
            if name in self._pollers:
                self._pollers[name].configure(model)
            else:
                poller = VersionPoller(self._servables, model, partial(self._load, name), self._schedule)
                self._pollers[name] = poller
                new.append(poller)
        return new

    def _labels(self, model: Any) -> dict[str, int]:
        """Return the version of each label of a ModelConfig; raises ServingError if one is not available."""
        current = {old.name: old.version_labels for old in self._config.model_config_list.config}.get(model.name, {})
        available = self._servables.available(model.name)
        for label, version in model.version_labels.items():
            is_new = current.get(label, version) == version
            if version not in available and not (self._allowed.any_new_label and is_new):
                raise failed_precondition(
                    f"Request to assign label to version {version} of model {model.name}, which is not currently "
                    "available for inference"
                )
        return dict(model.version_labels)

    def _report(self) -> None:
        """End the futures whose new models have all been loaded, or have failed."""
        still = []
        for future, pollers in self._waiting:
            problems = [poller.problem for poller in pollers]
            if None in problems:
                still.append((future, pollers))
            elif failed := [problem for problem in problems if problem]:
                listed = "".join(f"{{{problem}}}, " for problem in failed)
                text = f"{len(failed)} model(s) did not become available: {{{listed}}}"
                logger.error("ReloadConfig failed: %s", text)
                future.set_exception(ServingError(StatusCode.UNKNOWN, text))
            else:
                future.set_result(None)
        self._waiting = still
