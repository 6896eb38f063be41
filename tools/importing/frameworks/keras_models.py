"""Loads Keras files: those of Keras 3 with Keras 3, older ones with tf_keras."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.importing.frameworks.graph import TensorFlowNetwork, tensorflow
from tools.importing.frameworks.keras_config import class_names, description_of
from tools.importing.network import Array, ImportProblem, NormStatistics, spec_of

logger = logging.getLogger(__name__)

_MOST_UNPACKED_BYTES = 4 << 30


def load_h5(path: Path) -> TensorFlowNetwork:
    """Load an HDF5 file with its architecture; raises ImportProblem."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config, version = (_text(file.attrs.get(name)) for name in ("model_config", "keras_version"))
            has_weights = "model_weights" in file
    except (OSError, RuntimeError, KeyError, ValueError) as exc:
        raise ImportProblem(f"it can't be read as HDF5 ({exc}): is the file complete?") from exc
    if config is None:
        what = "only weights" if "layer_names" in _root_attributes(path) or not has_weights else "no architecture"
        raise ImportProblem(f"it holds {what}: save it with model.save(...), not with save_weights(...)")
    if _is_new(version):
        return _load_new(path, config, f"Keras {version} h5")
    tf_keras = tf_keras_module()
    description = description_of(config, tf_keras)
    model = loaded(lambda: tf_keras.models.load_model(str(path), custom_objects=_well_known(tf_keras), compile=False))
    return network_of(model, description, (f"Keras h5 ({version or 'of an unknown version'})", "tf_keras"))


def load_keras(path: Path) -> TensorFlowNetwork:
    """Load a `.keras` file; raises ImportProblem."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > min(_MOST_UNPACKED_BYTES, 50 * path.stat().st_size + (64 << 20)):
                raise ImportProblem(f"it unpacks to {unpacked >> 20} MiB, which is too much for its size")
            description = json.loads(archive.read("config.json"))
            # How it was trained is not loaded (compile=False). It names an optimizer, which may be the author's own.
            description.pop("compile_config", None)
            config = json.dumps(description)
            version = json.loads(archive.read("metadata.json")).get("keras_version")
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, AttributeError, TypeError, RuntimeError) as exc:
        raise ImportProblem(f"it can't be read as .keras ({exc}): is the file complete?") from exc
    if _is_new(version):
        return _load_new(path, config, f"Keras {version} .keras")
    tf_keras = tf_keras_module()
    description = description_of(config, tf_keras)
    model = loaded(lambda: tf_keras.models.load_model(str(path), compile=False, safe_mode=True))
    return network_of(model, description, (f"Keras {version} .keras", "tf_keras"))


def _load_new(path: Path, config: str, name: str) -> TensorFlowNetwork:
    tensorflow()
    import keras

    description = description_of(config, keras)
    model = loaded(lambda: keras.saving.load_model(path, compile=False, safe_mode=True))
    return network_of(model, description, (name, "Keras 3"))


def network_of(model: Any, description: Any, names: tuple[str, str]) -> TensorFlowNetwork:
    """Return the network of a loaded model of tf_keras or Keras 3; raises ImportProblem."""
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if len(model.inputs) != 1:
        raise ImportProblem(f"it has {len(model.inputs)} inputs, but only one input, a photo, is supported")
    dtype = model.inputs[0].dtype
    spec = spec_of(tuple(model.inputs[0].shape), dtype if isinstance(dtype, str) else dtype.name)
    outputs = [name.partition(":")[0].split("/")[0] for name in getattr(model, "output_names", [])]
    if len(set(outputs)) != len(model.outputs):
        outputs = [f"output_{number}" for number in range(len(model.outputs))]

    def answers(values: Any) -> dict[str, Any]:
        found = model(values, training=False)
        if isinstance(found, Mapping):
            return dict(found)
        return dict(zip(outputs, found if isinstance(found, (list, tuple)) else [found], strict=True))

    picture = tf.TensorSpec(tuple(model.inputs[0].shape), spec.dtype, name="picture")
    function = loaded(lambda: tf.function(answers, autograph=False).get_concrete_function(picture))
    frozen = convert_variables_to_constants_v2(function)
    tensors = dict(zip(sorted(function.structured_outputs), (one.name for one in frozen.outputs), strict=True))

    def run(values: Array) -> dict[str, Array]:
        return {name: output.numpy() for name, output in function(tf.constant(values)).items()}

    scaling = next((name for name in class_names(description) if name in ("Rescaling", "Normalization")), None)
    return TensorFlowNetwork(
        frozen.graph.as_graph_def(),
        frozen.inputs[0].name,
        tensors,
        spec,
        run,
        names,
        scales_itself=f"a {scaling} layer" if scaling else None,
        norm=lambda values: _norm(model, values),
    )


class _Seen(Exception):
    """The first batch normalisation was called. The rest of the model need not run."""


def _norm(model: Any, values: Array) -> NormStatistics | None:
    """Return the statistics of the first batch normalisation, recorded at its call."""
    tf = tensorflow()
    seen: list[NormStatistics] = []
    layers = [layer for layer in _layers(model) if type(layer).__name__ == "BatchNormalization"]
    calls = {id(layer): layer.call for layer in layers}

    def watched(layer: Any) -> Callable[..., Any]:
        def call(inputs: Any, *arguments: Any, **options: Any) -> Any:
            array = np.asarray(inputs)
            axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
            axes = tuple(number for number in range(array.ndim) if number != axis % array.ndim)
            mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
            seen.append(NormStatistics(mean, variance, array.mean(axis=axes), array.var(axis=axes)))
            raise _Seen

        return call

    try:
        for layer in layers:
            layer.call = watched(layer)
        model(tf.constant(values), training=False)
    # _Seen, or Keras' own error around it, or an error for channels first. Without the statistics more is assumed.
    except Exception as exc:
        if not seen:
            logger.debug("no statistics: %s", exc)
    finally:
        for layer in layers:
            layer.call = calls[id(layer)]
    return seen[0] if seen else None


def _layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", []):
        yield layer
        yield from _layers(layer)


def loaded(load: Callable[[], Any]) -> Any:
    """Return the result of `load`. Raises ImportProblem for any error of Keras with a broken or unusual file."""
    try:
        return load()
    # OSError, KeyError, TypeError, Keras' own errors, ...
    except Exception as exc:
        # Keras 3 quotes the whole layer before the reason.
        text = str(exc).rpartition("Exception encountered:")[2]
        lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(exc).__name__]
        raise ImportProblem(
            f"Keras can't load it ({lines[0][:200]}): the file may be incomplete, or made by another version of Keras. "
            "Export the model as a SavedModel (model.export) and import that"
        ) from exc


def _well_known(keras: Any) -> dict[str, Any]:
    # An activation of the first MobileNets. It is part of TensorFlow now.
    return {"relu6": tensorflow().nn.relu6}


def tf_keras_module() -> Any:
    """Return Keras 2, which loads files that are older than Keras 3."""
    tensorflow()
    import tf_keras

    return tf_keras


def _is_new(version: object) -> bool:
    return isinstance(version, str) and version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= 3


def _text(value: object) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def _root_attributes(path: Path) -> list[str]:
    import h5py

    with h5py.File(path, "r") as file:
        return list(file.attrs)
