"""Says where the model looked: for `explain` in a request."""

import base64

import numpy as np

from preprocess_service.app.api.schemas import LONGEST_SIDE, Explanation, Part
from preprocess_service.app.errors import NoExplanation
from preprocess_service.app.imaging import attention_map
from preprocess_service.app.imaging.resize import shown
from preprocess_service.app.recipe import Box
from preprocess_service.app.serving_client.predict_response import Prediction

_DIGITS = 3


def explain(prediction: Prediction) -> Explanation:
    """Return where the model looked.

    Raises:
        NoExplanation: the model has no output ``attention``, or its values were invalid.
    """
    if prediction.attention is None or prediction.geometry is None or prediction.size is None:
        raise NoExplanation
    shares = attention_map.relative(prediction.attention, LONGEST_SIDE)
    region = shown(prediction.size, prediction.geometry)
    return Explanation(
        attention=np.round(shares.astype(float), _DIGITS).tolist(),
        image=f"data:image/png;base64,{base64.b64encode(attention_map.draw(shares)).decode()}",
        aspect_ratio=round(prediction.size[0] / prediction.size[1], 6),
        region=_part(region),
        box=None if prediction.box is None else _part(_within(region, prediction.box)),
    )


def _within(region: Box, box: Box) -> Box:
    """Return a box in shares of the photo, from shares of the region."""
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    return left + box[0] * width, top + box[1] * height, left + box[2] * width, top + box[3] * height


def _part(box: Box) -> Part:
    left, top, right, bottom = (round(edge, 6) for edge in box)
    return Part(left=left, top=top, right=right, bottom=bottom)
