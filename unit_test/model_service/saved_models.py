"""Makes the models and expected values of the model server's tests, with the real TensorFlow. Never import it.

`python unit_test/model_service/saved_models.py FOLDER` writes

    FOLDER/<model>/1/saved_model.pb ...   the models
    FOLDER/<model>.<signature>.npz        inputs (`in <name>`) and what TensorFlow computes from them (`out <name>`)
    FOLDER/tensors/<case>.pb, .npy        TensorProtos and what TensorFlow reads in them (no .npy: it rejects them)
    FOLDER/warmup                         a file of warm-up requests for the model `image`
"""

# mypy: disable-error-code="untyped-decorator, misc"
# TensorFlow has no types for tf.Module or for the decorator of its methods.

import sys
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow_serving.apis import prediction_log_pb2

Array = np.ndarray[Any, np.dtype[Any]]

# All types that the server accepts and numpy has, except strings.
TYPES = (
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
)

_VALUES = tf.TensorSpec([None, 3], tf.float32, name="values")


class Image(tf.Module):
    """A convolutional network with its weights in variables, for any number of pictures."""

    def __init__(self) -> None:
        generator = tf.random.Generator.from_seed(1)
        self.kernel = tf.Variable(generator.normal([3, 3, 3, 8]))
        self.dense = tf.Variable(generator.normal([8, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, 24, 24, 3], tf.float32, name="image")])
    def serving_default(self, image: Any) -> Any:
        convolved = tf.nn.relu6(tf.nn.conv2d(image, self.kernel, 2, "SAME"))
        return {"probabilities": tf.nn.softmax(tf.reduce_mean(convolved, [1, 2]) @ self.dense)}


class TwoInputs(tf.Module):
    """Two inputs of different types and ranks."""

    @tf.function(input_signature=[_VALUES, tf.TensorSpec([None], tf.int32, name="counts")])
    def serving_default(self, values: Any, counts: Any) -> Any:
        return {"products": values * tf.cast(counts, tf.float32)[:, tf.newaxis]}


class HalfPlusTwo(tf.Module):
    """The model of TensorFlow Serving's manual: x / 2 + 2, exported for columns."""

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def serving_default(self, x: Any) -> Any:
        return {"y": x / 2.0 + 2.0}


_EXAMPLES = tf.TensorSpec([None], tf.string, name="inputs")


class Examples(tf.Module):
    """Signatures for Classify and Regress, right and wrong ones. They read the feature x of each example."""

    def _x(self, inputs: Any) -> Any:
        return tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]

    @tf.function(input_signature=[_EXAMPLES])
    def serving_default(self, inputs: Any) -> Any:
        labels = tf.constant([["cat", "dog"]])
        return {"classes": tf.repeat(labels, tf.size(inputs), axis=0), "scores": self._x(inputs)}

    @tf.function(input_signature=[_EXAMPLES])
    def scores(self, inputs: Any) -> Any:
        return {"scores": self._x(inputs)}

    @tf.function(input_signature=[_EXAMPLES])
    def regress(self, inputs: Any) -> Any:
        return {"outputs": tf.reduce_sum(self._x(inputs), axis=1, keepdims=True)}

    @tf.function(input_signature=[_EXAMPLES])
    def wide(self, inputs: Any) -> Any:
        return {"outputs": self._x(inputs)}

    @tf.function(input_signature=[_EXAMPLES])
    def flat(self, inputs: Any) -> Any:
        return {"scores": tf.reduce_sum(self._x(inputs), axis=1)}

    @tf.function(input_signature=[_EXAMPLES])
    def whole_numbers(self, inputs: Any) -> Any:
        return {"scores": tf.cast(self._x(inputs), tf.int64)}

    @tf.function(input_signature=[_EXAMPLES])
    def one_row(self, inputs: Any) -> Any:
        return {"scores": self._x(inputs)[:1], "outputs": self._x(inputs)[:1, 0]}

    @tf.function(input_signature=[_EXAMPLES])
    def other_names(self, inputs: Any) -> Any:
        return {"numbers": self._x(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def other_input(self, text: Any) -> Any:
        return {"scores": self._x(text)}


class TwoSignatures(tf.Module):
    """Two signatures that share their variables."""

    def __init__(self) -> None:
        self.weights = tf.Variable([[1.0, -1.0], [0.5, 2.0], [-3.0, 0.25]])

    @tf.function(input_signature=[_VALUES])
    def serving_default(self, values: Any) -> Any:
        return {"probabilities": tf.nn.softmax(values @ self.weights)}

    @tf.function(input_signature=[_VALUES])
    def features(self, values: Any) -> Any:
        return {"features": values @ self.weights}


class ManyOutputs(tf.Module):
    """Outputs of several types."""

    @tf.function(input_signature=[_VALUES])
    def serving_default(self, values: Any) -> Any:
        best = tf.argmax(values, axis=1)
        return {"logits": values * 2.0, "best": best, "positive": tf.reduce_sum(values, axis=1) > 0.0}


class KeptTypes(tf.Module):
    """The types beside float32 that OpenVINO computes exactly, with the usual arithmetic of models."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.uint8, name="pixels"),
            tf.TensorSpec([None], tf.float16, name="halves"),
            tf.TensorSpec([None], tf.int32, name="numbers"),
            tf.TensorSpec([], tf.bool, name="flag"),
        ]
    )
    def serving_default(self, pixels: Any, halves: Any, numbers: Any, flag: Any) -> Any:
        return {
            "scaled": tf.cast(pixels, tf.float32) / 255.0,
            "doubled": halves * 2.0,
            "next": numbers + 1,
            "opposite": tf.logical_not(flag),
        }


class Slow(tf.Module):
    """A loop that takes as long as its input says: for the tests of deadlines and of a server that stops."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="steps")])
    def serving_default(self, steps: Any) -> Any:
        def step(number: Any, total: Any) -> Any:
            return number + 1, tf.sin(total + 1.0)

        _, total = tf.while_loop(lambda number, _: number < steps, step, (0, 0.0))
        return {"total": total}


class Fallback(tf.Module):
    """Signatures that OpenVINO can't compute, or not exactly, and one that it can."""

    def __init__(self) -> None:
        entries = tf.lookup.KeyValueTensorInitializer(["cat", "dog"], tf.constant([0, 1], tf.int64))
        self.table = tf.lookup.StaticHashTable(entries, default_value=-1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serving_default(self, text: Any) -> Any:
        shout = tf.strings.join([text, "!"])
        return {"number": self.table.lookup(text), "shout": shout, "shout_bytes": shout}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.as_dtype(name), name=name) for name in TYPES])
    def every_type(self, *tensors: Any) -> Any:
        return {f"same_{name}": tf.identity(tensor) for name, tensor in zip(TYPES, tensors, strict=True)}

    @tf.function(input_signature=[_VALUES, tf.TensorSpec([None], tf.int64, name="numbers")])
    def wide(self, values: Any, numbers: Any) -> Any:
        return {"sums": tf.reduce_sum(values, axis=1), "next": numbers + 1}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def parsed(self, text: Any) -> Any:
        return {"numbers": tf.strings.to_number(text)}

    @tf.function(input_signature=[_VALUES])
    def floats(self, values: Any) -> Any:
        return {"sums": tf.reduce_sum(values, axis=1)}


