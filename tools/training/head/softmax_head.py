"""The head for any classes: multinomial logistic regression by scikit-learn, with a cross-validated penalty.

All photos weigh the same: a class with more photos is the likelier one. `balanced` gives all classes the same weight;
where they differ in size, this costs accuracy. The penalty has the least log loss on held-out photos: near-duplicates
of a photo are held out with it. The temperature (Guo et al. 2017, arXiv:1706.04599) is fitted there too, and divides
the logits. Two classes are no special case. Time and memory are bounded: of large sets a sample is used.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tools.training.run import Array, Head, Numbers, Part, TrainError

# The `C` of scikit-learn for features of deviation 1, from strong to weak: the prior of a weight has the variance C.
STRENGTHS = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1)
FOLDS = 5
# Where the fits use a part of the photos only.
FOLDS_OF_MANY = 3
MAX_STEPS = 100
# A fit has at most so many rows (photos and their mirror images), which take 0.5 GB.
MOST_ROWS = 100_000
# A fit has at most so many rows times classes, in the cross-validation and at the end: with 200 classes,
# 25 and 300 photos per class.
MOST_TRIED = 1_000_000
MOST_FITTED = 12_000_000
# More photos do not change the temperature.
MOST_CALIBRATED = 20_000
TEMPERATURES = (0.1, 10.0)
# Rows of features that are converted to float32 at a time.
ROWS = 8192
# Rows times classes up to which a fit uses one thread. On a busy computer several threads wait for one another.
SMALL = 100_000


@dataclass(frozen=True)
class _Linear:
    """Logits = features @ `kernel` + `bias`: float32 [features, classes] and [classes]."""

    kernel: Array
    bias: Array

    def logits(self, values: NDArray[Any]) -> Array:
        """[photos, views, features] -> float32 [photos, classes] of view 0, a part of the photos at a time."""
        parts = [values[start : start + ROWS, 0].astype(np.float32) for start in range(0, len(values), ROWS)]
        return np.concatenate([part @ self.kernel + self.bias for part in parts]).astype(np.float32)


def fit_head(
    training: Part, classes: int, seed: int = 0, strengths: Sequence[float] = STRENGTHS, balanced: bool = False
) -> Head:
    """Return the head of `training` for the classes 0 to `classes` - 1. Raises TrainError.

    `Head.penalty` is the variance of a weight (scikit-learn's C) for features of deviation 1.
    """
    labels = training.classes
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < 2:
        raise TrainError("each class needs at least two readable photos for training")
    tried, fitted = photos_used(training, classes)
    most = FOLDS if len(labels) <= tried else FOLDS_OF_MANY
    folds = assign_folds(labels, training.groups, min(most, int(counts.min())), seed)
    if len(np.unique(folds)) < 2:
        raise TrainError("all photos for training are near-duplicates of one another")
    held_out = _held_out_logits(training.values, labels, folds, _Fitter(classes, strengths, balanced), seed)
    scales = [fit_temperature(logits, labels, seed) for logits in held_out]
    # Of equal losses the strongest penalty: min returns the first.
    best = min(range(len(strengths)), key=lambda number: scales[number][1])
    temperature = scales[best][0]
    rows = sample(labels, fitted, seed)
    (head,) = _Fitter(classes, strengths[best : best + 1], balanced).heads(training.values[rows], labels[rows])
    return Head(
        (head.kernel / temperature).astype(np.float32),
        (head.bias / temperature).astype(np.float32),
        strengths[best],
        temperature,
        held_out[best] / np.float32(temperature),
    )


def photos_used(training: Part, classes: int) -> tuple[int, int]:
    """Return how many photos a fit uses at most in the cross-validation, and at the end. Larger sets are sampled."""
    labels = training.classes
    tried, fitted = (_photos_that_fit(most // classes, training.values, labels) for most in (MOST_TRIED, MOST_FITTED))
    return tried, fitted


def assign_folds(labels: Numbers, groups: Numbers, count: int, seed: int) -> Numbers:
    """Return int64 [photos], 0 to `count` - 1. Photos of a group have the same fold; classes are spread evenly."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(first)), labels[first]))
    folds = np.empty(len(first), np.int64)
    folds[order] = np.arange(len(first)) % count
    return np.asarray(folds[group], np.int64)


def sample(labels: Numbers, most: int, seed: int) -> Numbers:
    """Return the sorted numbers of at most `most` photos. Small classes are complete, large ones have the same size."""
    if len(labels) <= most:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    sizes = np.sort(counts[counts > 0])
    # The size to which large classes are cut: what the smaller classes leave is divided among the others.
    left = most - np.concatenate([[0], np.cumsum(sizes)[:-1]])
    cuts = left // np.arange(len(sizes), 0, -1)
    cut = max(2, int(cuts[np.argmax(sizes > cuts)]))
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(labels == label))[:cut] for label in np.flatnonzero(counts)]
    return np.sort(np.concatenate(chosen))


