"""Loads layers models of TensorFlow.js. Teachable Machine exports them too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.importing.frameworks.graph import TensorFlowNetwork
from tools.importing.frameworks.keras_config import description_of
from tools.importing.frameworks.keras_models import loaded, network_of, tf_keras_module
from tools.importing.network import Array, ImportProblem


def load(path: Path) -> TensorFlowNetwork:
    """Load a layers model of TensorFlow.js, `model.json` and the weights beside it; raises ImportProblem."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        topology, manifest = document["modelTopology"], document["weightsManifest"]
        if document.get("format") == "graph-model" or "node" in topology:
            raise ImportProblem(
                "it is a graph model of TensorFlow.js, which can't be converted: import the model that it was made from"
            )
        architecture = topology.get("model_config", topology)
        weights = {name: array for group in manifest for name, array in _weights(path.parent, group)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ImportProblem(f"it can't be read as a model of TensorFlow.js ({exc}): are all files there?") from exc
    tf_keras = tf_keras_module()
    description = description_of(json.dumps(architecture), tf_keras)
    model = loaded(lambda: tf_keras.models.model_from_json(json.dumps(architecture)))
    _set_weights(model, weights)
    return network_of(model, description, ("TensorFlow.js layers model", "tf_keras"))


def _weights(folder: Path, group: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    """Yield name and values of each weight of a group.

    The weights follow each other in the group's files. Quantised weights have 8 or 16 bits.
    """
    names = [str(name) for name in group["paths"]]
    if any(Path(name).name != name for name in names):
        raise ValueError(f"the weights' files {names} must lie beside model.json")
    data = b"".join((folder / name).read_bytes() for name in names)
    start = 0
    for weight in group["weights"]:
        shape, packed = tuple(weight["shape"]), weight.get("quantization", {})
        stored = np.dtype(packed.get("dtype", weight["dtype"])).newbyteorder("<")
        count = int(np.prod(shape, dtype=np.int64))
        values = np.frombuffer(data, stored, count, start).reshape(shape)
        start += count * stored.itemsize
        if "scale" in packed:
            values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
        yield weight["name"], values.astype(weight["dtype"])
    if start != len(data):
        raise ValueError(f"the weights' files have {len(data)} bytes, but model.json describes {start} bytes")


def _set_weights(model: Any, weights: Mapping[str, Array]) -> None:
    for variable in model.weights:
        name = variable.name.removesuffix(":0")
        value = weights.get(name)
        if value is None:
            # Nested models add their names as prefixes.
            value = next((array for key, array in weights.items() if name.endswith(f"/{key}")), None)
        if value is None or value.shape != tuple(variable.shape):
            raise ImportProblem(f"its weights have no values for {name} {list(variable.shape)}")
        variable.assign(value)
