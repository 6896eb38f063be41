"""Two ways to get predictions: from the running service, or directly from a SavedModel."""

import base64
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import requests
from numpy.typing import NDArray

# These two load TensorFlow's messages, and after that TensorFlow itself can't be loaded.
from preprocess_service.app.inference import second_look
from preprocess_service.app.serving_client import predict_response
from tools.inference import import_openvino
from tools.service import Box, Config, prepare
from tools.sessions import Sessions
from tools.training.export import ATTENTION_NAME, DOMAIN_NAME

Array = NDArray[np.float32]


class PredictorError(Exception):
    """No prediction is possible: there is no service or model, or the labels do not match."""


class RefusedPhoto(Exception):
    """One photo was rejected; the message is the service's or the decoder's."""


@dataclass(frozen=True)
class Prediction:
    """`probabilities` is float32 [classes]; `domain` is 0 to 1, high for known subjects, None if the model has none.

    `looks` is 1 or 2: how often the photo was looked at.
    """

    probabilities: Array
    domain: float | None = None
    looks: int = 1


class Predictor(Protocol):
    """A function that several threads may call."""

    def __call__(self, data: bytes) -> Prediction:
        """Return the prediction for the bytes of a photo; raises RefusedPhoto and PredictorError."""


class ServicePredictor:
    """Calls `POST /predict` of the preprocess service at `url`."""

    def __init__(self, url: str, labels: Sequence[str], timeout_seconds: float = 30.0) -> None:
        self._address = url.rstrip("/") + "/predict"
        self._labels = [label.upper() for label in labels]
        self._timeout_seconds = timeout_seconds
        self._sessions = Sessions()

    def __call__(self, data: bytes) -> Prediction:
        body = {"image_b64": base64.b64encode(data).decode("ascii")}
        try:
            response = self._sessions.mine().post(self._address, json=body, timeout=self._timeout_seconds)
            answer = response.json()
        except (requests.RequestException, ValueError) as exc:
            raise PredictorError(f"{self._address}: {exc}") from exc
        if 400 <= response.status_code < 500 and isinstance(answer, dict) and "msg" in answer:
            raise RefusedPhoto(answer["msg"])
        if response.status_code != 200:
            raise PredictorError(f"{self._address}: status {response.status_code}: {answer}")
        try:
            probabilities = np.array([answer["probabilities"][label] for label in self._labels], np.float32)
        except (KeyError, TypeError) as exc:
            raise PredictorError(f"{self._address}: no probabilities of {self._labels} in {answer}") from exc
        return Prediction(probabilities, answer.get("domain_score"), answer.get("looks", 1))


class ModelPredictor:
    """Runs the SavedModel in the folder `model` with OpenVINO. Photos are prepared as in the service.

    As in the service, a second look is taken where the recipe asks for it and the model has an attention.
    """

    def __init__(self, model: Path, config: Config, classes: int) -> None:
        openvino = import_openvino()
        try:
            network = openvino.Core().read_model(str(model))
            # float32, as in the model server. On some processors OpenVINO would choose bfloat16.
            settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
            self._compiled = openvino.Core().compile_model(network, "CPU", settings)
        except RuntimeError as exc:
            raise PredictorError(f"{model}: no SavedModel that OpenVINO reads ({str(exc).splitlines()[-1]})") from exc
        wanted = [-1, *config.size, 3]
        found = [int(side.get_length()) if side.is_static else -1 for side in network.inputs[0].partial_shape]
        if found != wanted:
            raise PredictorError(f"{model}: the input is {found}, but the recipe makes pictures of {wanted}")
        self._config = config
        self._classes = classes
        self._local = threading.local()

    def __call__(self, data: bytes) -> Prediction:
        settings = self._config.picture.second_look
        found = self._look(data)
        if settings and found.attention is not None and second_look.is_wanted(found, settings):
            box = second_look.find_box(found.attention, settings)
            found = second_look.combine(found, self._look(data, box), settings)
        return Prediction(np.array([*found.probabilities.values()], np.float32), found.domain_score, found.looks)

    def _look(self, data: bytes, box: Box | None = None) -> predict_response.Prediction:
        try:
            batch = prepare(data, self._config, box)[None]
        except Exception as exc:  # decoders raise different exceptions for broken files
            raise RefusedPhoto(str(exc)) from exc
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        results = self._local.request.infer([batch])
        outputs = {output.any_name: np.array(results[output][0], np.float32) for output in self._compiled.outputs}
        domain = float(outputs.pop(DOMAIN_NAME)) if DOMAIN_NAME in outputs else None
        attention = outputs.pop(ATTENTION_NAME, None)
        (probabilities,) = outputs.values()
        if probabilities.shape != (self._classes,):
            raise PredictorError(f"the model's output is {probabilities.shape}, not one probability per label")
        by_label = {str(number): float(share) for number, share in enumerate(probabilities)}
        return predict_response.Prediction(by_label, 0, domain, attention=attention)
