"""Tests the export with TensorFlow: both signatures, weights that are stored once, and the warm-up."""

import os
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from model_service.models import saved_model, tensors
from unit_test.model_service.fixtures import Array
from unit_test.tools.export_test import PROJECT, answers, warm_up_request

SIZE = 24
# Writes one network with and without its recipe, and what TensorFlow computes with the recipe. It is a program, because
# the tests never load TensorFlow. One weight is rounded by an operation that does not depend on the picture.
BUILD = f"""
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tools.training import export
import numpy as np
import tensorflow as tf
folder = Path(sys.argv[2])
random = tf.random.Generator.from_seed(1)
kernel, dense = (random.normal(shape).numpy() for shape in ([3, 3, 3, 1000], [1000, 200]))
def outputs(image):
    rounded = tf.quantization.fake_quant_with_min_max_vars(tf.constant(kernel), -3.0, 3.0)
    pooled = tf.reduce_mean(tf.nn.relu6(tf.nn.conv2d(image, rounded, 2, "SAME")), [1, 2])
    return {{"probabilities": tf.nn.softmax(pooled @ tf.constant(dense)), "domain_score": tf.reduce_max(pooled, 1)}}
scaling = export.Scaling(0.0078125, -0.9921875)
export.write_saved_model(folder / "plain" / "1", ({SIZE}, {SIZE}), outputs, warm=True)
export.write_saved_model(folder / "M" / "1", ({SIZE}, {SIZE}), outputs, warm=True, scaling=scaling)
pixels = np.load(folder / "pixels.npy")
answers = tf.saved_model.load(str(folder / "M" / "1")).signatures["pixels"](pixels=tf.constant(pixels))
np.savez(folder / "answers.npz", **{{name: answer.numpy() for name, answer in answers.items()}})
"""


class ExportTest(unittest.TestCase):
    folder: Path
    pixels: Array

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
        np.save(cls.folder / "pixels.npy", cls.pixels)
        command = [sys.executable, "-c", BUILD, str(PROJECT / "tools"), str(cls.folder)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
        cls.plain, cls.both = cls.folder / "plain" / "1", cls.folder / "M" / "1"

    def operations(self, folder: Path) -> Counter[str]:
        """Return how many nodes of each operation the graph has."""
        graph: Any = saved_model.serving_graph(saved_model.read_message(folder), folder)
        return Counter(node.op for node in graph.graph_def.node)

    def test_pixels_are_bytes_beside_an_input_of_float32_and_get_the_same_outputs(self) -> None:
        signatures = saved_model.read_saved_model(self.both, 1).signatures
        self.assertEqual(signatures.keys(), {"serving_default", "pixels"})
        inputs = {
            name: (tensors.type_name(spec.dtype), spec.shape)
            for signature in signatures.values()
            for name, spec in signature.inputs.items()
        }
        shape = (-1, SIZE, SIZE, 3)
        self.assertEqual(inputs, {"image": ("float", shape), "pixels": ("uint8", shape)})
        for signature in signatures.values():
            self.assertEqual(signature.outputs.keys(), {"probabilities", "domain_score"})

    def test_pixels_are_answered_as_what_the_recipe_makes_of_them(self) -> None:
        image = self.pixels * np.float32(0.0078125) + np.float32(-0.9921875)
        expected = answers(self.both, "serving_default", image)
        self.assertGreater(float(np.ptp(expected["domain_score"])), 1e-3)
        found = answers(self.both, "pixels", self.pixels)
        with np.load(self.folder / "answers.npz") as tensorflow:
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)
                np.testing.assert_allclose(tensorflow[name], values, rtol=1e-4, atol=1e-6)

    def test_weights_and_what_is_made_of_them_alone_are_there_once(self) -> None:
        more = self.operations(self.both) - self.operations(self.plain)
        # The only new constants are scale and offset.
        self.assertEqual(more["Const"], 2)
        self.assertEqual(more["FakeQuantWithMinMaxVars"], 0)
        self.assertEqual(more["Conv2D"], 1)
        sizes = [(folder / "saved_model.pb").stat().st_size for folder in (self.plain, self.both)]
        self.assertLess(sizes[1], 1.01 * sizes[0])

    def test_without_a_recipe_there_is_one_signature(self) -> None:
        self.assertEqual(saved_model.read_saved_model(self.plain, 1).signatures.keys(), {"serving_default"})

    def test_the_warm_up_asks_for_a_grey_picture_by_pixels_where_it_can(self) -> None:
        for folder, signature, name, grey in (
            (self.plain, "serving_default", "image", np.float32(0)),
            (self.both, "pixels", "pixels", np.uint8(127)),
        ):
            with self.subTest(signature):
                request = warm_up_request(folder)
                self.assertEqual(request.model_spec.name, folder.parent.name)
                self.assertEqual(request.model_spec.signature_name, signature)
                self.assertEqual(list(request.inputs), [name])
                picture = tensors.to_array(request.inputs[name], 2**20)
                self.assertEqual(picture.dtype, grey.dtype)
                np.testing.assert_array_equal(picture, np.full((1, SIZE, SIZE, 3), grey))


if __name__ == "__main__":
    unittest.main()
