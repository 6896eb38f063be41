"""The domain score of trained models: how much a photo looks like those of the classes, from the pooled features.

Three measures are added. They were chosen on left-out classes (`python -m tools.evaluation.trained_models`):

- the Mahalanobis distance to the nearest class mean (Lee et al. 2018, arXiv:1807.03888), of features of length 1 in the
  256 directions in which ImageNet's classifier differs most, with one shrunk covariance for all classes;
- the cosine to the nearest of 256 prototypes, which are training photos or the centres of their clusters (Sun et al.
  2022, arXiv:2204.06507): a class of many looks has no meaningful mean, but it has near photos;
- with half the weight, the energy of the head's logits (Liu et al. 2020, arXiv:2010.03759). It is good if the classes
  differ much, and for few photos. Alone it fails if the classes are alike.

The score is 0.5 at the limit, which a stated share of the classes' own photos misses, and 0.9 for their median photo.
The limit comes from photos that were left out of the fits. In random splits with 10 to 40 photos of a class, 1.1 to
3.3 % of other photos missed it, about as many as `FalseAlarms` tells. A single split had up to 6 % (3 x 40 photos) or
18 % (2 x 20), so there is an interval. It holds for photos of the same kinds: if the first 40 by name were used, 6 and
9 % of the others missed the limit, and a quarter of those of one class.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.training.head.softmax_head import FOLDS, ROWS, assign_folds, sample
from tools.training.run import Array, FalseAlarms, Head, Numbers, Part

DIRECTIONS = 256
PROTOTYPES = 256
FALSE_ALARMS = 0.02
THRESHOLD = 0.5
MEDIAN_SCORE = 0.9
# More photos do not change the score. Those of this many, with mirror images, have 0.2 GB.
MOST_PHOTOS = 20_000
ROUNDS = 20
# Below each real length, distance and deviation; avoids a division by zero and the logarithm of it.
SMALLEST = 1e-6
# Of `near`, -log(`far`) and the energy, each in its deviations on held-out photos.
PARTS = (1.0, 1.0, 0.5)


@dataclass(frozen=True)
class Neighbours:
    """What is near to the classes. Unit features are features / |features|; `projection` makes whitened ones of them.

    `projection` is float32 [features, directions], `means` [directions, classes], `prototypes` [features, prototypes].
    """

    projection: Array
    means: Array
    prototypes: Array

    def measures(self, unit: Array) -> Array:
        """Unit features [photos, features] -> float32 [photos, 2]: `near` and -log(`far`).

        `near` is the largest product with a prototype, `far` the least squared distance to a mean.
        """
        white = unit @ self.projection
        far = np.square(white).sum(1)[:, None] - 2 * (white @ self.means) + np.square(self.means).sum(0)
        near = (unit @ self.prototypes).max(1)
        return np.stack([near, -np.log(np.maximum(far.min(1), SMALLEST))], axis=1).astype(np.float32)

    def graph(self, features: Any) -> tuple[Any, Any]:
        """TensorFlow: pooled features [batch, features] -> `near` and -log(`far`), each [batch]."""
        import tensorflow as tf

        length = tf.sqrt(tf.reduce_sum(tf.square(features), axis=1, keepdims=True))
        unit = features / tf.maximum(length, SMALLEST)
        white = tf.matmul(unit, tf.constant(self.projection))
        squares = tf.reduce_sum(tf.square(white), axis=1, keepdims=True)
        far = squares - 2 * tf.matmul(white, tf.constant(self.means)) + tf.constant(np.square(self.means).sum(0))
        near = tf.reduce_max(tf.matmul(unit, tf.constant(self.prototypes)), axis=1)
        return near, -tf.math.log(tf.maximum(tf.reduce_min(far, axis=1), SMALLEST))


@dataclass(frozen=True)
class DomainScore:
    """Implements `run.Domain`: sigmoid(`slope` * (the three measures times `weights` - `limit`))."""

    neighbours: Neighbours
    head: Head
    weights: Array
    limit: float
    slope: float
    false_alarms: FalseAlarms

    @classmethod
    def of(
        cls, neighbours: Neighbours, head: Head, held_out: Array, known: Array, rate: float, independent: int
    ) -> "DomainScore":
        """Return the score. Its weights come from `held_out` [photos, 3], measures of photos left out of the fits.

        Its limit is that which `rate` (0 to 1) of other photos will miss, judged by `known` [photos, 3]: photos of
        which `independent` are no near-duplicates of others.
        """
        weights = (PARTS / np.maximum(held_out.std(0), SMALLEST)).astype(np.float32)
        values = known @ weights
        # A new photo is below the lowest of n with the probability 1 / (n + 1), and so on.
        limit = float(np.quantile(values, rate, method="weibull"))
        above = max(float(np.median(values)) - limit, SMALLEST)
        slope = float(np.log(MEDIAN_SCORE / (1 - MEDIAN_SCORE))) / above
        # The limit lies a little below its photo, which must not fail by rounding.
        return cls(neighbours, head, weights, limit - 1e-3 * above, slope, expected_false_alarms(rate, independent))

    @property
    def threshold(self) -> float:
        """A photo with a lower score is told to be none of the classes."""
        return THRESHOLD

    def measures(self, features: NDArray[Any]) -> Array:
        """[photos, features] -> float32 [photos, 3]: `near`, -log(`far`), energy."""
        return measured(self.neighbours, self.head, features)

    def scores(self, features: Array) -> Array:
        """[photos, features] -> float32 [photos], 0 to 1."""
        power = self.slope * (self.measures(features) @ self.weights - self.limit)
        return np.asarray(1 / (1 + np.exp(-np.clip(power, -60, 60))), np.float32)

    def graph(self, features: Any, logits: Any) -> Any:
        """TensorFlow: [batch, features] and the head's [batch, classes] -> [batch], the same numbers as `scores`."""
        import tensorflow as tf

        measures = (*self.neighbours.graph(features), tf.reduce_logsumexp(logits, axis=1))
        total = sum(float(weight) * measure for weight, measure in zip(self.weights, measures, strict=True))
        return tf.sigmoid(self.slope * (total - self.limit))


