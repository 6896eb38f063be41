"""The way of most tutorials: FastAPI, all of TensorFlow imported for a few messages, a blocking call in `async def`.

    python tutorial.py PORT MODEL_SERVER_PORT

It follows the description of the course from which this project started. The handler checks, decodes, scales and
normalises the photo and sends it to TensorFlow Serving over gRPC.
"""

import base64
import binascii
import io
import sys
from enum import StrEnum
from typing import Any

import classifier
import grpc
import numpy as np
import tensorflow as tf
import uvicorn
from fastapi import FastAPI
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MESSAGE_BYTES = 4096 * 4096 * 3
TIMEOUT_S = 10.0


class Status(StrEnum):
    """The status of an answer."""

    SUCCESS = "Success"
    FAILED = "Failed"


class Photo(BaseModel):
    """The request: a photo in base64."""

    image_b64: str


class ModelRunner:
    """Calls the model server and blocks until it answers."""

    def __init__(self, asked: dict[str, Any], port: str) -> None:
        self._labels = asked["labels"]
        self._output = asked["output"]
        self._prepare = classifier.Preparation(asked["picture"], draft=False)
        options = [("grpc.max_send_message_length", MESSAGE_BYTES), ("grpc.max_receive_message_length", MESSAGE_BYTES)]
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = asked["name"]
        self._request.model_spec.signature_name = "serving_default"
        self._input = asked["input"]

    def predict(self, image_b64: str) -> dict[str, Any]:
        """Return label and confidence of one photo."""
        pictures = self._prepare(image_b64)[np.newaxis]
        self._request.inputs[self._input].CopyFrom(tf.make_tensor_proto(pictures, shape=pictures.shape))
        result = self._stub.Predict(self._request, TIMEOUT_S)
        return classifier.answer(np.array(result.outputs[self._output].float_val, np.float32), self._labels)


def is_image(image_b64: str) -> bool:
    """Return whether it is base64 of an image that Pillow can open."""
    try:
        Image.open(io.BytesIO(base64.b64decode(image_b64))).verify()
    except (binascii.Error, UnidentifiedImageError):
        return False
    return True


def create_app(runner: ModelRunner) -> FastAPI:
    """Return the app with the route of the course."""
    app = FastAPI()

    @app.post("/cat-dog_classification")
    async def classify(photo: Photo) -> dict[str, Any]:
        if not is_image(photo.image_b64):
            return {"status": Status.FAILED, "msg": "Image base64 invalid"}
        return runner.predict(photo.image_b64)

    return app


if __name__ == "__main__":
    application = create_app(ModelRunner(classifier.settings(), sys.argv[2]))
    uvicorn.run(application, port=int(sys.argv[1]), log_level="warning", access_log=False)
