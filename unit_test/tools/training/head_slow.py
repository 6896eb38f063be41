"""Tests that the written graph of head and domain score computes the same as numpy, in TensorFlow and in OpenVINO."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

from tools.training.head import domain, softmax_head
from unit_test.tools.export_test import PROJECT, answers
from unit_test.tools.training.head_test import FEATURES, clusters, imagenet

# Writes the graph, and what TensorFlow computes. It is a program, because the tests never load TensorFlow.
BUILD = """
import pickle, sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from tools.training import export
from tools.training.head import softmax_head
folder = Path(sys.argv[1])
head, score, features = pickle.loads((folder / "fitted").read_bytes())
def outputs(image):
    pooled = tf.reduce_mean(image, [1, 2])
    pooled = tf.concat([pooled] * (head.kernel.shape[0] // 3 + 1), 1)[:, : head.kernel.shape[0]] * tf.constant(features)
    logits = softmax_head.graph(pooled, head)
    return {"probabilities": tf.nn.softmax(logits), "domain_score": score.graph(pooled, logits)}
export.write_saved_model(folder / "M" / "1", (2, 2), outputs)
ones = tf.ones([len(features), 2, 2, 3])
found = tf.saved_model.load(str(folder / "M" / "1")).signatures["serving_default"](image=ones)
np.savez(folder / "answers.npz", **{name: answer.numpy() for name, answer in found.items()})
"""


class GraphTest(unittest.TestCase):
    def test_both_runtimes_compute_what_was_fitted(self) -> None:
        import pickle

        training, validation = clusters(4, 30), clusters(8, 10, seed=1)
        head = softmax_head.fit_head(training, 4)
        score = domain.fit_domain(training, clusters(4, 15, seed=2), head, imagenet())
        features = validation.served()
        logits = head.logits(features)
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "fitted").write_bytes(pickle.dumps((head, score, features)))
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": f"{PROJECT / 'app'}:{PROJECT}"}
            command = [sys.executable, "-c", BUILD, str(folder)]
            subprocess.run(command, check=True, capture_output=True, env=environment)
            ones = np.ones((len(features), 2, 2, 3), np.float32)
            for found in (dict(np.load(folder / "answers.npz")), answers(folder / "M" / "1", "serving_default", ones)):
                np.testing.assert_allclose(found["probabilities"], probabilities, atol=1e-5)
                np.testing.assert_allclose(found["domain_score"], score.scores(features), atol=1e-4)
        # Both kinds of photos are there.
        self.assertLess(score.scores(features).min(), score.threshold)
        self.assertGreater(score.scores(features).max(), score.threshold)
        self.assertEqual(features.shape[1], FEATURES)


if __name__ == "__main__":
    unittest.main()
