"""Checks a Keras file's description of its layers before the file is loaded.

The description may name only Keras' own layers, and only those that compute: a Lambda layer is code, and Keras imports
any module that a description names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tools.importing.network import ImportProblem

_READS = "it may read files: save the model without it, with an output of numbers"
# Layers that run code or read files, and what to do instead.
_REFUSED = {
    "Lambda": "it is Python code, which is never run: use a layer such as Rescaling instead, or, if you trust the "
    "model, export it as a SavedModel (model.export) and import that",
    "TFSMLayer": "it loads another model: import that one",
    "KerasLayer": "it is from tensorflow_hub: export the model as a SavedModel (tf.saved_model.save) and import that",
    "TorchModuleWrapper": "it is a pickle, which is code: export the model as ONNX",
    "JaxLayer": "it is code: export the model as a SavedModel and import that",
    "FlaxLayer": "it is code: export the model as a SavedModel and import that",
    "StringLookup": _READS,
    "IntegerLookup": _READS,
    "TextVectorization": _READS,
}
_STRUCTURES = frozenset(
    """
    Functional Model Sequential Policy DTypePolicy FloatDTypePolicy BatchNormalizationV1 BatchNormalizationV2
    SlicingOpLambda TFOpLambda __tuple__ __numpy__ __tensor__ __keras_tensor__ __ellipsis__ __slice__
    slice TensorShape
    """.split()  # noqa: SIM905  # shorter
)
# TensorFlow's functions that a description may call by name (TFOpLambda). They only compute.
_FUNCTIONS = ("math.", "nn.", "__operators__.", "image.resize", "image.rgb_to_", "image.grayscale_to_rgb")
_MORE_FUNCTIONS = frozenset(
    """
    cast concat reshape transpose reverse stack unstack split squeeze expand_dims identity convert_to_tensor
    clip_by_value compat.v1.shape compat.v1.transpose shape pad reduce_mean
    """.split()  # noqa: SIM905  # shorter
)
_NO_ACTIVATIONS = ("get", "serialize", "deserialize")
_MODULES = ("keras.", "tf_keras.", "tensorflow.keras.", "tensorflow.python.keras.", "builtins.")


def description_of(config: str, keras: Any) -> Any:
    """Parse the description of the layers. Raises ImportProblem if it names anything that does more than compute."""
    try:
        description = json.loads(config)
        known = {
            name
            for place in (keras.layers, keras.initializers, keras.regularizers, keras.constraints, _operations(keras))
            for name, value in vars(place).items()
            if isinstance(value, type)
        }
        for node in _nodes(description):
            _check_node(node, known | _STRUCTURES, keras)
    except (ValueError, RecursionError) as exc:
        raise ImportProblem(f"its description of the layers is broken ({exc}): is the file complete?") from exc
    return description


def _check_node(node: Mapping[str, Any], known: set[str] | frozenset[str], keras: Any) -> None:
    name, config, module = (node.get(key) for key in ("class_name", "config", "module"))
    label = config.get("name", "") if isinstance(config, Mapping) else ""
    if not isinstance(name, str) or not isinstance(module, str | None):
        raise ImportProblem(f"it has a layer {name!r} ({label}), which is code of its author: {_CUSTOM}")
    if name in _REFUSED or name == "__lambda__":
        kind = "Lambda" if name == "__lambda__" else name
        raise ImportProblem(f"it has a {kind} layer ({label}): {_REFUSED[kind]}")
    if module is not None and not f"{module}.".startswith(_MODULES):
        raise ImportProblem(f"it names {name!r} of the module {module!r}, which is code of its author: {_CUSTOM}")
    if name in ("function", "builtin_function_or_method"):
        if not isinstance(config, str) or config in _NO_ACTIVATIONS or not hasattr(keras.activations, config):
            raise ImportProblem(f"it calls the function {config!r}, which is not an activation of Keras: {_CUSTOM}")
    elif name not in known:
        raise ImportProblem(f"it has the custom object {name!r} ({label}), which is code of its author: {_CUSTOM}")
    if name == "TFOpLambda":
        function = str(config.get("function", "")) if isinstance(config, Mapping) else ""
        if not function.startswith(_FUNCTIONS) and function not in _MORE_FUNCTIONS:
            raise ImportProblem(f"it calls tf.{function} ({label}), which is not known to only compute: {_CUSTOM}")


_CUSTOM = "if you trust the model, export it as a SavedModel (model.export) and import that"


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if "class_name" in value:
            yield value
        for part in value.values():
            yield from _nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part)


def class_names(description: Any) -> list[str]:
    """Return all classes that the description names, in its order."""
    return [str(node["class_name"]) for node in _nodes(description)]


def _operations(keras: Any) -> Any:
    """Return Keras' operations. Keras 3 writes an expression such as `x / 127.5` between layers as an operation."""
    if not hasattr(keras, "ops"):
        return keras.layers
    from keras.src import ops

    class Operations:
        pass

    for module in (ops.numpy, ops.nn, ops.core, ops.image, ops.math):
        for name, value in vars(module).items():
            setattr(Operations, name, value)
    return Operations
