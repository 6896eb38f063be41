"""What the model said: its answer to a batch of pictures, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app.errors import ModelError
from preprocess_service.app.recipe import Recipe
from preprocess_service.app.serving_client.signature import Signature, check_count, model_error
from serving_common.tensorflow_protos import predict_pb2, types_pb2

# How far the sum of probabilities may be from 1.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Prediction:
    """What the model said of one picture.

    ``probabilities`` are in the order of the labels, each in 0..1. ``domain_score``, 0..1, tells how much the picture
    is one of what the model knows; None where the model has no such output. Below ``domain_threshold`` it is none.
    """

    probabilities: dict[str, float]
    model_version: int
    domain_score: float | None = None
    domain_threshold: float = 0.0

    @property
    def label(self) -> str:
        return max(self.probabilities, key=self.probabilities.__getitem__)


def read_predictions(
    response: predict_pb2.PredictResponse, signature: Signature, recipe: Recipe, count: int
) -> list[Prediction | ModelError]:
    """A prediction for each of ``count`` pictures, in their order, or a ModelError where the numbers are no answer.

    Raises:
        ModelError: there are not as many numbers as ``count`` pictures and the labels have.
    """
    labels = recipe.labels
    values = _read_floats(response, signature.output_name)
    if len(values) % count == 0:
        check_count(len(values) // count, len(labels))
    probabilities = _shaped(values, signature.output_name, (count, len(labels)))
    sums = probabilities.sum(axis=1)
    # Not a number is in no range.
    in_range = ((probabilities >= 0) & (probabilities <= 1)).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)
    scores: Sequence[float | None] = [None] * count
    if signature.domain_output_name:
        name = signature.domain_output_name
        scores = _shaped(_read_floats(response, name), name, (count,)).tolist()
    version = int(response.model_spec.version.value)
    threshold = recipe.preprocessor_config.domain_threshold
    predictions: list[Prediction | ModelError] = []
    for is_valid, row, score in zip(in_range.tolist(), probabilities, scores, strict=True):
        if not is_valid:
            low, high, total = float(row.min()), float(row.max()), float(row.sum())
            predictions.append(
                model_error("model_distribution", low=f"{low:.3g}", high=f"{high:.3g}", total=f"{total:.3g}")
            )
        elif score is not None and not 0 <= score <= 1:
            predictions.append(model_error("model_domain_score", score=f"{score:.3g}"))
        else:
            named = dict(zip(labels, row.tolist(), strict=True))
            predictions.append(Prediction(named, version, score, threshold))
    return predictions


def _read_floats(response: predict_pb2.PredictResponse, name: str) -> NDArray[Any]:
    """The numbers of one output, whatever shape the model gives them."""
    output = response.outputs[name]
    if output.dtype != types_pb2.DT_FLOAT or len(output.tensor_content) % 4:
        raise model_error("model_output_type", name=name)
    # TensorFlow Serving answers in float_val, or in tensor_content where it was told to.
    if output.tensor_content:
        return np.frombuffer(output.tensor_content, "<f4")
    return np.array(list(output.float_val), "<f4")


def _shaped(values: NDArray[Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    wanted = shape[0] * (shape[1] if len(shape) > 1 else 1)
    if values.size != wanted:
        raise model_error("model_output_size", name=name, values=values.size, wanted=wanted)
    return values.reshape(shape)