def measured(neighbours: Neighbours, head: Head, features: NDArray[Any]) -> Array:
    """[photos, features] -> float32 [photos, 3]: `near`, -log(`far`), energy; a part of the photos at a time."""
    parts = [features[start : start + ROWS].astype(np.float32) for start in range(0, len(features), ROWS)]
    found = [(neighbours.measures(length_1(part)), energy(head.logits(part))) for part in parts]
    return np.concatenate([np.column_stack(pair) for pair in found])


def expected_false_alarms(rate: float, photos: int) -> FalseAlarms:
    """Return what is true of a limit that was set for `rate` on so many independent photos.

    The share of all photos below the k-th lowest of n has the distribution Beta(k, n + 1 - k), whatever their scores.
    With few photos the limit is the lowest one: a rate below 1 / (n + 1) can't be had.
    """
    from scipy.stats import beta

    expected = max(rate, 1 / (photos + 1))
    low, high = beta.ppf((0.025, 0.975), expected * (photos + 1), (1 - expected) * (photos + 1)).tolist()
    return FalseAlarms(expected, low, high)


def energy(logits: Array) -> Array:
    """Float32 [photos, classes] -> [photos]: the logarithm of the sum of the exponentials."""
    highest = logits.max(1)
    return np.asarray(highest + np.log(np.exp(logits - highest[:, None]).sum(1)), np.float32)


