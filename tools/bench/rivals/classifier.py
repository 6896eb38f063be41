"""Shared by the other servers: a simple preprocessing, and the model in TensorFlow or OpenVINO.

Each server runs in an environment of its own, so nothing of this project is imported here. The environment variable
`RIVAL` holds the settings as JSON: `model` (a version folder), `labels`, the recipe `picture`, `runtime` (`tensorflow`
or `openvino`), `threads` of one call, and `streams`, the number of parallel calls.
"""

import base64
import io
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Pictures in, float32 [batch, height, width, 3]; probabilities out, [batch, classes]. Several threads may call it.
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def settings() -> dict[str, Any]:
    """Return the settings of the bench."""
    found: dict[str, Any] = json.loads(os.environ["RIVAL"])
    return found


class Preparation:
    """Converts base64 to float32 `[height, width, 3]`."""

    def __init__(self, recipe: dict[str, Any], draft: bool = True) -> None:
        self._size = (recipe["width"], recipe["height"])
        self._method = Image.Resampling[recipe["resampling"].upper()]
        self._bleed = (1 - recipe["crop"]) / 2
        self._scale, self._offset = np.float32(recipe["scale"]), np.float32(recipe["offset"])
        self._draft = draft

    def __call__(self, image_b64: str) -> NDArray[np.float32]:
        """Return the picture; raises ValueError or OSError if it is not an image."""
        image: Image.Image = Image.open(io.BytesIO(base64.b64decode(image_b64)))
        if self._draft:
            image.draft("RGB", (2 * self._size[0], 2 * self._size[1]))
        fitted = ImageOps.fit(image.convert("RGB"), self._size, self._method, bleed=self._bleed)
        return np.asarray(fitted, np.float32) * self._scale + self._offset


def answer(probabilities: NDArray[np.float32], labels: list[str]) -> dict[str, Any]:
    """Return the answer for the client, with the tutorial's field names."""
    best = int(probabilities.argmax())
    return {"status": "Success", "pet_type": labels[best], "model_conf": round(100 * float(probabilities[best]), 2)}


def load(asked: dict[str, Any]) -> Predict:
    """Return the model in the requested runtime, after one warm-up call."""
    predict = {"tensorflow": _load_tensorflow, "openvino": _load_openvino}[asked["runtime"]](asked)
    recipe = asked["picture"]
    predict(np.zeros((1, recipe["height"], recipe["width"], 3), np.float32))
    return predict


def _load_tensorflow(asked: dict[str, Any]) -> Predict:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(asked["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(asked["streams"])
    signature = tf.saved_model.load(asked["model"]).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (output,) = [alias for alias, spec in signature.structured_outputs.items() if len(spec.shape) == 2]

    def predict(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = signature(**{name: tf.constant(pictures)})[output].numpy()
        return probabilities

    return predict


def _load_openvino(asked: dict[str, Any]) -> Predict:
    import openvino

    # In one thread: two threads that make the first array at the same time deadlock in OpenVINO's bindings.
    openvino.Tensor(np.zeros(1, np.float32))
    wanted = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": asked["threads"] * asked["streams"],
        "NUM_STREAMS": asked["streams"],
        # Otherwise several processes would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(asked["model"], "CPU", wanted)
    (output,) = [number for number, port in enumerate(compiled.outputs) if len(port.get_partial_shape()) == 2]
    mine = threading.local()

    def predict(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        if not hasattr(mine, "request"):
            mine.request = compiled.create_infer_request()
        mine.request.set_input_tensor(0, openvino.Tensor(np.ascontiguousarray(pictures), shared_memory=True))
        mine.request.infer()
        probabilities: NDArray[np.float32] = mine.request.get_output_tensor(output).data.copy()
        return probabilities

    return predict
