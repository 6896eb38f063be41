"""The versions that are served, found by the ModelSpec of a request, and the status of every version."""

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

# In metrics this name stands for all models that were never served.
OTHERS = "(others)"


@dataclass(frozen=True)
class Servable:
    """A loaded version of a model, with an engine for each signature that can be called."""

    name: str
    model: SavedModel
    engines: dict[str, Engine]

    @property
    def version(self) -> int:
        """The version number, which is the name of its folder."""
        return self.model.version

    def spec(self, signature_name: str = "") -> model_pb2.ModelSpec:
        """Return the ModelSpec of an answer."""
        return model_pb2.ModelSpec(name=self.name, version={"value": self.version}, signature_name=signature_name)

    def signature(self, name: str) -> Signature | None:
        """Return the signature with this name if it can be called; "" means `serving_default`."""
        wanted = name or DEFAULT_SIGNATURE
        return self.model.signatures[wanted] if wanted in self.engines else None


@dataclass(frozen=True)
class VersionStatus:
    """The status of a version in GetModelStatus: a State, and an error code and message if it failed."""

    version: int
    state: int
    code: StatusCode = StatusCode.OK
    message: str = ""


class Servables:
    """All available versions, by model name. One thread may change them while other threads use them."""

    def __init__(self, *servables: Servable) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, dict[int, Servable]] = {}
        self._statuses: dict[str, dict[int, VersionStatus]] = {}
        # Keyed by identity: a version may be loaded again while a call still uses the old copy.
        self._uses: Counter[int] = Counter()
        # When a call that names its version last used it, on the monotonic clock.
        self._asked_at: dict[tuple[str, int], float] = {}
        self._labels: dict[str, dict[str, int]] = {}
        # The models that have had a version and are still configured.
        self._expected: set[str] = set()
        # How many loads failed, per model.
        self.load_failures: Counter[str] = Counter()
        for servable in servables:
            self.add(servable)

    def find(self, spec: model_pb2.ModelSpec) -> Servable:
        """Return the requested version, or the highest if `spec` names none; raises ServingError."""
        with self._lock:
            return self._find(spec)

    @contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """Yield the requested version. It stays loaded until the block ends. Raises ServingError."""
        with self._lock:
            servable = self._find(spec)
            self._uses[id(servable)] += 1
            if spec.WhichOneof("version_choice"):
                self._asked_at[servable.name, servable.version] = time.monotonic()
        try:
            yield servable
        finally:
            with self._lock:
                self._release(servable)

    def add(self, servable: Servable) -> None:
        """Make a version available."""
        with self._lock:
            self._versions.setdefault(servable.name, {})[servable.version] = servable
            self._expected.add(servable.name)
            self._set_status(servable.name, VersionStatus(servable.version, AVAILABLE))

    def unload(self, name: str, version: int) -> None:
        """Make a version unavailable. It ends when the last call that uses it has ended."""
        logger.info("Quiescing servable version %s", label(name, version))
        with self._lock:
            servable = self._versions[name].pop(version)
            self._asked_at.pop((name, version), None)
            self._set_status(name, VersionStatus(version, UNLOADING))
            if not self._uses[id(servable)]:
                self._end(servable)

    def set_status(self, name: str, status: VersionStatus) -> None:
        """Set the status of a version that is not available."""
        with self._lock:
            self._set_status(name, status)
            # CANCELLED: the version was replaced before it was loaded. That is no failure.
            if status.code not in (StatusCode.OK, StatusCode.CANCELLED):
                self.load_failures[name] += 1

    def forget(self, name: str) -> None:
        """A model is no longer configured: that it has no version is no fault any more."""
        with self._lock:
            self._expected.discard(name)

    def missing(self) -> list[str] | None:
        """Return the configured models that had a version and have none now; None where no model had any."""
        with self._lock:
            if not self._expected:
                return None
            return sorted(name for name in self._expected if not self._versions.get(name))

    def set_labels(self, labels: dict[str, dict[str, int]]) -> None:
        """Replace the version labels of all models."""
        with self._lock:
            self._labels = labels

    def available(self, name: str) -> list[int]:
        """Return the numbers of the available versions."""
        with self._lock:
            return list(self._versions.get(name, {}))

    def asked_at(self, name: str, version: int) -> float:
        """Return when a call last named this version, on the monotonic clock; 0 where none did."""
        with self._lock:
            return self._asked_at.get((name, version), 0.0)

    def names(self) -> list[str]:
        """Return all models that have or had a version."""
        with self._lock:
            return list(self._statuses)

    def label(self, name: str) -> str:
        """Return the model's label in the metrics: its name, or OTHERS for a model that was never served."""
        return name if not name or name in self._statuses else OTHERS

    def loaded(self) -> dict[str, int]:
        """Return the version that each model answers with. Models without one are left out."""
        with self._lock:
            return {name: max(versions) for name, versions in self._versions.items() if versions}

    def statuses(self, spec: model_pb2.ModelSpec) -> list[VersionStatus]:
        """Return the statuses for GetModelStatus, newest version first. A label is ignored. Raises ServingError."""
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
        versions = self._versions.get(spec.name, {})
        if choice := spec.WhichOneof("version_choice"):
            version = spec.version.value if choice == "version" else self._labelled(spec)
            if version not in versions:
                raise not_found(f"Servable not found for request: Specific({spec.name}, {version})")
            return versions[version]
        if not versions:
            raise not_found(f"Servable not found for request: Latest({spec.name})")
        return versions[max(versions)]

    def _labelled(self, spec: model_pb2.ModelSpec) -> int:
        version = self._labels.get(spec.name, {}).get(spec.version_label)
        if version is None:
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        return version

    def _release(self, servable: Servable) -> None:
        self._uses[id(servable)] -= 1
        if self._uses[id(servable)]:
            return
        del self._uses[id(servable)]
        if self._versions[servable.name].get(servable.version) is not servable:
            self._end(servable)

    def _end(self, servable: Servable) -> None:
        logger.info("Done unloading servable version %s", label(servable.name, servable.version))
        # The version may be available again, loaded a second time.
        if self._statuses[servable.name][servable.version].state == UNLOADING:
            self._set_status(servable.name, VersionStatus(servable.version, END))

    def _set_status(self, name: str, status: VersionStatus) -> None:
        self._statuses.setdefault(name, {})[status.version] = status


def label(name: str, version: int) -> str:
    """Return a version's name in the format of TensorFlow Serving's log."""
    return f"{{name: {name} version: {version}}}"
