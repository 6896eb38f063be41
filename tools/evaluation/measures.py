"""Measures of a classifier on labelled photos. It uses only numpy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Two-sided 95 % point of the normal distribution.
Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Proportion:
    """`right` of `total`, with the 95 % interval of Wilson (1927), which is valid near 100 % and for small totals."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 if `total` is 0."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end, each 0 to 1; (0, 1) if `total` is 0."""
        if not self.total:
            return 0.0, 1.0
        square = Z_95**2 / self.total
        centre = (self.value + square / 2) / (1 + square)
        half = Z_95 / (1 + square) * math.sqrt((self.value * (1 - self.value) + square / 4) / self.total)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:7.2%}  [{low:.2%}, {high:.2%}]  {self.right} of {self.total}"


def proportion(right: NDArray[np.bool_]) -> Proportion:
    """Return the share of true values in `right`."""
    return Proportion(int(right.sum()), int(right.size))


def confusion_matrix(actual: Sequence[int], predicted: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Return int64 [classes, classes]: how many photos of the row's class were predicted as the column's class."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(actual, np.int64), np.asarray(predicted, np.int64)), 1)
    return matrix


def by_group(right: NDArray[np.bool_], groups: Sequence[str]) -> dict[str, Proportion]:
    """Return the share of true values in each group, sorted by name."""
    names = np.asarray(groups, object)
    return {name: proportion(right[names == name]) for name in sorted(set(groups))}


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: their number, mean confidence and accuracy, 0 to 1."""

    count: int
    confidence: float
    accuracy: float


def reliability(confidences: NDArray[np.float32], right: NDArray[np.bool_], bins: int = 15) -> list[Bin]:
    """Return bins of equal width over 0 to 1, without empty ones. (Guo et al. 2017, arXiv:1706.04599, use 15.)"""
    numbers = np.minimum((confidences * bins).astype(int), bins - 1)
    members = [numbers == number for number in range(bins)]
    return [
        Bin(int(chosen.sum()), float(confidences[chosen].mean()), float(right[chosen].mean()))
        for chosen in members
        if chosen.any()
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of confidence from accuracy, weighted by the number of answers, 0 to 1."""
    total = sum(found.count for found in bins)
    return sum(found.count * abs(found.confidence - found.accuracy) for found in bins) / total if total else 0.0


def auroc(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> float:
    """Return the probability that a random score of `inside` is above one of `outside`; ties count half. 0 to 1."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, "left") + np.searchsorted(ordered, inside, "right")
    return float(below.sum() / 2 / (len(inside) * len(outside)))
