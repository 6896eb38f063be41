"""The domain score of trained models: how much a photo looks like those of the classes, from the pooled features.

Two measures are added. They were chosen on classes left out of training (`python -m tools.evaluation.trained_models`):

- the Mahalanobis distance to the nearest class mean (Lee et al. 2018, arXiv:1807.03888), of features of length 1 in the
  256 directions in which ImageNet's classifier differs most, with one shrunk covariance for all classes;
- the cosine to the nearest of 256 prototypes, which are training photos or their k-means (Sun et al. 2022,
  arXiv:2204.06507). A class of many looks has no meaningful mean, but it has near photos.

The score is 0.5 at the limit, which a stated share of the classes' own photos misses, and 0.9 for their median photo.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.training.run import Array, Numbers, Part
from tools.training.softmax_head import FOLDS, ROWS, assign_folds, sample

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


@dataclass(frozen=True)
class DomainScore:
    """Implements `run.Domain`. With unit = features / |features|, of which `projection` makes whitened ones:

    sigmoid(`slope` * (`weights`[0] * near - `weights`[1] * log(far) - `limit`)), where `near` is the largest product
    of unit and a column of `prototypes`, and `far` the least squared distance of unit @ `projection` to one of `means`.

    `projection` is float32 [features, directions], `means` [directions, classes], `prototypes` [features, prototypes].
    """

    projection: Array
    means: Array
    prototypes: Array
    weights: tuple[float, float] = (1.0, 1.0)
    limit: float = 0.0
    slope: float = 1.0

    @property
    def threshold(self) -> float:
        """A photo with a lower score is told to be none of the classes."""
        return THRESHOLD

    def measures(self, features: NDArray[Any]) -> Array:
        """[photos, features] -> float32 [photos, 2]: `near` and -log(`far`), a part of the photos at a time."""
        parts = [features[start : start + ROWS] for start in range(0, len(features), ROWS)]
        return np.concatenate([self._measures(_unit(part)) for part in parts])

    def _measures(self, unit: Array) -> Array:
        white = unit @ self.projection
        far = np.square(white).sum(1)[:, None] - 2 * (white @ self.means) + np.square(self.means).sum(0)
        near = (unit @ self.prototypes).max(1)
        return np.stack([near, -np.log(np.maximum(far.min(1), SMALLEST))], axis=1).astype(np.float32)

    def scores(self, features: Array) -> Array:
        """[photos, features] -> float32 [photos], 0 to 1."""
        return self._scores(self.measures(features))

    def _scores(self, measures: Array) -> Array:
        power = self.slope * (measures @ np.array(self.weights, np.float32) - self.limit)
        return np.asarray(1 / (1 + np.exp(-np.clip(power, -60, 60))), np.float32)

    def graph(self, features: Any, logits: Any) -> Any:
        """TensorFlow: [batch, features] -> [batch], the same numbers as `scores`. `logits` are not used."""
        import tensorflow as tf

        length = tf.sqrt(tf.reduce_sum(tf.square(features), axis=1, keepdims=True))
        unit = features / tf.maximum(length, SMALLEST)
        white = tf.matmul(unit, tf.constant(self.projection))
        squares = tf.reduce_sum(tf.square(white), axis=1, keepdims=True)
        far = squares - 2 * tf.matmul(white, tf.constant(self.means)) + tf.constant(np.square(self.means).sum(0))
        logarithm = tf.math.log(tf.maximum(tf.reduce_min(far, axis=1), SMALLEST))
        near = tf.reduce_max(tf.matmul(unit, tf.constant(self.prototypes)), axis=1)
        return tf.sigmoid(self.slope * (self.weights[0] * near - self.weights[1] * logarithm - self.limit))


def fit_domain(
    training: Part,
    validation: Part,
    classes: int,
    imagenet: Array,
    seed: int = 0,
    false_alarms: float = FALSE_ALARMS,
) -> DomainScore:
    """Return the score for the classes 0 to `classes` - 1; `imagenet` is float32 [features, 1000], its classifier.

    The limit is that which `false_alarms` of the photos miss, 0 to 1: photos of validation, and photos of training that
    were left out of a score like this one. Validation alone is often too small for the rate.
    """
    labels = training.classes
    rows = sample(labels, MOST_PHOTOS, seed)
    labels, groups = labels[rows], training.groups[rows]
    unit = _unit(training.values[rows])
    basis = directions(imagenet)
    held_out = _held_out_measures(unit, labels, assign_folds(labels, groups, FOLDS, seed), classes, basis, seed)
    found = _fit(unit, labels, classes, basis, seed)
    deviations = np.maximum(held_out.std(0), SMALLEST)
    found = replace(found, weights=(float(1 / deviations[0]), float(1 / deviations[1])))
    return with_limit(found, np.concatenate([held_out, found.measures(validation.values[:, 0])]), false_alarms)


def with_limit(found: DomainScore, measures: Array, false_alarms: float) -> DomainScore:
    """Return `found` with the limit that `false_alarms` of the photos of `measures` [photos, 2] miss at most."""
    values = np.sort(measures @ np.array(found.weights, np.float32))
    limit = float(values[int(false_alarms * len(values))])
    above = max(float(np.median(values)) - limit, SMALLEST)
    # The limit lies a little below its photo, which must not fail by rounding.
    return replace(found, limit=limit - 1e-3 * above, slope=float(np.log(MEDIAN_SCORE / (1 - MEDIAN_SCORE))) / above)


def directions(imagenet: Array) -> Array:
    """Return float32 [features, DIRECTIONS], orthonormal: where ImageNet's classes differ most."""
    centred = (imagenet - imagenet.mean(axis=1, keepdims=True)).astype(np.float64)
    _, vectors = np.linalg.eigh(centred @ centred.T)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIRECTIONS], np.float32)


def _unit(features: NDArray[Any]) -> Array:
    """[..., features] -> float32 of length 1."""
    values = features.astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), SMALLEST), np.float32)


def _held_out_measures(unit: Array, labels: Numbers, folds: Numbers, classes: int, basis: Array, seed: int) -> Array:
    """Return float32 [photos, 2] of the photos as served, each from a fit without its fold."""
    measures = np.zeros((len(labels), 2), np.float32)
    known = np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        # A class that is complete in this fold is unknown to the others.
        outside &= np.isin(labels, labels[inside])
        if outside.any():
            found = _fit(unit[inside], labels[inside], classes, basis, seed)
            measures[outside] = found._measures(unit[outside, 0])
            known |= outside
    return measures[known]


def _fit(unit: Array, labels: Numbers, classes: int, basis: Array, seed: int) -> DomainScore:
    """Return the score for `unit` [photos, views, features], without weights and limit."""
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
    prototypes = np.concatenate(list(_prototypes(unit, labels, max(1, PROTOTYPES // classes), seed)))
    return DomainScore(
        (basis @ whitening).astype(np.float32),
        np.ascontiguousarray((means @ whitening).T, np.float32),
        np.ascontiguousarray(_unit(prototypes).T),
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
