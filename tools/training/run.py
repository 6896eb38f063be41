"""What a training run knows: its photos with their features, its results, and what the model card tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.measures import Proportion, proportion
from tools.evaluation.photos import Photo

Array = NDArray[np.float32]
Numbers = NDArray[np.int64]


class TrainError(Exception):
    """Training can't continue; the message says why, and what to do."""


@dataclass(frozen=True)
class Part:
    """The readable photos of training or of validation, and the features that the backbone computes of them.

    `values` is float16 [photos, views, features]: view 0 is the photo as it is served, view 1 its mirror image. Large
    sets have no view 1. Convert parts of it to float32: 200,000 photos have 0.5 GB in float16. `groups` is int64
    [photos]: near-duplicates have the same number. A group is in one part only.
    """

    photos: list[Photo]
    values: NDArray[np.float16]
    groups: Numbers

    @property
    def classes(self) -> Numbers:
        """int64 [photos]: the number of each photo's class."""
        return np.array([photo.label for photo in self.photos], np.int64)

    def served(self) -> Array:
        """Float32 [photos, features] of the photos as they are served."""
        return self.values[:, 0].astype(np.float32)


@dataclass(frozen=True)
class Head:
    """A linear classifier of pooled features: softmax(features @ `kernel` + `bias`) are calibrated probabilities.

    `kernel` is float32 [features, classes], `bias` [classes]; both are already divided by `temperature`. `held_out` is
    float32 [training photos, classes]: calibrated logits of each photo as it is served, from a head that was fitted
    without the photo's group.
    """

    kernel: Array
    bias: Array
    penalty: float
    temperature: float
    held_out: Array

    def logits(self, features: Array) -> Array:
        """Float32 [..., features] -> [..., classes]."""
        return np.asarray(features @ self.kernel + self.bias, np.float32)


@dataclass(frozen=True)
class FalseAlarms:
    """The share of other photos of the same kinds that miss the threshold, and its 95 % interval, each 0 to 1."""

    expected: float
    low: float
    high: float


class Domain(Protocol):
    """How much a photo looks like those of the classes: the output `domain_score`, 0 to 1, low for other things."""

    @property
    def threshold(self) -> float:
        """A photo with a lower score is told to be none of the classes."""

    @property
    def false_alarms(self) -> FalseAlarms:
        """How many photos of the classes are told so, wrongly."""

    def scores(self, features: Array) -> Array:
        """Float32 [photos, features] -> [photos]."""

    def graph(self, features: Any, logits: Any) -> Any:
        """TensorFlow: [batch, features] and [batch, classes] -> [batch], the same numbers as `scores`."""


@dataclass(frozen=True)
class Run:
    """A finished training run. `recipe` is the version's preprocessor_config; `broken` maps a file to the reason.

    `probabilities` is float32 [validation photos, classes], `domain_scores` [validation photos] or None. `command` is
    the command line that repeats the run, `evaluation` that which measures the model on other PHOTOS. `notes` are
    sentences about the data for the user. `second_look` is one about what a second look did on validation photos.
    `seconds` is the time until the model is written.
    """

    name: str
    version: int
    command: str
    evaluation: str
    data: Path
    seed: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    broken: Mapping[str, str]
    recipe: Mapping[str, Any]
    training: Part
    validation: Part
    head: Head
    domain: Domain | None
    probabilities: Array
    domain_scores: Array | None
    seconds: float
    second_look: str = ""

    @property
    def accuracy(self) -> Proportion:
        """On the photos of validation."""
        return proportion(self.probabilities.argmax(1) == self.validation.classes)

    @property
    def held_out_accuracy(self) -> Proportion:
        """By cross-validation on the photos of training: more photos, for heads with a little less data."""
        return proportion(self.head.held_out.argmax(1) == self.training.classes)
