"""Reads the graph and the signatures of a SavedModel."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from grpc import StatusCode as Code

from model_service.errors import StartError, one_line
from model_service.models.graph_check import check_graph
from model_service.models.graph_order import check_order
from model_service.models.ir_check import check_ir
from model_service.models.model_files import check_files, read_graph_file, unreadable
from model_service.models.tensors import KINDS, Array, to_array
from serving_common.tensorflow_protos import DecodeError, get_model_metadata_pb2, meta_graph_pb2, saved_model_pb2

logger = logging.getLogger(__name__)

# Exporters put this tag on the graph for serving.
SERVE_TAGS = frozenset({"serve"})
DEFAULT_SIGNATURE = "serving_default"

# Limit of a signature's default input, in bytes; --max_message_bytes limits the input of a request.
_MAX_DEFAULT_BYTES = 64 << 20

# A network in OpenVINO's own format, which takes the place of the graph: `saved_model.pb` has the signatures only.
IR_FILE = Path("openvino", "model.xml")

# A network of TensorFlow Lite, which is served with --prefer_tflite_model.
TFLITE_FILE = "model.tflite"

_VARIABLE_OPS = frozenset({"VarHandleOp", "VariableV2", "Variable"})


@dataclass(frozen=True)
class TensorSpec:
    """An input or output. `name` is the tensor in the graph, `dtype` a DataType number, -1 an unknown dimension."""

    alias: str
    name: str
    dtype: int
    shape: tuple[int, ...] | None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` matches all known dimensions."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, size) for want, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """A function of the model. `defaults` has values for inputs that a request may omit."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_servable(self) -> bool:
        """Whether all inputs and outputs are dense tensors; `__saved_model_init_op`, for example, has none."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.outputs) and all(":" in spec.name and spec.dtype in KINDS for spec in tensors)


@dataclass(frozen=True)
class SavedModel:
    """One version of a model on disk. `signature_defs` is the answer to GetModelMetadata.

    With `is_checked`, graph_check.py has checked the graph, and only this checked graph may be run. `tags` choose the
    graph if the file has several. With `is_tflite` there is no graph: the network is in TFLITE_FILE.
    """

    folder: Path
    version: int
    signatures: Mapping[str, Signature]
    signature_defs: get_model_metadata_pb2.SignatureDefMap
    is_checked: bool = False
    tags: frozenset[str] = SERVE_TAGS
    is_tflite: bool = False

    def graph(self) -> meta_graph_pb2.MetaGraphDef:
        """Read the graph again; raises StartError."""
        return serving_graph(read_message(self.folder), self.folder, self.tags)


def read_saved_model(
    folder: Path, version: int, refuse_unsafe: bool = False, tags: frozenset[str] = SERVE_TAGS
) -> SavedModel:
    """Read the signatures of the SavedModel in `folder`.

    Raises StartError in these cases: the file is missing or broken, or has no graph for serving; variables are missing
    (the folder is still being copied, or the copy was interrupted); a file fails the checks of model_files.py. With
    `refuse_unsafe` also if the graph fails the check of graph_check.py, or if a link leads out of the base path.
    """
    check_files(folder, folder.parent if refuse_unsafe else None)
    graph = serving_graph(read_message(folder), folder, tags)
    check_order(graph)
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
        # A copy: a reference to a part would keep the whole message in memory, with the weights.
        definitions.signature_def[name].CopyFrom(definition)
    # A signature may say another type than the graph. TensorFlow Serving does not compare them: the graph counts.
    dtypes = {f"{node.name}:0": node.attr["dtype"].type for node in graph.graph_def.node if node.op == "Placeholder"}
    return SavedModel(folder, version, read_signatures(definitions, dtypes), definitions, refuse_unsafe, tags)


def read_signatures(
    definitions: get_model_metadata_pb2.SignatureDefMap, dtypes: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Signature]:
    """Return the signatures by name; `dtypes` are DataTypes of tensors that count more than those in `definitions`.

    Raises StartError if a default input can't be read.
    """
    return {name: _signature(name, one, dtypes) for name, one in definitions.signature_def.items()}


@contextmanager
def checked_copy(model: SavedModel) -> Iterator[Path]:
    """Yield a folder to load the model from. If the model is checked, it holds only the checked graph.

    TensorFlow's loader reads the file again. The file may have changed since the check, or the loader may choose
    another graph in it. Without a check the folder is the model's own. Raises StartError.
    """
    if not model.is_checked:
        yield model.folder
        return
    graph = model.graph()
    check_graph(graph)
    message = saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[graph])
    with rewritten(model.folder, message) as folder:
        yield folder


@contextmanager
def rewritten(source: Path, message: saved_model_pb2.SavedModel) -> Iterator[Path]:
    """Yield a temporary folder with the SavedModel of `source`, but with `message` as its file; raises StartError."""
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="model_")))
            (folder / "saved_model.pb").write_bytes(message.SerializeToString())
        except OSError as exc:
            raise StartError(
                f"{source} needs a folder for temporary files that takes its graph ({exc.strerror}): mount one at /tmp "
                "(in a container --tmpfs /tmp), or set TMPDIR."
            ) from exc
        for part in ("variables", "assets"):
            _link(source / part, folder / part)
        yield folder


def _link(source: Path, target: Path) -> None:
    if not source.is_dir():
        return
    try:
        os.symlink(source.resolve(), target, target_is_directory=True)
    except OSError:
        # Windows allows links only to administrators and developers.
        shutil.copytree(source, target)


def read_message(folder: Path) -> saved_model_pb2.SavedModel:
    """Parse `saved_model.pb`; raises StartError if that fails."""
    path = folder / "saved_model.pb"
    try:
        return saved_model_pb2.SavedModel.FromString(read_graph_file(path))
    except DecodeError as exc:
        raise StartError(
            f"{path} is broken ({one_line(exc)}): copy or export the model again.", Code.DATA_LOSS
        ) from exc


def serving_graph(
    message: saved_model_pb2.SavedModel, folder: Path, tags: frozenset[str] = SERVE_TAGS
) -> meta_graph_pb2.MetaGraphDef:
    """Return the graph with exactly these tags; raises StartError if there is none."""
    for graph in message.meta_graphs:
        if tags == set(graph.meta_info_def.tags):
            return graph
    wanted = ",".join(sorted(tags))
    raise StartError(
        f'{folder / "saved_model.pb"} holds no graph with the tag "{wanted}": it is empty, broken or was '
        "exported for something else; export the model again.",
        Code.NOT_FOUND,
    )


def ir_of(folder: Path) -> Path | None:
    """Return the version's network in OpenVINO's own format, where it has one."""
    path = folder / IR_FILE
    return path if path.is_file() else None


def digest(model: SavedModel) -> bytes:
    """Return the SHA-256 of the files that the model consists of now, to detect changes.

    Raises StartError if a file can't be read.
    """
    folder = model.folder
    whole = hashlib.sha256()
    parts = (*sorted((folder / "variables").glob("variables.*")), *sorted((folder / IR_FILE.parent).glob("model.*")))
    for path in (folder / (TFLITE_FILE if model.is_tflite else "saved_model.pb"), *parts):
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise unreadable(path, exc) from exc
    return whole.digest()


def changed(folder: Path) -> StartError:
    """Return the error for files that are not those that were loaded."""
    return StartError(f"{folder} has changed since it was loaded: add the new files as a new version.")


def _has_variables(graph: meta_graph_pb2.MetaGraphDef) -> bool:
    def nodes() -> Iterator[object]:
        yield from graph.graph_def.node
        for function in graph.graph_def.library.function:
            yield from function.node_def

    return any(getattr(node, "op", None) in _VARIABLE_OPS for node in nodes())


def _signature(name: str, definition: meta_graph_pb2.SignatureDef, dtypes: Mapping[str, int]) -> Signature:
    def specs(tensors: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorSpec]:
        return {alias: _tensor_spec(alias, tensors[alias], dtypes) for alias in sorted(tensors)}

    try:
        defaults = {alias: to_array(tensor, _MAX_DEFAULT_BYTES) for alias, tensor in definition.defaults.items()}
    except ValueError as exc:
        raise StartError(f"Signature {name} has a default that can't be read ({exc}): export the model again.") from exc
    return Signature(name, specs(definition.inputs), specs(definition.outputs), MappingProxyType(defaults))


def _tensor_spec(alias: str, info: meta_graph_pb2.TensorInfo, dtypes: Mapping[str, int]) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(alias, info.name, dtypes.get(info.name, info.dtype), shape)
