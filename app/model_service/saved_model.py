"""Finds and reads a SavedModel on disk: its versions, its `serve` graph and its signatures."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from failures import StartError, one_line
from grpc import StatusCode as Code
from tensorflow_messages import DecodeError, get_model_metadata_pb2, meta_graph_pb2, saved_model_pb2
from tensors import KINDS, Array, to_array

# The tag that exporters put on the graph meant for serving.
SERVE_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"

_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable"})


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: `name` is the graph's tensor, `dtype` a DataType number, -1 an unknown dimension."""

    alias: str
    name: str
    dtype: int
    shape: tuple[int, ...] | None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape agrees with every dimension that is known."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, size) for want, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """One callable of the model; `defaults` are inputs that a request may leave out."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_servable(self) -> bool:
        """Whether it maps dense tensors to dense tensors; the `__saved_model_init_op` entry, for one, does not."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.outputs) and all(":" in spec.name and spec.dtype in KINDS for spec in tensors)


@dataclass(frozen=True)
class SavedModel:
    """One version of a model as it lies on disk; `signature_defs` is what GetModelMetadata answers."""

    folder: Path
    version: int
    signatures: Mapping[str, Signature]
    signature_defs: get_model_metadata_pb2.SignatureDefMap


def latest_version(model_name: str, base_path: Path) -> tuple[int, Path]:
    """Return the highest version below `base_path` and its folder; raises StartError where there is none."""
    versions = find_versions(model_name, base_path)
    if not versions:
        raise StartError(no_versions(model_name, base_path))
    newest = max(versions)
    return newest, versions[newest]


def find_versions(model_name: str, base_path: Path) -> dict[int, Path]:
    """Return the version folders below `base_path` by their number; `00001` counts as 1.

    Raises StartError where `base_path` itself is missing or can't be listed.
    """
    try:
        return {int(child.name): child for child in base_path.iterdir() if _is_version(child)}
    except OSError as exc:
        raise StartError(
            f"Could not find base path {base_path} for servable {model_name} ({exc.strerror}): "
            "point --model_base_path at the folder that holds the version folders."
        ) from exc


def no_versions(model_name: str, base_path: Path) -> str:
    """Return TensorFlow Serving's line about a base path without a version."""
    return (
        f"No versions of servable {model_name} found under base path {base_path}. "
        "Did you forget to name your leaf directory as a number (eg. '/1/')?"
    )


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and int(path.name) < 2**63 and path.is_dir()


def read_saved_model(folder: Path, version: int) -> SavedModel:
    """Read the signatures of the SavedModel in `folder`.

    Raises StartError where the file is missing, broken or has no graph for serving, or where variables are
    missing: what a copy that is still under way, or was cut off, looks like.
    """
    graph = serving_graph(read_message(folder), folder)
    if _has_variables(graph) and not (folder / "variables" / "variables.index").is_file():
        raise StartError(
            f"{folder} is incomplete: its graph has variables, but variables/variables.index is missing. "
            "Copy the whole folder again.",
            Code.NOT_FOUND,
        )
    definitions = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in graph.signature_def.items():
        # A copy: a part of a message keeps the whole message, weights included, in memory.
        definitions.signature_def[name].CopyFrom(definition)
    signatures = {name: _signature(name, one) for name, one in definitions.signature_def.items()}
    return SavedModel(folder, version, signatures, definitions)


def read_message(folder: Path) -> saved_model_pb2.SavedModel:
    """Parse `saved_model.pb`; raises StartError where that can't be done."""
    path = folder / "saved_model.pb"
    try:
        return saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except DecodeError as exc:
        raise StartError(
            f"{path} is broken ({one_line(exc)}): copy or export the model again.", Code.DATA_LOSS
        ) from exc


def serving_graph(message: saved_model_pb2.SavedModel, folder: Path) -> meta_graph_pb2.MetaGraphDef:
    """Return the part of the message that is tagged for serving; raises StartError where there is none."""
    for graph in message.meta_graphs:
        if list(graph.meta_info_def.tags) == [SERVE_TAG]:
            return graph
    raise StartError(
        f'{folder / "saved_model.pb"} holds no graph with the tag "{SERVE_TAG}": it is empty, broken or was '
        "exported for something else; export the model again.",
        Code.NOT_FOUND,
    )


def digest(folder: Path) -> bytes:
    """Return the SHA-256 of the graph and the variables in `folder`, by which to see whether they are still the same.

    Raises StartError where one can't be read.
    """
    whole = hashlib.sha256()
    for path in (folder / "saved_model.pb", *sorted((folder / "variables").glob("variables.*"))):
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise _unreadable(path, exc) from exc
    return whole.digest()


def _unreadable(path: Path, exc: OSError) -> StartError:
    return StartError(f"{path} can't be read ({exc.strerror}): is the model folder copied completely?", Code.NOT_FOUND)


def _has_variables(graph: meta_graph_pb2.MetaGraphDef) -> bool:
    def nodes() -> Iterator[object]:
        yield from graph.graph_def.node
        for function in graph.graph_def.library.function:
            yield from function.node_def

    return any(getattr(node, "op", None) in _VARIABLE_OPS for node in nodes())


def _signature(name: str, definition: meta_graph_pb2.SignatureDef) -> Signature:
    def specs(tensors: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorSpec]:
        return {alias: _tensor_spec(alias, tensors[alias]) for alias in sorted(tensors)}

    try:
        # Defaults come with the model, not from a stranger: no limit on their size.
        defaults = {alias: to_array(tensor, 2**63) for alias, tensor in definition.defaults.items()}
    except ValueError as exc:
        raise StartError(f"Signature {name} has a default that can't be read ({exc}): export the model again.") from exc
    return Signature(name, specs(definition.inputs), specs(definition.outputs), MappingProxyType(defaults))


def _tensor_spec(alias: str, info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(alias, info.name, info.dtype, shape)
