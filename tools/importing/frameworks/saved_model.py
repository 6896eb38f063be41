"""Loads SavedModels of TensorFlow 1, TensorFlow 2 and Keras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_service.errors import StartError
from model_service.models.saved_model import SERVE_TAGS, checked_copy, read_saved_model
from serving_common.tensorflow_protos import types_pb2
from tools.importing.frameworks.graph import TensorFlowNetwork, tensorflow
from tools.importing.network import Array, ImportProblem, spec_of

_NUMBERS = (types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_UINT8, types_pb2.DT_INT32, types_pb2.DT_DOUBLE)
_INSTEAD = (
    "Export only the part that computes, from pixels to probabilities. Or, if you trust its author, serve the model as "
    "it is: docs/model_server.md, Untrusted models"
)
_INIT = "__saved_model_"


@dataclass(frozen=True)
class _Choice:
    """A signature. `image` is its only picture input. `bound` are inputs that get a fixed value."""

    name: str
    image: Any
    bound: Mapping[str, tuple[str, Any]]
    outputs: Mapping[str, Any]


def load(folder: Path, wanted: str | None) -> TensorFlowNetwork:
    """Load a SavedModel with the signature `wanted`, or the one that takes a picture; raises ImportProblem."""
    try:
        # Operations run while the model is loaded, so only those that compute are allowed.
        model = read_saved_model(folder, 1, refuse_unsafe=True)
    except StartError as exc:
        raise ImportProblem(_without_advice(str(exc))) from exc
    choice = _choose(model.signature_defs.signature_def, wanted)
    spec = spec_of(_shape(choice.image) or (None, None, None, None), np.dtype(_dtype(choice.image)).name)
    tf = tensorflow()
    v1 = tf.compat.v1
    outputs = {alias: info.name for alias, info in choice.outputs.items()}
    graph = tf.Graph()
    session = v1.Session(graph=graph)
    try:
        with checked_copy(model) as checked, graph.as_default():
            v1.saved_model.load(session, SERVE_TAGS, str(checked))
            nodes = sorted({name.partition(":")[0] for name in outputs.values()})
            frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), nodes)
            with tf.Graph().as_default() as bound:
                given = {tensor: tf.constant(value) for tensor, value in choice.bound.values()}
                tf.import_graph_def(frozen, given, name="")
                frozen = v1.graph_util.extract_sub_graph(bound.as_graph_def(), nodes)
    except (tf.errors.OpError, ValueError, OSError, KeyError, RuntimeError, TypeError) as exc:
        reason = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise ImportProblem(
            f"TensorFlow can't load it ({reason[:200]}): the folder may be incomplete, or made by another version of "
            "TensorFlow. If it is a model of Keras, save it as .keras and import that"
        ) from exc
    if not any(f"{node.name}:0" == choice.image.name for node in frozen.node):
        raise ImportProblem(f"its outputs don't depend on its input {choice.image.name}")
    fixed = {tensor: value for tensor, value in choice.bound.values()}

    def run(values: Array) -> dict[str, Array]:
        found: dict[str, Array] = session.run(outputs, {choice.image.name: values, **fixed})
        return found

    bound_names = [f"its input {alias} is bound to {value}" for alias, (_, value) in choice.bound.items()]
    return TensorFlowNetwork(
        frozen,
        choice.image.name,
        outputs,
        spec,
        run,
        (f"SavedModel (signature {choice.name})", "TensorFlow"),
        notes=bound_names,
    )


def _without_advice(message: str) -> str:
    # The advice about the model server's flag is replaced by advice for the import.
    reason, advice, _ = message.replace("--refuse_unsafe_operations: ", "").partition(" Serve a model without")
    return f"{reason} {_INSTEAD}" if advice else reason


def _choose(definitions: Mapping[str, Any], wanted: str | None) -> _Choice:
    names = [name for name in definitions if not name.startswith(_INIT)]
    if wanted is not None and wanted not in names:
        raise ImportProblem(f"there is no signature {wanted!r}; there are: {', '.join(names) or 'none'}")
    choices, reasons = [], []
    for name in [wanted] if wanted is not None else sorted(names, key=lambda name: (name != "serving_default", name)):
        try:
            choices.append(_read(name, definitions[name]))
        except ImportProblem as exc:
            reasons.append(f"{name}: {exc}")
    if not choices:
        raise ImportProblem("; ".join(reasons) or "it has no signature: export it with one (model.export)")
    return choices[0]


def _read(name: str, definition: Any) -> _Choice:
    pictures: dict[str, Any] = {}
    bound: dict[str, tuple[str, Any]] = {}
    for alias, info in definition.inputs.items():
        shape = _shape(info)
        if info.dtype == types_pb2.DT_BOOL and not shape:
            # `training`, `is_training`: false for a prediction.
            bound[alias] = (info.name, False)
        elif info.dtype == types_pb2.DT_FLOAT and shape == () and "keep" in alias:
            bound[alias] = (info.name, np.float32(1))
        elif info.dtype == types_pb2.DT_STRING:
            raise ImportProblem(
                f"its input {alias} takes encoded files, and its graph decodes and resizes them: export a signature "
                "that takes pixels, float32 [batch, height, width, 3]"
            )
        elif info.dtype in _NUMBERS:
            pictures[alias] = info
        else:
            raise ImportProblem(f"its input {alias} is neither a picture nor a switch")
    if len(pictures) != 1:
        raise ImportProblem(f"it has {len(pictures)} inputs that could be a picture ({', '.join(pictures) or 'none'})")
    ((_, image),) = pictures.items()
    spec_of(_shape(image) or (None, None, None, None), "float32")
    outputs = {alias: info for alias, info in definition.outputs.items() if info.dtype in _NUMBERS}
    if not outputs:
        raise ImportProblem("it has no output of numbers")
    return _Choice(name, image, bound, outputs)


def _shape(info: Any) -> tuple[int, ...] | None:
    return None if info.tensor_shape.unknown_rank else tuple(_sides(info))


def _sides(info: Any) -> Iterator[int]:
    for side in info.tensor_shape.dim:
        yield int(side.size)


def _dtype(info: Any) -> Any:
    return {
        types_pb2.DT_FLOAT: np.float32,
        types_pb2.DT_HALF: np.float16,
        types_pb2.DT_UINT8: np.uint8,
        types_pb2.DT_INT32: np.int32,
        types_pb2.DT_DOUBLE: np.float64,
    }[info.dtype]
