"""What ImageNet's own 1,000 classes say of cats and dogs: a feature for the head, and a score for "neither".

ImageNet's classes 151 to 268 (from zero) are the breeds of dogs, 281 to 285 domestic cats; foxes, wolves, lions and
the like have classes of their own. Both figures come from the probabilities of the backbone's original classifier, of
which only the sum over all other classes counts: so those of them that are alike are merged, and a sixth of it is left.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CLASSES = 1000
CATS = slice(281, 286)
DOGS = slice(151, 269)
# What the other classes are merged into; more groups told nothing better. The breeds of dogs can't be merged like that:
# in 40 groups they cost 0.2 points of the mean over left-out sources.
OTHER_GROUPS = 32
_ROUNDS = 25

# A probability of the softmax is never below this for logits as ImageNet's (up to 15); it keeps the logarithm finite.
SMALLEST = 1e-30


@dataclass(frozen=True)
class Classifier:
    """ImageNet's classifier with the classes of cats first, then those of dogs, then groups of all others.

    `kernel` float32 [features, outputs], in numbers that float16 holds, and `bias` [outputs] give logits.
    """

    kernel: Array
    bias: Array

    @classmethod
    def of(cls, imagenet: tuple[Array, Array]) -> "Classifier":
        """ImageNet's [features, 1000] and [1000], the other classes merged."""
        other = np.ones(CLASSES, bool)
        other[CATS] = other[DOGS] = False
        kernel, bias = imagenet
        merged = _merge(kernel[:, other], bias[other], OTHER_GROUPS)
        pairs = zip(imagenet, merged, strict=True)
        kernel, bias = (np.concatenate([part[..., CATS], part[..., DOGS], more], axis=-1) for part, more in pairs)
        return cls(kernel.astype(np.float16).astype(np.float32), bias)

    @property
    def masks(self) -> Array:
        """float32 [outputs, 2]: which are cats (column 0) and which are dogs (column 1)."""
        chosen = np.zeros((self.bias.size, 2), np.float32)
        cats, dogs = (classes.stop - classes.start for classes in (CATS, DOGS))
        chosen[:cats, 0] = 1
        chosen[cats : cats + dogs, 1] = 1
        return chosen


def _merge(kernel: Array, bias: Array, groups: int) -> tuple[Array, Array]:
    """Classes whose weights are alike (k-means) as one: [features, groups] and [groups].

    A group's logit is the logarithm of the sum of its classes' powers, were their weights all the mean of them.
    """
    weights = kernel.T
    centres = _first_centres(weights, groups)
    for _ in range(_ROUNDS):
        group = _distances(weights, centres).argmin(1)
        members = [group == number for number in range(groups)]
        pairs = zip(members, centres, strict=True)
        centres = np.stack([weights[own].mean(0) if own.any() else centre for own, centre in pairs])
    # An empty group gets a logit that no other is below.
    sums = [np.log(np.exp(bias[own]).sum()) if own.any() else -1e4 for own in members]
    return np.ascontiguousarray(centres.T), np.array(sums, np.float32)


def _first_centres(weights: Array, count: int) -> Array:
    """Rows of `weights`, each next one likelier the farther it is from those before it (k-means++)."""
    random = np.random.default_rng(0)
    centres = weights[:1]
    while len(centres) < count:
        # Rounding leaves a little of what is nought, so that the sum never is.
        far = np.maximum(_distances(weights, centres).min(1), 1e-9).astype(np.float64)
        chosen = random.choice(len(weights), p=far / far.sum())
        centres = np.concatenate([centres, weights[chosen : chosen + 1]])
    return centres


def _distances(rows: Array, centres: Array) -> Array:
    """Squared distances, float32 [rows, centres]."""
    squares = np.square(rows).sum(1)[:, None] + np.square(centres).sum(1)
    return np.asarray(squares - 2 * rows @ centres.T)


def shares(features: Array, classifier: Classifier) -> Array:
    """float32 [..., features] pooled -> [..., 2]: ImageNet's probability of cats and of dogs, each 0 to 1."""
    logits = features @ classifier.kernel + classifier.bias
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True) @ classifier.masks, np.float32)


def odds(shared: Array) -> Array:
    """float32 [..., 2] of `shares` -> [..., 1]: the logarithm of dogs against cats."""
    logarithms = np.log(np.maximum(shared, SMALLEST))
    return np.asarray(logarithms[..., 1:] - logarithms[..., :1], np.float32)


def with_odds(features: Array, classifier: Classifier, rows: int = 4096) -> Array:
    """float32 [photos, views, features] -> [photos, views, features + 1]: the odds as one more feature."""
    parts = [features[start : start + rows] for start in range(0, len(features), rows)]
    found = [odds(shares(part, classifier)) for part in parts]
    return np.concatenate([features, np.concatenate(found)], axis=-1)


def graph(features: Any, classifier: Classifier) -> tuple[Any, Any]:
    """TensorFlow: pooled features [batch, features] -> the odds [batch, 1] and the sum of both shares [batch]."""
    import tensorflow as tf

    # Stored in half the bytes, which takes the version folder below 20 MB; so few numbers are soon cast.
    kernel = tf.cast(tf.constant(classifier.kernel, tf.float16), tf.float32)
    logits = tf.nn.bias_add(tf.matmul(features, kernel), tf.constant(classifier.bias))
    shared = tf.matmul(tf.nn.softmax(logits), tf.constant(classifier.masks))
    directions = np.array([[-1.0], [1.0]], np.float32)
    logarithms = tf.math.log(tf.maximum(shared, SMALLEST))
    # Rounding can take a sum of probabilities a hair above 1, where a score would no longer be one.
    return tf.matmul(logarithms, tf.constant(directions)), tf.minimum(tf.reduce_sum(shared, axis=1), 1.0)
