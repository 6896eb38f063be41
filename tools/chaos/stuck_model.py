"""Writes a copy of the shipped model that computes without end for a black picture; for the fault suite.

    python -m tools.chaos.stuck_model FOLDER

For all other pictures the answer is the shipped model's.
"""

import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

SHIPPED = Path(__file__).resolve().parents[2] / "prev_trained_models" / "CAT-DOG"
# It computes for minutes on today's computers.
ENDLESS = 2_000_000_000
# The input is (pixel - 127) / 128; black is -0.99.
BLACK = -0.98


class Stuck(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    def __init__(self, folder: Path) -> None:
        self.model = tf.saved_model.load(str(folder))
        shape = self.model.signatures["serving_default"].structured_input_signature[1]["image"].shape
        spec = tf.TensorSpec(shape, tf.float32, name="image")
        self.serving_default = tf.function(self.answer, input_signature=[spec])

    def answer(self, image: Any) -> Any:
        # One black picture blocks the whole batch.
        brightest = tf.reduce_max(image, axis=(1, 2, 3))
        steps = tf.where(tf.reduce_any(brightest < BLACK), ENDLESS, 1)
        _, total = tf.while_loop(
            lambda number, _: number < steps, lambda number, total: (number + 1, tf.sin(total + 1.0)), (0, 0.0)
        )
        # The result depends on the loop, so that TensorFlow does not remove it, but the loop adds zero.
        outputs = self.model.signatures["serving_default"](image=image)
        return {name: output + 0.0 * total for name, output in outputs.items()}


if __name__ == "__main__":
    newest = max((folder for folder in SHIPPED.iterdir() if folder.name.isdecimal()), key=lambda one: int(one.name))
    module = Stuck(newest)
    tf.saved_model.save(module, sys.argv[1], {"serving_default": module.serving_default})
