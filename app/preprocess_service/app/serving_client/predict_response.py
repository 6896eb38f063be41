"""What the model said: its answer to a batch of pictures, read and checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess_service.app.errors import ModelError
from preprocess_service.app.serving_client.signature import Signature, model_error
from serving_common.tensorflow_protos import predict_pb2, types_pb2


@dataclass(frozen=True)
class Prediction:
    """What the model said of one picture.

    ``probabilities`` are in the order of the labels, each in 0..1. ``domain_score``, 0..1, tells how much the picture
    is one of what the model knows; None where the model has no such output.
    """

    probabilities: dict[str, float]
    model_version: int
    domain_score: float | None = None

    @property
    def label(self) -> str:
        return max(self.probabilities, key=self.probabilities.__getitem__)


def read_predictions(
    response: predict_pb2.PredictResponse, signature: Signature, labels: Sequence[str], count: int
) -> list[Prediction | ModelError]:
    """A prediction for each of ``count`` pictures, in their order, or a ModelError where the numbers are no answer.

    Raises:
        ModelError: there are not as many numbers as ``count`` pictures and ``labels`` have.
    """
    probabilities = _read_floats(response, signature.output_name, (count, len(labels)))
    scores: Sequence[float | None] = [None] * count
    if signature.domain_output_name:
        scores = _read_floats(response, signature.domain_output_name, (count,))
    version = int(response.model_spec.version.value)
    return [_prediction(labels, *one, version) for one in zip(probabilities, scores, strict=True)]


def _prediction(
    labels: Sequence[str], values: list[float], domain_score: float | None, version: int
) -> Prediction | ModelError:
    if not all(0 <= value <= 1 for value in values) or not math.isclose(sum(values), 1, abs_tol=1e-3):
        return model_error("the answer is no distribution of probabilities: %s", values)
    if domain_score is not None and not 0 <= domain_score <= 1:
        return model_error("the domain score is not in 0..1: %s", domain_score)
    return Prediction(dict(zip(labels, values, strict=True)), version, domain_score)


def _read_floats(response: predict_pb2.PredictResponse, name: str, shape: tuple[int, ...]) -> list[Any]:
    """The numbers of one output, nested as ``shape`` says, whatever shape the model gives them."""
    output = response.outputs[name]
    if len(output.tensor_content) % 4:
        raise model_error("%s has %d bytes, no whole number of float32", name, len(output.tensor_content))
    # TensorFlow Serving answers in float_val, or in tensor_content where it was told to.
    values = (
        np.frombuffer(output.tensor_content, "<f4")
        if output.tensor_content
        else np.array(list(output.float_val), "<f4")
    )
    if output.dtype != types_pb2.DT_FLOAT or values.size != math.prod(shape):
        raise model_error("%s has %d values, not %d", name, values.size, math.prod(shape))
    nested: list[Any] = values.reshape(shape).tolist()
    return nested
