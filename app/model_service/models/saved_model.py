"""Finds and reads a SavedModel on disk: its versions, its `serve` graph and its signatures."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from grpc import StatusCode as Code

from model_service.errors import StartError, one_line
from model_service.models.graph_check import check_graph
from model_service.models.ir_check import check_ir
from model_service.models.model_files import check_files, read_graph_file, unreadable
from model_service.models.tensors import KINDS, Array, to_array
from serving_common.tensorflow_protos import DecodeError, get_model_metadata_pb2, meta_graph_pb2, saved_model_pb2

logger = logging.getLogger(__name__)

# The tag that exporters put on the graph meant for serving.
SERVE_TAG = "serve"
DEFAULT_SIGNATURE = "serving_default"

# Of a default that stands in for an input, as of one that a request brings (--max_message_bytes).
_MAX_DEFAULT_BYTES = 64 << 20

# A network in OpenVINO's own format, which takes the place of the graph: `saved_model.pb` has the signatures only.
IR_FILE = Path("openvino", "model.xml")

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
    """One version of a model as it lies on disk; `signature_defs` is what GetModelMetadata answers.

    `is_checked` says that its graph was checked (graph_check.py) and may be run only as it was checked.
    """

    folder: Path
    version: int
    signatures: Mapping[str, Signature]
    signature_defs: get_model_metadata_pb2.SignatureDefMap
    is_checked: bool = False


def latest_version(model_name: str, base_path: Path) -> tuple[int, Path]:
    """Return the highest version below `base_path` and its folder; raises StartError where there is none."""
    versions = find_versions(model_name, base_path)
    if not versions:
        raise StartError(no_versions(model_name, base_path))
    newest = max(versions)
    for text in duplicates(versions):
        logger.warning("%s", text)
    return newest, versions[newest][0]


def find_versions(model_name: str, base_path: Path) -> dict[int, list[Path]]:
    """Return the version folders below `base_path` by their number, those that share one with the shortest name first.

    A version is named by the digits 0 to 9 alone, `0001` is 1, and is a folder or a link to one.
    Raises StartError where `base_path` itself is missing or can't be listed.
    """
    found: dict[int, list[Path]] = {}
    try:
        for child in sorted(base_path.iterdir(), key=lambda path: len(path.name)):
            if _is_version(child):
                found.setdefault(int(child.name), []).append(child)
    except OSError as exc:
        raise StartError(
            f"Could not find base path {base_path} for servable {model_name} ({exc.strerror}): "
            "point --model_base_path at the folder that holds the version folders."
        ) from exc
    return found


def duplicates(versions: Mapping[int, list[Path]]) -> list[str]:
    """Return a line for each version that several folders are named for: TensorFlow Serving warns of them too."""
    return [
        f"Duplicate version directories detected. Version {version} will be loaded from {first}, "
        f"and not from {', '.join(map(str, others))}"
        for version, (first, *others) in sorted(versions.items())
        if others
    ]


def no_versions(model_name: str, base_path: Path) -> str:
    """Return TensorFlow Serving's line about a base path without a version."""
    return (
        f"No versions of servable {model_name} found under base path {base_path}. "
        "Did you forget to name your leaf directory as a number (eg. '/1/')?"
    )


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal() and int(path.name) < 2**63 and path.is_dir()


def read_saved_model(folder: Path, version: int, refuse_unsafe: bool = False) -> SavedModel:
    """Read the signatures of the SavedModel in `folder`.

    Raises StartError where the file is missing, broken or has no graph for serving, or where variables are
    missing: what a copy that is still under way, or was cut off, looks like; where a file can't be one of a model
    (model_files.py); and with `refuse_unsafe` where the graph could do anything but compute (graph_check.py), or a
    link leads out of the base path.
    """
    check_files(folder, folder.parent if refuse_unsafe else None)
    graph = serving_graph(read_message(folder), folder)
    if refuse_unsafe:
        check_graph(graph)
        if (network := ir_of(folder)) is not None:
            check_ir(network)
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
    return SavedModel(folder, version, signatures, definitions, refuse_unsafe)


@contextmanager
def checked_copy(model: SavedModel) -> Iterator[Path]:
    """Yield a folder to load the model from, with nothing in it but the one graph that was checked.

    A loader reads the file anew, which may be another one by now, and may choose another graph of those in it.
    Where nothing is to be checked, the folder is the model's own. Raises StartError.
    """
    if not model.is_checked:
        yield model.folder
        return
    graph = serving_graph(read_message(model.folder), model.folder)
    check_graph(graph)
    with rewritten(
        model.folder, saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[graph])
    ) as folder:
        yield folder


@contextmanager
def rewritten(source: Path, message: saved_model_pb2.SavedModel) -> Iterator[Path]:
    """Yield a folder in which the SavedModel of `source` has another `saved_model.pb`."""
    with tempfile.TemporaryDirectory(prefix="model_") as name:
        folder = Path(name)
        (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        for part in ("variables", "assets"):
            _link(source / part, folder / part)
        yield folder


def _link(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    try:
        os.symlink(source.resolve(), target, target_is_directory=True)
    except OSError:
        # On Windows only administrators and developers may make links.
        shutil.copytree(source, target)


def read_message(folder: Path) -> saved_model_pb2.SavedModel:
    """Parse `saved_model.pb`; raises StartError where that can't be done."""
    path = folder / "saved_model.pb"
    try:
        return saved_model_pb2.SavedModel.FromString(read_graph_file(path))
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


def ir_of(folder: Path) -> Path | None:
    """Return the version's network in OpenVINO's own format, where it has one."""
    path = folder / IR_FILE
    return path if path.is_file() else None


def digest(folder: Path) -> bytes:
    """Return the SHA-256 of the graph and the variables in `folder`, by which to see whether they are still the same.

    Raises StartError where one can't be read.
    """
    whole = hashlib.sha256()
    parts = (*sorted((folder / "variables").glob("variables.*")), *sorted((folder / IR_FILE.parent).glob("model.*")))
    for path in (folder / "saved_model.pb", *parts):
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise unreadable(path, exc) from exc
    return whole.digest()


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
        defaults = {alias: to_array(tensor, _MAX_DEFAULT_BYTES) for alias, tensor in definition.defaults.items()}
    except ValueError as exc:
        raise StartError(f"Signature {name} has a default that can't be read ({exc}): export the model again.") from exc
    return Signature(name, specs(definition.inputs), specs(definition.outputs), MappingProxyType(defaults))


def _tensor_spec(alias: str, info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(alias, info.name, info.dtype, shape)
