"""Predictions of a running preprocess service, with the labels that it tells itself."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tools.classify import KEY_VARIABLE, Client, ServiceAway
from tools.evaluation.predictors.predictor import Prediction, PredictorError, RefusedPhoto

# With these codes the next photo would fail too.
_FATAL = frozenset({"model_error", "not_found", "method_not_allowed", "invalid_request"})


class ServicePredictor:
    """See Predictor. It calls the service at `url`, with the API key of the environment if there is one.

    Raises PredictorError: no service answers, or it serves another model than `model`.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._client = Client(self._url, "en", os.environ.get(KEY_VARIABLE, ""))
        try:
            found = self._client.model()
            self._model = found["name"], found["version"]
            self.labels: tuple[str, ...] = tuple(found["labels"])
            threshold = found["domain_threshold"]
        except ServiceAway as exc:
            raise PredictorError(str(exc)) from exc
        except (KeyError, TypeError) as exc:
            raise PredictorError(f"{self._url}: GET /model is not that of this service") from exc
        if model is not None and model != self._model[0]:
            raise PredictorError(
                f"the service at {self._url} serves {self._model[0]}, not {model}: start it with `python run.py serve "
                f"--model {model}`, or leave out --model"
            )
        self.threshold: float | None = None if threshold is None else float(threshold)
        self._client.top_k = len(self.labels)

    @property
    def name(self) -> str:
        return f"{self._model[0]}, version {self._model[1]}, at {self._url}"

    def __call__(self, photo: Path) -> Prediction:
        try:
            answer = self._client(photo)
        except ServiceAway as exc:
            raise PredictorError(str(exc)) from exc
        body = answer.body
        if not answer.good:
            if body.get("code") in _FATAL:
                raise PredictorError(f"{self._url}: {body['msg']}")
            raise RefusedPhoto(str(body["msg"]))
        try:
            return self._read(body)
        except (KeyError, TypeError, ValueError) as exc:
            raise PredictorError(f"{self._url}: no probabilities of the model's labels in {str(body)[:300]}") from exc

    def _read(self, body: dict[str, Any]) -> Prediction:
        model = body["model"]["name"], body["model"]["version"]
        if model != self._model:
            raise PredictorError(f"the service changed from version {self._model[1]} to {model[1]}: start again")
        probabilities = np.array([body["probabilities"][label] for label in self.labels], np.float32)
        return Prediction(probabilities, body.get("domain_score"), body.get("looks", 1))