def make_models(folder: Path) -> None:
    """Write each model, with inputs and outputs for each of its signatures."""
    random = np.random.default_rng(7)
    values = {"values": random.normal(size=(3, 3)).astype(np.float32)}
    images = {"image": random.random((3, 24, 24, 3), np.float32)}
    _save(folder, "image", Image(), serving_default=images)
    _save(folder, "two_inputs", TwoInputs(), serving_default=values | {"counts": np.array([1, -2, 3], np.int32)})
    _save(folder, "two_signatures", TwoSignatures(), serving_default=values, features=values)
    _save(folder, "many_outputs", ManyOutputs(), serving_default=values)
    kept_types: dict[str, Array] = {
        "pixels": np.array([[0, 1], [128, 255]], np.uint8),
        "halves": np.array([0.1, -65504, 6e-8], np.float16),
        "numbers": np.array([2**31 - 1, -(2**31), 2**24 + 1], np.int32),
        "flag": np.array(True),
    }
    _save(folder, "kept_types", KeptTypes(), serving_default=kept_types)
    _save(folder, "half_plus_two", HalfPlusTwo(), serving_default={"x": np.array([[1], [2]], np.float32)})
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.extend([0.25, 0.75])
    one = {"inputs": np.array([example.SerializeToString()])}
    names = ("serving_default", "scores", "regress", "wide", "flat", "whole_numbers", "one_row", "other_names")
    _save(folder, "examples", Examples(), other_input={"text": one["inputs"]}, **dict.fromkeys(names, one))
    _save(folder, "slow", Slow(), serving_default={"steps": np.array(10, np.int32)})
    _save(
        folder,
        "fallback",
        Fallback(),
        serving_default={"text": np.array([b"cat", b"dog", "Maçã".encode()])},
        every_type={name: _extremes(name) for name in TYPES},
        wide=values | {"numbers": np.array([2**40, -(2**40), 5])},
        parsed={"text": np.array([b"1.5", b"-2"])},
        floats=values,
    )


def _save(folder: Path, name: str, model: Any, **inputs: dict[str, Array]) -> None:
    path = folder / name / "1"
    tf.saved_model.save(model, str(path), {signature: getattr(model, signature) for signature in inputs})
    save_expected(folder, name, inputs)


def save_expected(folder: Path, name: str, inputs: dict[str, dict[str, Array]]) -> None:
    """Write the inputs of a saved model's signatures, and what TensorFlow computes from them."""
    loaded = tf.saved_model.load(str(folder / name / "1"))
    for signature, arrays in inputs.items():
        results = loaded.signatures[signature](**{alias: tf.constant(array) for alias, array in arrays.items()})
        given = {f"in {alias}": array for alias, array in arrays.items()}
        computed = {f"out {alias}": _fixed_width(result.numpy()) for alias, result in results.items()}
        np.savez(folder / f"{name}.{signature}.npz", **given, **computed)  # type: ignore[arg-type]  # allow_pickle


