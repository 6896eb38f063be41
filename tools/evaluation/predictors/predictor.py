"""What every way to a prediction has in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class PredictorError(Exception):
    """No prediction is possible: there is no service or model, or it does not fit. The message says what to do."""


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
    """A function that several threads may call.

    `labels` are in the order of the probabilities. A photo with a lower domain score than `threshold` is told to be
    none of them; None if the model has no domain score.
    """

    @property
    def name(self) -> str:
        """The model's name and version, for people."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model."""

    @property
    def threshold(self) -> float | None:
        """The threshold of the domain score."""

    def __call__(self, photo: Path) -> Prediction:
        """Return the prediction for a photo's file; raises RefusedPhoto and PredictorError."""
