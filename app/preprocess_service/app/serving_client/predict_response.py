"""Reads and checks the model's answer to a batch of pictures."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app.errors import ModelError
from preprocess_service.app.recipe import Box, Recipe
from preprocess_service.app.serving_client.signature import MOST_PLACES, Signature, check_count, model_error
from serving_common.tensorflow_protos import predict_pb2, types_pb2

logger = logging.getLogger(__name__)

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
        attention: float32 ``[height, width]``, 0 and more: where the first look shows what the model knows. Row 0 is
            the top; the scale has no meaning. None if the model has no such output.
        looks: 1 or 2: how often the photo was looked at.
        box: the part of the first look that the second look shows, in shares of its width and height; None without one.
        size: width and height of the upright photo, perhaps at a reduced scale: only their ratio counts.
    """

    probabilities: dict[str, float]
    model_version: int
    domain_score: float | None = None
    domain_threshold: float = 0.0
    attention: NDArray[np.float32] | None = field(default=None, compare=False)
    looks: int = 1
    box: Box | None = None
    size: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        return self.probabilities[self.label]


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
    attentions = _attentions(response, signature.attention_output_name, count)
    version = int(response.model_spec.version.value)
    threshold = recipe.preprocessor_config.domain_threshold
    predictions: list[Prediction | ModelError] = []
    for is_valid, row, score, attention in zip(in_range.tolist(), probabilities, scores, attentions, strict=True):
        if not is_valid:
            low, high, total = float(row.min()), float(row.max()), float(row.sum())
            predictions.append(
                model_error("model_distribution", low=f"{low:.3g}", high=f"{high:.3g}", total=f"{total:.3g}")
            )
        elif score is not None and not 0 <= score <= 1:
            predictions.append(model_error("model_domain_score", score=f"{score:.3g}"))
        else:
            named = dict(zip(labels, row.tolist(), strict=True))
            predictions.append(Prediction(named, version, score, threshold, attention))
    return predictions


def _attentions(
    response: predict_pb2.PredictResponse, name: str | None, count: int
) -> Sequence[NDArray[np.float32] | None]:
    """Return the attention of each picture: None where it is invalid, because an answer does not depend on it."""
    if name is None:
        return [None] * count
    output = response.outputs[name]
    sizes = [dimension.size for dimension in output.tensor_shape.dim]
    if output.dtype != types_pb2.DT_FLOAT:
        return _without_attention(count, "it is missing or is not float32")
    if len(sizes) != 3 or sizes[0] != count or not 0 < sizes[1] * sizes[2] <= MOST_PLACES:
        return _without_attention(count, f"its shape is {sizes}")
    values = _read_floats(response, name)
    if values.size != count * sizes[1] * sizes[2]:
        return _without_attention(count, f"it has {values.size} values")
    maps = values.reshape(sizes)
    # NaN fails every comparison.
    if not ((maps >= 0) & (maps < np.inf)).all():
        return _without_attention(count, "it has values that are negative or not finite")
    return list(maps)


@functools.lru_cache(maxsize=8)
def _without_attention(count: int, reason: str) -> Sequence[None]:
    # The cache keeps this from being a log line for each photo.
    logger.warning("the model's output attention is not used: %s", reason)
    return (None,) * count


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
