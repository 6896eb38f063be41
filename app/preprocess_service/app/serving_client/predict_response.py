"""Reads and checks the model's answer to a batch of pictures."""

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
    """The model's answer for one picture.

    Attributes:
        probabilities: by label, in the order of the labels, each 0 to 1.
        model_version: the version that answered.
        domain_score: 0 to 1, how certain the model is that the picture shows something that it knows; None if the
            model has no such output.
        domain_threshold: with a lower score, the picture is probably of nothing that the model knows.
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
    """Return a prediction for each of ``count`` pictures, in their order, or a ModelError if its values are invalid.

    Raises:
        ModelError: the number of values is not ``count`` times the number of labels.
    """
    labels = recipe.labels
    values = _read_floats(response, signature.output_name)
    if len(values) % count == 0:
        check_count(len(values) // count, len(labels))
    probabilities = _shaped(values, signature.output_name, (count, len(labels)))
    sums = probabilities.sum(axis=1)
    # NaN fails every comparison, so it is out of range.
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
    """Return the values of one output as a flat array."""
    output = response.outputs[name]
    if output.dtype != types_pb2.DT_FLOAT or len(output.tensor_content) % 4:
        raise model_error("model_output_type", name=name)
    # TensorFlow Serving answers in float_val, or in tensor_content if it is configured so.
    if output.tensor_content:
        return np.frombuffer(output.tensor_content, "<f4")
    return np.array(list(output.float_val), "<f4")


def _shaped(values: NDArray[Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    wanted = shape[0] * (shape[1] if len(shape) > 1 else 1)
    if values.size != wanted:
        raise model_error("model_output_size", name=name, values=values.size, wanted=wanted)
    return values.reshape(shape)
