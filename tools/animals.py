"""What ImageNet's own 1,000 classes say of cats and dogs: a feature for the head, and a score for "neither".

ImageNet's classes 151 to 268 (from zero) are the breeds of dogs, 281 to 285 domestic cats; foxes, wolves, lions and
the like have classes of their own. Both figures come from the probabilities of the backbone's original classifier.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CLASSES = 1000
DOGS = slice(151, 269)
CATS = slice(281, 286)

# A probability of the softmax is never below this for logits as ImageNet's (up to 15); it keeps the logarithm finite.
SMALLEST = 1e-30


def masks() -> Array:
    """float32 [1000, 2]: which classes are cats (column 0) and which are dogs (column 1)."""
    chosen = np.zeros((CLASSES, 2), np.float32)
    chosen[CATS, 0] = 1
    chosen[DOGS, 1] = 1
    return chosen


def shares(features: Array, classifier: tuple[Array, Array]) -> Array:
    """float32 [..., features] pooled -> [..., 2]: ImageNet's probability of cats and of dogs, each 0 to 1."""
    logits = features @ classifier[0] + classifier[1]
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True) @ masks(), np.float32)


def odds(shared: Array) -> Array:
    """float32 [..., 2] of `shares` -> [..., 1]: the logarithm of dogs against cats."""
    logarithms = np.log(np.maximum(shared, SMALLEST))
    return np.asarray(logarithms[..., 1:] - logarithms[..., :1], np.float32)


def with_odds(features: Array, classifier: tuple[Array, Array], rows: int = 4096) -> Array:
    """float32 [photos, views, features] -> [photos, views, features + 1]: the odds as one more feature."""
    parts = [features[start : start + rows] for start in range(0, len(features), rows)]
    found = [odds(shares(part, classifier)) for part in parts]
    return np.concatenate([features, np.concatenate(found)], axis=-1)


def graph(features: Any, classifier: tuple[Array, Array]) -> tuple[Any, Any]:
    """TensorFlow: pooled features [batch, features] -> the odds [batch, 1] and the sum of both shares [batch]."""
    import tensorflow as tf

    logits = tf.nn.bias_add(tf.matmul(features, tf.constant(classifier[0])), tf.constant(classifier[1]))
    shared = tf.matmul(tf.nn.softmax(logits), tf.constant(masks()))
    directions = np.array([[-1.0], [1.0]], np.float32)
    logarithms = tf.math.log(tf.maximum(shared, SMALLEST))
    # Rounding can take a sum of probabilities a hair above 1, where a score would no longer be one.
    return tf.matmul(logarithms, tf.constant(directions)), tf.minimum(tf.reduce_sum(shared, axis=1), 1.0)