def _extremes(name: str) -> Array:
    dtype = np.dtype(name)
    if dtype.kind == "b":
        return np.array([True, False])
    if dtype.kind == "c":
        return np.array([1 + 2j, -0.1j], dtype)
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return np.array([limits.max, limits.min, 1, 0], dtype)


def _fixed_width(array: Array) -> Array:
    """Return strings as fixed-width bytes: an .npz can hold them without pickle."""
    return array.astype(np.bytes_) if array.dtype == np.object_ else array


class Counter(tf.Module):
    """Keeps a number from one call for the next."""

    def __init__(self) -> None:
        self.total = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def serving_default(self, x: Any) -> Any:
        return {"y": self.total.assign_add(x)}


def make_tflite(folder: Path) -> None:
    """Write `lite/1/model.tflite`, the network x @ w, and `lite_named`, the same with signatures in its metadata.

    `counter` keeps a number in a variable.
    """
    counter = Counter()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [counter.serving_default.get_concrete_function()], counter
    )
    converter.experimental_enable_resource_variables = True
    weights = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    function = tf.function(lambda x: {"y": x @ weights}).get_concrete_function(tf.TensorSpec([1, 2], name="x"))
    content = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    network = schema.ModelT.InitFromPackedBuf(content)
    tensors = network.subgraphs[0].tensors
    names = [
        tensors[index].name for side in (network.subgraphs[0].inputs, network.subgraphs[0].outputs) for index in side
    ]
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for alias, name, infos in (("picture", names[0], definition.inputs), ("p", names[1], definition.outputs)):
        infos[alias].CopyFrom(meta_graph_pb2.TensorInfo(name=name.decode(), dtype=1))
        for size in (1, 2):
            infos[alias].tensor_shape.dim.add(size=size)
    flexible = flexbuffers.Dumps(dict.fromkeys(("named", "serving_default"), definition.SerializeToString()))
    buffer, metadata = schema.BufferT(), schema.MetadataT()
    buffer.data, metadata.name, metadata.buffer = flexible, "signature_defs_metadata", len(network.buffers)
    network.buffers.append(buffer)
    network.metadata = [*(network.metadata or []), metadata]
    builder = flatbuffers.Builder(1024)
    builder.Finish(network.Pack(builder), b"TFL3")
    for name, written in (
        ("lite", content),
        ("lite_named", bytes(builder.Output())),
        ("counter", converter.convert()),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.tflite").write_bytes(written)


def make_tensors(folder: Path) -> None:
    """Write TensorProtos with too many, too few and no values for each type, and what TensorFlow's parser reads."""
    folder.mkdir()
    for name in TYPES:
        array = _extremes(name)
        empty = tf.make_tensor_proto(array[:0])
        whole = type(empty)(dtype=empty.dtype, tensor_content=array[:2].tobytes())
        for case, tensor, count in (
            ("content", whole, 2),
            ("content_too_long", whole, 1),
            ("content_too_short", whole, 3),
            ("values", _with_typed_values(array), len(array)),
            ("more_values", _with_typed_values(array), 1),
            ("fewer_values", _with_typed_values(array[:2]), 7),
            ("no_values", empty, 2),
        ):
            _write_tensor(folder / f"{name}.{case}", tensor, [count])
    text = tf.make_tensor_proto([b"a", b"\xff"])
    for case, tensor, shape in (
        ("values", text, [2]),
        ("fewer_values", text, [2, 2]),
        ("no_values", type(text)(dtype=text.dtype), [2]),
        ("negative_dimension", text, [-1]),
    ):
        _write_tensor(folder / f"string.{case}", tensor, shape)


def _with_typed_values(array: Array) -> Any:
    # One value at a time: make_tensor_proto uses the typed field only for single values.
    tensors = [tf.make_tensor_proto(value, shape=[1]) for value in array]
    for tensor in tensors[1:]:
        tensors[0].MergeFrom(tensor)
    return tensors[0]


def _write_tensor(path: Path, tensor: Any, shape: list[int]) -> None:
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    copy.tensor_shape.CopyFrom(tf.TensorShape([]).as_proto())
    for size in shape:
        copy.tensor_shape.dim.add(size=size)
    path.with_name(path.name + ".pb").write_bytes(copy.SerializeToString())
    try:
        array = tf.io.parse_tensor(copy.SerializeToString(), copy.dtype).numpy()
    except tf.errors.InvalidArgumentError:
        return
    np.save(path.with_name(path.name + ".npy"), _fixed_width(array))


def make_warmup(folder: Path) -> None:
    """Write `warmup`, a TFRecord file of two predict requests for the image model."""
    with tf.io.TFRecordWriter(str(folder / "warmup")) as writer:
        for brightness in (0.0, 1.0):
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.model_spec.name = "the name it was recorded under"
            image = tf.make_tensor_proto(np.full((1, 24, 24, 3), brightness, np.float32))
            log.predict_log.request.inputs["image"].CopyFrom(image)
            writer.write(log.SerializeToString())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    make_models(target)
    make_tflite(target / "tflite")
    make_tensors(target / "tensors")
    make_warmup(target)
