"""Talks to the model server: a photo goes in, a label and its probability come out."""

import os
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
import yaml
from PIL import Image, ImageOps
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from utils import open_image

CONFIG = Path(os.environ.get("COURSE_CONFIG", Path(__file__).with_name("config.yaml")))


class ModelRunner:
    """Prepares photos, asks the model server over gRPC and reads its answers."""

    def __init__(self) -> None:
        self.config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
        self.stub = self.create_stub()

    def create_stub(self) -> prediction_service_pb2_grpc.PredictionServiceStub:
        """Return the object whose methods are the model server's functions."""
        channel = grpc.insecure_channel(f"{self.config['model_host']}:{self.config['model_port']}")
        return prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def preprocess(self, image_b64: str) -> np.ndarray:
        """Return the photo as the model wants it: float32 `[1, size, size, 3]`, each number from -1 to 1."""
        side, border = self.config["size"], (1 - self.config["crop"]) / 2
        method = Image.Resampling[self.config["resampling"]]
        image = ImageOps.fit(open_image(image_b64).convert("RGB"), (side, side), method, bleed=border)
        scale, offset = np.float32(self.config["scale"]), np.float32(self.config["offset"])
        return (np.asarray(image, np.float32) * scale + offset)[np.newaxis]

    def create_request(self, pixels: np.ndarray) -> predict_pb2.PredictRequest:
        """Return the message that asks for a prediction."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.config["experiment_id"]
        request.model_spec.signature_name = "serving_default"
        request.inputs[self.config["input_layer"]].CopyFrom(tf.make_tensor_proto(pixels))
        return request

    def predict(self, image_b64: str) -> tuple[str, float]:
        """Return the label and its probability in percent."""
        request = self.create_request(self.preprocess(image_b64))
        response = self.stub.Predict(request, timeout=self.config["timeout_seconds"])
        probabilities = tf.make_ndarray(response.outputs[self.config["output_layer"]])[0]
        best = int(probabilities.argmax())
        return self.config["labels"][best], round(100 * float(probabilities[best]), 2)
