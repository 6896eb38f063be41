"""Measures on validation photos whether a second look helps, and returns the recipe's settings if it does.

The second look is the service's own: where the attention is high, cut from the decoded photo. The settings are
CAT-DOG's. Others are not tried: a few unsure photos can't choose between them, only tell whether these help.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.evaluation.photos import Photo
from tools.service import Box, SecondLook
from tools.training.head.softmax_head import fit_temperature
from tools.training.run import Array, Numbers

SETTINGS = SecondLook(max_confidence=0.9)
# With fewer photos that were looked at twice there is no proof.
FEWEST = 8
# From this number on, the temperature of both looks together is fitted, too.
FEWEST_TO_CALIBRATE = 50
# More unsure photos are not looked at: 2,000 take half a minute.
MOST = 2000
# The mean gain must be above so many of its standard errors.
STANDARD_ERRORS = 2.0
LEAST_PROBABILITY = 1e-30

# Returns the log probabilities [classes] and the attention [height, width] of a photo, or of a part of it.
Look = Callable[[bytes, Box | None], tuple[Array, Array]]


@dataclass(frozen=True)
class Trial:
    """What a second look did on validation photos. `settings` is None if it is not proven to help.

    `photos` is the number of all photos, `looked` of those with two looks, `mended` and `spoiled` of those whose label
    became right or wrong. `gain` is the mean fall of the log loss on photos with two looks, `error` its standard error.
    """

    photos: int
    looked: int
    mended: int
    spoiled: int
    gain: float
    error: float
    settings: SecondLook | None

    def __str__(self) -> str:
        if self.looked < FEWEST:
            unsure = f"{self.looked} of {self.photos} photos {'is' if self.looked == 1 else 'are'} unsure"
            return f"{unsure}, fewer than {FEWEST}: a second look was not tried"
        moves = "falls" if self.gain >= 0 else "rises"
        helps = "helps" if self.settings else "is not proven to help, so none is taken"
        return (
            f"a second look at {self.looked} of {self.photos} photos mends {self.mended} and spoils {self.spoiled}; "
            f"the log loss {moves} by {abs(self.gain):.3f}, standard error {self.error:.3f}: it {helps}"
        )


def try_second_look(photos: Sequence[Photo], probabilities: Array, look: Look, seed: int = 0) -> Trial:
    """Return the result on `photos`, whose first look gave `probabilities` [photos, classes]."""
    from preprocess_service.app.inference.second_look import find_box

    unsure = np.flatnonzero(probabilities.max(1) < SETTINGS.max_confidence)
    if len(unsure) > MOST:
        unsure = np.sort(np.random.default_rng(seed).permutation(unsure)[:MOST])
    if len(unsure) < FEWEST:
        return Trial(len(photos), len(unsure), 0, 0, 0.0, 0.0, None)
    labels = np.array([photos[number].label for number in unsure.tolist()], np.int64)
    first, both = [], []
    for number in unsure.tolist():
        data = photos[number].path.read_bytes()
        logs, attention = look(data, None)
        again, _ = look(data, find_box(attention, SETTINGS))
        first.append(logs)
        both.append((1 - SETTINGS.weight) * logs + SETTINGS.weight * again)
    return judge(len(photos), np.stack(first), np.stack(both), labels)


def judge(photos: int, first: Array, both: Array, labels: Numbers) -> Trial:
    """Return the result from log probabilities [photos looked at twice, classes] of the first look and of both."""
    before, after = (logits.argmax(1) == labels for logits in (first, both))
    gains = _log_losses(first, labels) - _log_losses(both, labels)
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    mended, spoiled = int((after & ~before).sum()), int((before & ~after).sum())
    settings = None
    if gain > STANDARD_ERRORS * error and mended >= spoiled:
        temperature = fit_temperature(both, labels)[0] if len(labels) >= FEWEST_TO_CALIBRATE else 1.0
        settings = SETTINGS.model_copy(update={"temperature": round(temperature, 3)})
    return Trial(photos, len(labels), mended, spoiled, gain, error, settings)


def _log_losses(logits: Array, labels: Numbers) -> Array:
    highest = logits.max(1, keepdims=True)
    sums = highest[:, 0] + np.log(np.exp(logits - highest).sum(1))
    return np.asarray(sums - logits[np.arange(len(labels)), labels], np.float32)


def looker(model: Any) -> Look:
    """Return the function for a `tools.evaluation.predictors.version.VersionPredictor` of a model with an attention."""

    def look(data: bytes, box: Box | None) -> tuple[Array, Array]:
        found = model.look(data, box)
        probabilities = np.array([*found.probabilities.values()], np.float32)
        return np.log(np.maximum(probabilities, LEAST_PROBABILITY)), found.attention

    return look
