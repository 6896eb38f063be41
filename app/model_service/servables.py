"""The models that are served, found by the ModelSpec of a request."""

from dataclasses import dataclass

from engines import Engine
from failures import invalid_argument, not_found
from saved_model import DEFAULT_SIGNATURE, SavedModel, Signature
from tensorflow_messages import model_pb2


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


class Servables:
    """Every version that is available, by model name."""

    def __init__(self, *servables: Servable) -> None:
        self._versions: dict[str, dict[int, Servable]] = {}
        for servable in servables:
            self._versions.setdefault(servable.name, {})[servable.version] = servable

    def find(self, spec: model_pb2.ModelSpec) -> Servable:
        """Return the version the spec asks for, the highest where it names none; raises ServingError."""
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

    def versions(self, spec: model_pb2.ModelSpec) -> list[Servable]:
        """Return what GetModelStatus reports, newest first; a label is ignored. Raises ServingError."""
        versions = self._versions.get(spec.name, {})
        if spec.WhichOneof("version_choice") == "version":
            if spec.version.value not in versions:
                raise not_found(f"Could not find version {spec.version.value} of model {spec.name}")
            return [versions[spec.version.value]]
        if not versions:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return [versions[number] for number in sorted(versions, reverse=True)]
