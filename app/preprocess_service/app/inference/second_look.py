"""Where a second look is taken, and how both looks become one answer. The recipe has the numbers (``SecondLook``).

Most mistakes are animals that are small or off the centre. The model's output ``attention`` tells where the photo shows
what the model knows. That part is cut from the photo itself, so that it has more pixels than in the first look.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app.recipe import Box, SecondLook
from preprocess_service.app.serving_client.predict_response import Prediction

# The logarithm of 0 is not finite.
_LEAST_PROBABILITY = 1e-30


def is_wanted(first: Prediction, settings: SecondLook) -> bool:
    """Return whether the model is not sure of the first look, and the photo shows something that it knows."""
    in_domain = first.domain_score is None or first.domain_score >= settings.min_domain_score
    return first.confidence < settings.max_confidence and in_domain


def find_box(attention: NDArray[np.float32], settings: SecondLook) -> Box:
    """Return the box around the places that stand out, within the first look.

    Args:
        attention: ``[height, width]``, 0 and more.

    Returns:
        Left, top, right and bottom, as shares (0 to 1) of the width and height of the first look. Each side is at least
        ``settings.min_side``.
    """
    rows, columns = np.nonzero(attention >= settings.attention_threshold * attention.max())
    height, width = attention.shape
    left, right = _edges(columns, width, settings.min_side)
    top, bottom = _edges(rows, height, settings.min_side)
    return left, top, right, bottom


def _edges(places: NDArray[np.intp], count: int, min_side: float) -> tuple[float, float]:
    """Return the first and the last edge of ``places`` along a side of ``count`` places, as shares of the side."""
    first, last = float(places.min()) / count, (float(places.max()) + 1) / count
    side = max(last - first, min_side)
    start = min(max(0.0, (first + last - side) / 2), 1 - side)
    return start, start + side


def combine(first: Prediction, second: Prediction, settings: SecondLook) -> Prediction:
    """Return the prediction of both looks: the weighted mean of their log probabilities, through a softmax.

    All else is the first look's, because it shows the whole photo.
    """
    logs = [np.log(np.maximum(list(look.probabilities.values()), _LEAST_PROBABILITY)) for look in (first, second)]
    logits = ((1 - settings.weight) * logs[0] + settings.weight * logs[1]) / settings.temperature
    exponentials = np.exp(logits - logits.max())
    probabilities = (exponentials / exponentials.sum()).tolist()
    return replace(first, probabilities=dict(zip(first.probabilities, probabilities, strict=True)), looks=2)
