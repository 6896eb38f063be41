"""Tests that the backbone in TensorFlow computes the same as plain numpy."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np

from tools.training.backbone import efficientnet_lite
from unit_test.tools.efficientnet_lite_test import LITE0, Array, convolve, normalise
from unit_test.tools.programs import PROJECT

# All sizes on the way down are odd (65 -> 33 -> 17 -> 9 -> 5 -> 3), so that wrong padding shows.
SIZE = 65
# Writes the features of a SavedModel built by TensorFlow. It is a program, because the tests never load TensorFlow.
BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tools.training import export
from tools.training.backbone import efficientnet_lite
network = efficientnet_lite.load_network(efficientnet_lite.VARIANTS["lite0"])
size = int(sys.argv[3])
export.write_saved_model(Path(sys.argv[2]), (size, size),
                         lambda image: {"features": efficientnet_lite.pooled_features(network, image)})
"""


def relu6(values: Array) -> Array:
    return np.clip(values, 0, 6)


def plain_block(image: Array, weights: dict[str, Any], index: int, stride: int) -> Array:
    """Return one inverted residual block, computed in plain numpy."""
    name, inner = f"_blocks.{index}", image
    if index:
        inner = relu6(normalise(convolve(inner, weights[f"{name}._expand_conv.weight"], 1), weights, f"{name}._bn0"))
    inner = convolve(inner, weights[f"{name}._depthwise_conv.weight"], stride)
    inner = relu6(normalise(inner, weights, f"{name}._bn1"))
    inner = normalise(convolve(inner, weights[f"{name}._project_conv.weight"], 1), weights, f"{name}._bn2")
    return image + inner if inner.shape == image.shape else inner


def plain_features(image: Array, weights: dict[str, Any]) -> Array:
    """Return EfficientNet-Lite0's pooled features of one image, computed in plain numpy."""
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
    image = relu6(normalise(convolve(image, weights["_conv_stem.weight"], 2), weights, "_bn0"))
    for index, stride in enumerate(strides):
        image = plain_block(image, weights, index, stride)
    image = relu6(normalise(convolve(image, weights["_conv_head.weight"], 1), weights, "_bn1"))
    return np.asarray(image.mean((0, 1)))


class SlowNetworkTest(unittest.TestCase):
    def test_tensorflow_graph_computes_what_plain_numpy_computes(self) -> None:
        import openvino

        weights = efficientnet_lite.read_weights(efficientnet_lite.installed_weights(LITE0))
        image = np.random.default_rng(3).uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "1"
            command = [sys.executable, "-c", BUILD, str(PROJECT), str(target), str(SIZE)]
            subprocess.run(command, check=True, capture_output=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
            settings = {"INFERENCE_PRECISION_HINT": "f32"}
            compiled = openvino.Core().compile_model(str(target), "CPU", settings)
            found = np.array(compiled({"image": image[None]})["features"][0])
        expected = plain_features(image.astype(np.float64), weights)
        self.assertGreater(expected.max(), 0.5)
        np.testing.assert_allclose(found, expected, atol=1e-4)


if __name__ == "__main__":
    unittest.main()