def fit_temperature(logits: Array, labels: Numbers, seed: int = 0) -> tuple[float, float]:
    """Return the divisor of held-out `logits` [photos, classes] with the least log loss, and this loss.

    Photos of classes that their head did not know (NaN) are ignored. Few photos can't prove a high confidence: as in
    Platt's method (1999), one of n + 2 answers counts as wrong.
    """
    from scipy.optimize import minimize_scalar

    known = np.flatnonzero(~np.isnan(logits).any(axis=1))
    if not known.size:
        return 1.0, float(np.log(logits.shape[1]))
    known = known[sample(labels[known], MOST_CALIBRATED, seed)]
    chosen, right = logits[known].astype(np.float64), labels[known]
    doubt = 1 / (len(known) + 2)
    targets = np.full(chosen.shape, doubt / (chosen.shape[1] - 1))
    targets[np.arange(len(right)), right] = 1 - doubt

    def loss(logarithm: float) -> float:
        scaled = chosen / np.exp(logarithm)
        scaled -= scaled.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - (targets * scaled).sum(1)))

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x)), float(found.fun)


def graph(features: Any, head: Head) -> Any:
    """TensorFlow: pooled features [batch, features] -> calibrated logits [batch, classes]."""
    import tensorflow as tf

    return tf.nn.bias_add(tf.matmul(features, tf.constant(head.kernel)), tf.constant(head.bias))


def _photos_that_fit(rows: int, values: NDArray[Any], labels: Numbers) -> int:
    """Return how many photos have at most `rows` and `MOST_ROWS` rows; at least two of each class."""
    return max(min(rows, MOST_ROWS) // int(values.shape[1]), 2 * len(np.unique(labels)))


def _held_out_logits(
    values: NDArray[Any], labels: Numbers, folds: Numbers, fitter: "_Fitter", seed: int
) -> list[Array]:
    """Return for each strength float32 [photos, classes], from heads fitted on a sample of the other folds.

    A row is NaN if its photo's class has no photos in the other folds.
    """
    results = [np.full((len(labels), fitter.classes), np.nan, np.float32) for _ in fitter.strengths]
    numbers = np.unique(folds)
    with tqdm(total=len(numbers) * len(fitter.strengths), desc="penalty", unit="fit") as bar:
        for fold in numbers:
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            photos = _photos_that_fit(MOST_TRIED // fitter.classes, values, labels[inside])
            inside = inside[sample(labels[inside], photos, seed)]
            known = np.isin(labels[outside], labels[inside])
            heads = fitter.heads(values[inside], labels[inside])
            for result, head in zip(results, heads, strict=True):
                result[outside[known]] = head.logits(values[outside[known]])
                bar.update()
    return results


@dataclass(frozen=True)
class _Fitter:
    """Fits one head per strength. Each fit starts from the last one, so the strengths begin with the strongest."""

    classes: int
    strengths: Sequence[float]
    balanced: bool

    def heads(self, values: NDArray[Any], labels: Numbers) -> Iterator[_Linear]:
        """Yield the heads, for unscaled features."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        views = values.shape[1]
        features = values.reshape(-1, values.shape[2]).astype(np.float32)
        mean = features.mean(axis=0)
        features -= mean
        # The minimum avoids a division by zero for a constant feature.
        deviation = np.maximum(np.sqrt(np.square(features).mean(axis=0)), 1e-3, dtype=np.float32)
        features /= deviation
        weights = np.full(len(features), 1 / views, np.float32)
        weight = "balanced" if self.balanced else None
        model = LogisticRegression(class_weight=weight, warm_start=True, max_iter=MAX_STEPS)
        threads = 1 if len(features) * self.classes <= SMALL else None
        for strength in self.strengths:
            model.set_params(C=strength)
            with warnings.catch_warnings(), threadpool_limits(threads):
                # A fit that is stopped early is a little more regular.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(features, np.repeat(labels, views), weights)
            yield _unscaled(model.coef_, model.intercept_, model.classes_, self.classes, mean, deviation)


def _unscaled(
    weights: NDArray[Any], bias: NDArray[Any], known: Numbers, classes: int, mean: Array, deviation: Array
) -> _Linear:
    if len(weights) == 1:
        # The logistic function of z is the softmax of (-z/2, z/2).
        weights, bias = np.concatenate([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    kernel = np.zeros((weights.shape[1], classes))
    kernel[:, known] = (weights / deviation).T
    # A class without photos in this fold is never the answer.
    complete = np.full(classes, -1e4)
    complete[known] = bias - mean @ kernel[:, known]
    return _Linear(kernel.astype(np.float32), complete.astype(np.float32))
