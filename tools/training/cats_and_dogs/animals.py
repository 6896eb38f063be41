"""Uses the probabilities of ImageNet's 1,000 classes: as a feature for the head, and as the domain score.

ImageNet's classes 151 to 268 (from zero) are breeds of dogs, 281 to 285 are domestic cats. Foxes, wolves, lions and
others have classes of their own. The feature and the score come from the backbone's original classifier. Of the other
classes only the sum of their probabilities matters. So similar ones are merged, which leaves a sixth of the classifier.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CLASSES = 1000
CATS = slice(281, 286)
DOGS = slice(151, 269)
KNOWN = CATS.stop - CATS.start + DOGS.stop - DOGS.start
# Number of groups for the other classes; more groups were not better. The breeds of dogs are not merged: 40 groups of
# them lower the mean accuracy over left-out sources by 0.2 points.
OTHER_GROUPS = 32
_ROUNDS = 25

# Below every probability of a softmax over ImageNet's logits (up to 15). It keeps the logarithm finite.
SMALLEST = 1e-30


@dataclass(frozen=True)
class Classifier:
    """ImageNet's classifier. The outputs are first the cats, then the dogs, then groups of all other classes.

    `kernel` float32 [features, outputs], exact in float16, and `bias` [outputs] give logits.
    """

    kernel: Array
    bias: Array

    @classmethod
    def of(cls, imagenet: tuple[Array, Array]) -> "Classifier":
        """Return the classifier for ImageNet's [features, 1000] and [1000], with the other classes merged."""
        other = np.ones(CLASSES, bool)
        other[CATS] = other[DOGS] = False
        kernel, bias = imagenet
        merged = _merge(kernel[:, other], bias[other], OTHER_GROUPS)
        pairs = zip(imagenet, merged, strict=True)
        kernel, bias = (np.concatenate([part[..., CATS], part[..., DOGS], more], axis=-1) for part, more in pairs)
        return cls(kernel.astype(np.float16).astype(np.float32), bias)

    @property
    def masks(self) -> Array:
        """float32 [outputs, 2]: 1 for cats in column 0, and for dogs in column 1."""
        chosen = np.zeros((self.bias.size, 2), np.float32)
        cats, dogs = (classes.stop - classes.start for classes in (CATS, DOGS))
        chosen[:cats, 0] = 1
        chosen[cats : cats + dogs, 1] = 1
        return chosen


def _merge(kernel: Array, bias: Array, groups: int) -> tuple[Array, Array]:
    """Merge classes with similar weights (k-means); return [features, groups] and [groups].

    A group has the mean of its classes' weights. Its bias is the logarithm of the sum of exp(bias) over its classes.
    """
    weights = kernel.T
    centres = _first_centres(weights, groups)
    for _ in range(_ROUNDS):
        group = _distances(weights, centres).argmin(1)
        members = [group == number for number in range(groups)]
        pairs = zip(members, centres, strict=True)
        centres = np.stack([weights[own].mean(0) if own.any() else centre for own, centre in pairs])
    # An empty group gets a logit below all others.
    sums = [np.log(np.exp(bias[own]).sum()) if own.any() else -1e4 for own in members]
    return np.ascontiguousarray(centres.T), np.array(sums, np.float32)


def _first_centres(weights: Array, count: int) -> Array:
    """Choose rows of `weights` as first centres. Rows far from the centres before are more likely (k-means++)."""
    random = np.random.default_rng(0)
    centres = weights[:1]
    while len(centres) < count:
        # Rounding can give zeros; the minimum keeps the sum above zero.
        far = np.maximum(_distances(weights, centres).min(1), 1e-9).astype(np.float64)
        chosen = random.choice(len(weights), p=far / far.sum())
        centres = np.concatenate([centres, weights[chosen : chosen + 1]])
    return centres


def _distances(rows: Array, centres: Array) -> Array:
    """Return the squared distances, float32 [rows, centres]."""
    squares = np.square(rows).sum(1)[:, None] + np.square(centres).sum(1)
    return np.asarray(squares - 2 * rows @ centres.T)


def shares(features: Array, classifier: Classifier) -> Array:
    """Pooled features float32 [..., features] -> [..., 2]: ImageNet's probabilities of cats and of dogs, 0 to 1."""
    logits = features @ classifier.kernel + classifier.bias
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True) @ classifier.masks, np.float32)


def odds(shared: Array) -> Array:
    """The result of `shares`, float32 [..., 2] -> [..., 1]: the logarithm of dogs divided by cats."""
    logarithms = np.log(np.maximum(shared, SMALLEST))
    return np.asarray(logarithms[..., 1:] - logarithms[..., :1], np.float32)


def with_odds(features: Array, classifier: Classifier, rows: int = 4096) -> Array:
    """float32 [photos, views, features] -> [photos, views, features + 1]: adds the odds as the last feature."""
    parts = [features[start : start + rows] for start in range(0, len(features), rows)]
    found = [odds(shares(part, classifier)) for part in parts]
    return np.concatenate([features, np.concatenate(found)], axis=-1)


def tensors(classifier: Classifier) -> tuple[Any, Any]:
    """TensorFlow: the constants `kernel` and `bias` of `classifier`, float32 [features, outputs] and [outputs]."""
    import tensorflow as tf

    # Stored as float16, so that the version folder has less than 20 MB. The cast to float32 is fast.
    kernel = tf.cast(tf.constant(classifier.kernel, tf.float16), tf.float32)
    return kernel, tf.constant(classifier.bias)


def graph(features: Any, kernel: Any, bias: Any, masks: Array) -> tuple[Any, Any]:
    """TensorFlow: pooled features [batch, features] -> the odds [batch, 1], and the sum of both shares [batch].

    `kernel` and `bias` are those of `tensors`, `masks` those of the classifier.
    """
    import tensorflow as tf

    shared = tf.matmul(tf.nn.softmax(tf.nn.bias_add(tf.matmul(features, kernel), bias)), tf.constant(masks))
    directions = np.array([[-1.0], [1.0]], np.float32)
    logarithms = tf.math.log(tf.maximum(shared, SMALLEST))
    # Rounding can make the sum of probabilities slightly larger than 1, and a score must be 0 to 1.
    return tf.matmul(logarithms, tf.constant(directions)), tf.minimum(tf.reduce_sum(shared, axis=1), 1.0)