def fit_domain(
    training: Part, validation: Part, head: Head, imagenet: Array, seed: int = 0, rate: float = FALSE_ALARMS
) -> DomainScore:
    """Return the score for the classes of `head`; `imagenet` is float32 [features, 1000], the kernel of its classifier.

    The limit is that which `rate` of other photos will miss, 0 to 1. It comes from the photos of validation, and from
    those of training, left out of head and neighbours. Validation alone is often too small for the rate.
    """
    labels, groups = training.classes, training.groups
    rows = sample(labels, MOST_PHOTOS, seed)
    labels, groups, unit = labels[rows], groups[rows], length_1(training.values[rows])
    prototypes = max(1, PROTOTYPES // len(head.bias))
    basis = directions(imagenet)
    held_out = np.full((len(rows), 3), np.nan, np.float32)
    held_out[:, 2] = energy(head.held_out[rows])
    folds = assign_folds(labels, groups, FOLDS, seed)
    for fold in np.unique(folds):
        inside = folds != fold
        # A class that is complete in this fold is unknown to the others.
        outside = ~inside & np.isin(labels, labels[inside])
        if outside.any():
            found = fit_neighbours(unit[inside], labels[inside], prototypes, basis, seed)
            held_out[outside, :2] = found.measures(unit[outside, 0])
    left_out = ~np.isnan(held_out).any(1)
    held_out, independent = held_out[left_out], len(np.unique(groups[left_out])) + len(np.unique(validation.groups))
    neighbours = fit_neighbours(unit, labels, prototypes, basis, seed)
    known = np.concatenate([held_out, measured(neighbours, head, validation.values[:, 0])])
    return DomainScore.of(neighbours, head, held_out if len(held_out) else known, known, rate, independent)


def directions(imagenet: Array) -> Array:
    """Return float32 [features, DIRECTIONS], orthonormal: where ImageNet's classes differ most."""
    centred = (imagenet - imagenet.mean(axis=1, keepdims=True)).astype(np.float64)
    _, vectors = np.linalg.eigh(centred @ centred.T)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS], np.float32)


def length_1(features: NDArray[Any]) -> Array:
    """[..., features] -> float32 of length 1."""
    values = features.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), SMALLEST), np.float32)


def fit_neighbours(unit: Array, labels: Numbers, prototypes: int, basis: Array, seed: int) -> Neighbours:
    """Return the neighbours for `unit` [photos, views, features], with `prototypes` of each class."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    views = unit.shape[1]
    flat, repeated = unit.reshape(-1, unit.shape[2]), np.repeat(labels, views)
    found = flat @ basis
    known = np.unique(labels)
    means = np.stack([found[repeated == label].mean(0) for label in known])
    residual = found - means[np.searchsorted(known, repeated)]
    shrinkage = float(ledoit_wolf_shrinkage(residual, assume_centered=True))
    covariance = residual.T.astype(np.float64) @ residual / len(residual)
    variance = max(float(np.trace(covariance)) / len(covariance), SMALLEST**2)
    mixed = (1 - shrinkage) * covariance + shrinkage * variance * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(mixed)
    whitening = vectors / np.sqrt(np.maximum(values, SMALLEST * variance))
    nearest = np.concatenate(list(_prototypes(unit, labels, prototypes, seed)))
    return Neighbours(
        (basis @ whitening).astype(np.float32),
        np.ascontiguousarray((means @ whitening).T, np.float32),
        np.ascontiguousarray(length_1(nearest).T),
    )


def _prototypes(unit: Array, labels: Numbers, most: int, seed: int) -> Iterator[Array]:
    """Yield for each class at most `most` vectors: all photos and mirror images, or the centres of their clusters."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    for label in np.unique(labels):
        rows = unit[labels == label].reshape(-1, unit.shape[2])
        if len(rows) > most:
            with warnings.catch_warnings():
                # Equal photos give fewer clusters.
                warnings.simplefilter("ignore", ConvergenceWarning)
                rows = KMeans(most, n_init=1, max_iter=ROUNDS, random_state=seed).fit(rows).cluster_centers_
        yield rows
