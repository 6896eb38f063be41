"""Tests the attention with TensorFlow: its formula, and that it can be added to an older version."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

from tools.training import attention
from tools.training.cats_and_dogs import animals
from unit_test.model_service.fixtures import Array
from unit_test.tools.export_test import PROJECT, answers

SIZE = 24
OUTPUTS = 155
# Writes a small network without an attention, with that of `train.py`, and with one where all classes are known. It is
# a program, because the tests never load TensorFlow.
BUILD = f"""
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tools.training import attention, export
from tools.training.cats_and_dogs import animals
import numpy as np
import tensorflow as tf
folder = Path(sys.argv[2])
numbers = np.load(folder / "numbers.npz")
classifier = animals.Classifier(numbers["kernel"], numbers["bias"])
def outputs(image, known):
    places = tf.nn.relu6(tf.nn.conv2d(image, tf.constant(numbers["filters"]), 8, "SAME"))
    pooled = tf.reduce_mean(places, axis=[1, 2])
    imagenet = animals.tensors(classifier)
    odds, domain = animals.graph(pooled, *imagenet, classifier.masks)
    found = {{"probabilities": tf.nn.softmax(tf.concat([odds, -odds], 1)), "domain_score": domain}}
    if known:
        even = attention.constants(({SIZE}, {SIZE}), places)
        found["attention"] = attention.graph(places, pooled, *imagenet, known, even)
    return found
for name, known in (("old", 0), ("M", animals.KNOWN), ("all", {OUTPUTS})):
    scaling = export.Scaling(0.0078125, -0.9921875)
    export.write_saved_model(
        folder / name / "1", ({SIZE}, {SIZE}), lambda image: outputs(image, known), warm=True, scaling=scaling
    )
attention.main([str(folder / "old" / "1"), str(folder / "new" / "1")])
assert attention.main([str(folder / "old" / "1"), str(folder / "new" / "1")]) == 2
"""


def relative(maps: Array) -> Array:
    """Divide each map by its maximum: the scale of the attention is free."""
    assert (np.ptp(maps, axis=(1, 2)) > 0.1).all(), maps
    return np.asarray(maps / maps.max((1, 2), keepdims=True))


class AttentionTest(unittest.TestCase):
    folder: Path
    pixels: Array
    numbers: dict[str, Array]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        random = np.random.default_rng(1)
        cls.pixels = random.integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
        shapes = {"filters": (8, 8, 3, 20), "kernel": (20, OUTPUTS), "bias": (OUTPUTS,)}
        cls.numbers = {
            name: random.normal(size=shape).astype(np.float16).astype(np.float32) for name, shape in shapes.items()
        }
        np.savez(cls.folder / "numbers.npz", **cls.numbers)
        command = [sys.executable, "-c", BUILD, str(PROJECT / "tools"), str(cls.folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
        assert done.returncode == 0, done.stderr

    def expected(self, known: int) -> Array:
        """Compute the attention with numpy, place by place: [3, 3, 3], with a maximum of 1 for each photo."""
        image = self.pixels * np.float32(0.0078125) + np.float32(-0.9921875)
        parts = image.reshape(3, 3, 8, 3, 8, 3).transpose(0, 1, 3, 2, 4, 5)
        places = np.clip(np.einsum("nijyxc,yxcf->nijf", parts, self.numbers["filters"]), 0, 6)
        logits = places.mean((1, 2)) @ self.numbers["kernel"] + self.numbers["bias"]
        powers = np.exp(logits - logits.max(1, keepdims=True))
        kernel = self.numbers["kernel"].T
        others = kernel[known:] if known < OUTPUTS else kernel
        weights = powers[:, :known] @ kernel[:known] / powers[:, :known].sum(1, keepdims=True) - others.mean(0)
        found = np.maximum(np.einsum("nijf,nf->nij", places, weights), 0)
        even = attention.evenly(SIZE, 3)
        return relative(np.einsum("ij,njk,lk->nil", even, found, even))

    def test_it_has_the_weights_of_the_classes_that_the_photo_resembles(self) -> None:
        for name, known in (("M", animals.KNOWN), ("all", OUTPUTS)):
            with self.subTest(name):
                found = answers(self.folder / name / "1", "pixels", self.pixels)["attention"]
                np.testing.assert_allclose(relative(found), self.expected(known), rtol=1e-3, atol=1e-3)

    def test_it_can_be_added_to_an_older_version_which_changes_nothing_else(self) -> None:
        old, new = (answers(self.folder / name / "1", "pixels", self.pixels) for name in ("old", "new"))
        found = relative(new.pop("attention"))
        np.testing.assert_allclose(found, self.expected(animals.KNOWN), rtol=1e-3, atol=1e-3)
        self.assertEqual(new.keys(), old.keys())
        for name, values in old.items():
            np.testing.assert_array_equal(new[name], values)
        image = self.pixels * np.float32(0.0078125) + np.float32(-0.9921875)
        self.assertIn("attention", answers(self.folder / "new" / "1", "serving_default", image))
        self.assertTrue((self.folder / "new" / "1" / "assets.extra" / "tf_serving_warmup_requests").is_file())


if __name__ == "__main__":
    unittest.main()
