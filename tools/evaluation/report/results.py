"""A classifier's answers on labelled photos, and every figure about them. It uses only numpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.measures import (
    Bin,
    Proportion,
    confusion_matrix,
    expected_calibration_error,
    proportion,
    reliability,
)
from tools.evaluation.photos import Photo

# The confidences for which `Results.above` is reported.
CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Confusion:
    """`count` of the `total` photos of class number `actual` were answered as class number `predicted`."""

    actual: int
    predicted: int
    count: int
    total: int


@dataclass(frozen=True)
class Results:
    """The answers for `photos`.

    Attributes:
        probabilities: float32 [photos, classes].
        domain: float32 [photos]: domain scores, 0 to 1; None if the model has none.
        threshold: a photo with a lower domain score is told to be none of the classes.
        second_looks: for how many photos a second look was taken; None if that is not known.
    """

    labels: tuple[str, ...]
    photos: Sequence[Photo]
    probabilities: NDArray[np.float32]
    domain: NDArray[np.float32] | None = None
    threshold: float = 0.0
    second_looks: int | None = None

    @cached_property
    def actual(self) -> NDArray[np.int64]:
        """The true class of each photo, int64 [photos]."""
        return np.array([photo.label for photo in self.photos], np.int64)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted class of each photo, int64 [photos]."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the predicted class, float32 [photos]."""
        return np.asarray(self.probabilities.max(1))

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right, bool [photos]."""
        return np.asarray(self.actual == self.predicted)

    @property
    def accuracy(self) -> Proportion:
        """On all photos."""
        return proportion(self.right)

    def matrix(self) -> NDArray[np.int64]:
        """Return int64 [classes, classes]: how many photos of the row's class were answered as the column's class."""
        return confusion_matrix(self.actual.tolist(), self.predicted.tolist(), len(self.labels))

    def by_class(self) -> list[Proportion]:
        """Return the accuracy for each class, in the order of the labels. A class without photos has a total of 0."""
        return class_proportions(self.actual, self.right, len(self.labels))

    def by_source(self) -> dict[str, Proportion]:
        """Return the accuracy for each source, sorted by name; empty if all photos have the same one."""
        sources = np.array([photo.source for photo in self.photos], object)
        names = sorted(set(sources.tolist()))
        return {name: proportion(self.right[sources == name]) for name in names} if len(names) > 1 else {}

    def confusions(self, most: int) -> list[Confusion]:
        """Return the most frequent mistakes by pair of classes, the largest count first, at most `most`."""
        matrix = self.matrix()
        totals = matrix.sum(1)
        np.fill_diagonal(matrix, 0)
        # The stable sort keeps equal counts in the order of the labels.
        order = np.argsort(-matrix, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), len(self.labels)) for place in order]
        return [Confusion(row, column, int(matrix[row, column]), int(totals[row])) for row, column in pairs][
            : np.count_nonzero(matrix)
        ]

    def bins(self) -> list[Bin]:
        """Return the bins of confidence."""
        return reliability(self.confidence, self.right)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, 0 to 1."""
        return expected_calibration_error(self.bins())

    def above(self, confidence: float) -> Proportion:
        """Return the accuracy on the photos that were answered with at least this confidence."""
        return proportion(self.right[self.confidence >= confidence])

    def flagged(self) -> Proportion | None:
        """Return how many photos were told to be none of the classes, which is wrong; None without a domain score."""
        return None if self.domain is None else proportion(self.domain < self.threshold)

    def mistakes(self) -> list[int]:
        """Return the numbers of the photos with a wrong answer, the one with the highest confidence first."""
        order = np.argsort(-self.confidence, kind="stable")
        return [int(number) for number in order[~self.right[order]]]


def class_proportions(actual: NDArray[np.int64], right: NDArray[np.bool_], classes: int) -> list[Proportion]:
    """Return the share of right answers for each class. `actual` is int64 [photos], `right` bool [photos]."""
    totals = np.bincount(actual, minlength=classes)
    hits = np.bincount(actual[right], minlength=classes)
    return [Proportion(int(hit), int(total)) for hit, total in zip(hits, totals, strict=True)]
