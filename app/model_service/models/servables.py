"""The models that are served, found by the ModelSpec of a request, and what became of each version."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from grpc import StatusCode

from model_service.errors import invalid_argument, not_found
from model_service.models.engine import Engine
from model_service.models.saved_model import DEFAULT_SIGNATURE, SavedModel, Signature
from serving_common.tensorflow_protos import get_model_status_pb2, model_pb2

logger = logging.getLogger(__name__)

State = get_model_status_pb2.ModelVersionStatus.State
LOADING = State.Value("LOADING")
AVAILABLE = State.Value("AVAILABLE")
UNLOADING = State.Value("UNLOADING")
END = State.Value("END")

# The one name under which all names are counted that were never served.
OTHERS = "(others)"


@dataclass(frozen=True)
class Servable:
    """One loaded version of a model: what it is, and an engine for each signature that can be called."""

    name: str
    model: SavedModel
    engines: dict[str, Engine]

    @property
    def version(self) -> int:
        """The number of the folder it was loaded from."""
        return self.model.version

    def signature(self, name: str) -> Signature | None:
        """Return the callable signature of that name; an empty name means `serving_default`."""
        wanted = name or DEFAULT_SIGNATURE
        return self.model.signatures[wanted] if wanted in self.engines else None


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus says of one version: a State, and why where it failed."""

    version: int
    state: int
    code: StatusCode = StatusCode.OK
    message: str = ""


class Servables:
    """Every version that is available, by model name; one thread may change them while all others look and use."""

    def __init__(self, *servables: Servable) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, dict[int, Servable]] = {}
        self._statuses: dict[str, dict[int, VersionStatus]] = {}
        # By identity: the same version may be loaded anew while a call still uses the old copy.
        self._uses: Counter[int] = Counter()
        # When a call that names its version last used it, on the monotonic clock.
        self._asked_at: dict[tuple[str, int], float] = {}
        # How often a version of each model could not be loaded.
        self.load_failures: Counter[str] = Counter()
        for servable in servables:
            self.add(servable)

    def find(self, spec: model_pb2.ModelSpec) -> Servable:
        """Return the version the spec asks for, the highest where it names none; raises ServingError."""
        with self._lock:
            return self._find(spec)

    @contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """Find a version to compute with: it counts as loaded until the call has ended. Raises ServingError."""
        with self._lock:
            servable = self._find(spec)
            self._uses[id(servable)] += 1
            if spec.HasField("version"):
                self._asked_at[servable.name, servable.version] = time.monotonic()
        try:
            yield servable
        finally:
            with self._lock:
                self._release(servable)

    def add(self, servable: Servable) -> None:
        """Serve a version from now on."""
        with self._lock:
            self._versions.setdefault(servable.name, {})[servable.version] = servable
            self._set_status(servable.name, VersionStatus(servable.version, AVAILABLE))

    def unload(self, name: str, version: int) -> None:
        """Give a version to no more calls; it ends when the last of those that use it does."""
        logger.info("Quiescing servable version %s", label(name, version))
        with self._lock:
            servable = self._versions[name].pop(version)
            self._asked_at.pop((name, version), None)
            self._set_status(name, VersionStatus(version, UNLOADING))
            if not self._uses[id(servable)]:
                self._end(servable)

    def set_status(self, name: str, status: VersionStatus) -> None:
        """Say what becomes of a version that is not available."""
        with self._lock:
            self._set_status(name, status)
            # One that is no longer wanted has not failed.
            if status.code not in (StatusCode.OK, StatusCode.CANCELLED):
                self.load_failures[name] += 1

    def available(self, name: str) -> list[int]:
        """Return the numbers of the versions that are served."""
        with self._lock:
            return list(self._versions.get(name, {}))

    def asked_at(self, name: str, version: int) -> float:
        """Return when a call last named this version, on the monotonic clock; 0 where none did."""
        with self._lock:
            return self._asked_at.get((name, version), 0.0)

    def names(self) -> list[str]:
        """Return the models of which a version was ever to be served."""
        with self._lock:
            return list(self._statuses)

    def label(self, name: str) -> str:
        """Return what calls of this model count under in the metrics: one name for all that was never served here."""
        return name if not name or name in self._statuses else OTHERS

    def loaded(self) -> dict[str, int]:
        """Return the version that each model answers with, for those that have one."""
        with self._lock:
            return {name: max(versions) for name, versions in self._versions.items() if versions}

    def statuses(self, spec: model_pb2.ModelSpec) -> list[VersionStatus]:
        """Return what GetModelStatus reports, newest first; a label is ignored. Raises ServingError."""
        with self._lock:
            statuses = dict(self._statuses.get(spec.name, {}))
        if spec.WhichOneof("version_choice") == "version":
            if spec.version.value not in statuses:
                raise not_found(f"Could not find version {spec.version.value} of model {spec.name}")
            return [statuses[spec.version.value]]
        if not statuses:
            # TensorFlow Serving's text, and what helps.
            here = f"; served here: {', '.join(self.names())}" if self.names() else ""
            raise not_found(f"Could not find any versions of model {spec.name}{here}")
        return [statuses[number] for number in sorted(statuses, reverse=True)]

    def _find(self, spec: model_pb2.ModelSpec) -> Servable:
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        versions = self._versions.get(spec.name, {})
        if choice == "version":
            if spec.version.value not in versions:
                raise not_found(f"Servable not found for request: Specific({spec.name}, {spec.version.value})")
            return versions[spec.version.value]
        if not versions:
            raise not_found(f"Servable not found for request: Latest({spec.name})")
        return versions[max(versions)]

    def _release(self, servable: Servable) -> None:
        self._uses[id(servable)] -= 1
        if self._uses[id(servable)]:
            return
        del self._uses[id(servable)]
        if self._versions[servable.name].get(servable.version) is not servable:
            self._end(servable)

    def _end(self, servable: Servable) -> None:
        logger.info("Done unloading servable version %s", label(servable.name, servable.version))
        # It may be back already, loaded anew.
        if self._statuses[servable.name][servable.version].state == UNLOADING:
            self._set_status(servable.name, VersionStatus(servable.version, END))

    def _set_status(self, name: str, status: VersionStatus) -> None:
        self._statuses.setdefault(name, {})[status.version] = status


def label(name: str, version: int) -> str:
    """Return how TensorFlow Serving's log names a version."""
    return f"{{name: {name} version: {version}}}"
