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


def find_box(attention: NDArray[np.float32], settings: SecondLook) -> Box:
    """Return the square around the places that stand out, within the first look.

    Args:
        attention: ``[height, width]``, 0 and more.

    Returns:
        Left, top, right and bottom, as shares (0 to 1) of the width and height of the first look. All sides are equally
        long, so that the photo keeps its aspect ratio, and at least ``settings.min_side``.
    """
    rows, columns = np.nonzero(attention >= settings.attention_threshold * attention.max())
    height, width = attention.shape
    left, right = columns.min() / width, (columns.max() + 1) / width
    top, bottom = rows.min() / height, (rows.max() + 1) / height
    side = float(max(right - left, bottom - top, settings.min_side))
    left, top = (
        min(max(0.0, float(middle) - side / 2), 1 - side) for middle in ((left + right) / 2, (top + bottom) / 2)
    )
    return left, top, left + side, top + side


def combine(first: Prediction, second: Prediction, settings: SecondLook) -> Prediction:
    """Return the prediction of both looks: the weighted mean of their log probabilities, through a softmax.

    All else is the first look's, because it shows the whole photo.
    """
    logs = [np.log(np.maximum(list(look.probabilities.values()), _LEAST_PROBABILITY)) for look in (first, second)]
    logits = ((1 - settings.weight) * logs[0] + settings.weight * logs[1]) / settings.temperature
    exponentials = np.exp(logits - logits.max())
    probabilities = (exponentials / exponentials.sum()).tolist()
    return replace(first, probabilities=dict(zip(first.probabilities, probabilities, strict=True)), looks=2)
