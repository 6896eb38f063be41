"""Makes SavedModels as Keras 3, `tf.distribute` and TensorFlow 1 and 2 write them. Never import it.

`python unit_test/model_service/framework_models.py FOLDER` writes the same kinds of files as saved_models.py.
"""

# mypy: disable-error-code="untyped-decorator, misc"

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from saved_models import Array, save_expected

_TEXT = tf.TensorSpec([None], tf.string, name="text")
_NUMBERS = tf.TensorSpec([None], tf.int64, name="numbers")


class Ragged(tf.Module):
    """Ragged tensors, inside the graph and as their parts."""

    @tf.function(input_signature=[_TEXT])
    def serving_default(self, text: Any) -> Any:
        words = tf.strings.split(text)
        return {"words": words.to_tensor(default_value="-"), "counts": words.row_lengths()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="values"), _NUMBERS])
    def sums(self, values: Any, numbers: Any) -> Any:
        return {"sums": tf.reduce_sum(tf.RaggedTensor.from_row_splits(values, numbers), axis=1)}


class Tables(tf.Module):
    """A table that reads its words from a file of the model, and operations on strings."""

    def __init__(self, vocabulary: Path) -> None:
        words = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(words, default_value=-1)

    @tf.function(input_signature=[_TEXT])
    def serving_default(self, text: Any) -> Any:
        plain = tf.strings.regex_replace(tf.strings.lower(text), "[^a-z]", "")
        return {"plain": plain, "number": self.table.lookup(plain)}


class ControlFlow(tf.Module):
    """A loop whose length depends on its int64 input, and a branch."""

    @tf.function(input_signature=[_NUMBERS])
    def serving_default(self, numbers: Any) -> Any:
        steps = tf.zeros_like(numbers)
        while tf.reduce_any(numbers > 1):
            halved = tf.where(numbers % 2 == 0, numbers // 2, 3 * numbers + 1)
            steps += tf.cast(numbers > 1, tf.int64)
            numbers = tf.where(numbers > 1, halved, numbers)
        return {"steps": tf.cond(tf.size(steps) > 2, lambda: steps * 2**40, lambda: steps)}


class Distributed(tf.Module):
    """Weights that were made under a strategy with two replicas."""

    def __init__(self) -> None:
        self.weights = tf.Variable([[1.0, -2.0], [0.5, 3.0]])

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def serving_default(self, x: Any) -> Any:
        return {"y": x @ self.weights}


def make_keras(folder: Path, images: Array) -> None:
    """Write two networks of Keras 3, without and with Lambda layers."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    for name, first in (("keras", layers.Rescaling(1 / 255)), ("keras_lambda", layers.Lambda(lambda x: x / 127.5 - 1))):
        network = keras.Sequential(
            [
                keras.Input((8, 8, 3), name="image"),
                first,
                layers.Conv2D(4, 3, activation="relu"),
                layers.BatchNormalization(),
                layers.GlobalAveragePooling2D(),
                layers.Dense(2, activation="softmax"),
            ]
        )
        network.export(str(folder / name / "1"), verbose=False)
        save_expected(folder, name, {"serving_default": {"image": images}})


def make_modules(folder: Path) -> None:
    """Write the modules of TensorFlow 2."""
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("cat\ndog\n")
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    with strategy.scope():
        distributed = Distributed()
    text = {"text": np.array([b"Cat!", b"a DOG", b""])}
    values = {"values": np.arange(4, dtype=np.float32), "numbers": np.array([0, 3, 3, 4])}
    for name, module, inputs in (
        ("ragged", Ragged(), {"serving_default": text, "sums": values}),
        ("tables", Tables(vocabulary), {"serving_default": text}),
        ("control_flow", ControlFlow(), {"serving_default": {"numbers": np.array([27, 1, 2**41])}}),
        ("distributed", distributed, {"serving_default": {"x": np.eye(2, dtype=np.float32)}}),
    ):
        tf.saved_model.save(module, str(folder / name / "1"), {key: getattr(module, key) for key in inputs})
        save_expected(folder, name, inputs)


def make_version_1(folder: Path) -> None:
    """Write a graph of TensorFlow 1, whose loop is a cycle of nodes."""
    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = v1.while_loop(lambda y: tf.reduce_max(y) < 100.0, lambda y: y * 2.0 + 1.0, [x])
        v1.saved_model.simple_save(session, str(folder / "version_1" / "1"), {"x": x}, {"y": y})
    save_expected(folder, "version_1", {"serving_default": {"x": np.array([1, 3], np.float32)}})


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    make_keras(target, np.random.default_rng(7).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32))
    make_modules(target)
    make_version_1(target)
