"""Weighted two-class logistic regression with an L2 penalty, by Newton's method. It uses only numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Newton's method converges quadratically: here after 6 to 10 steps.
MAX_STEPS = 30
TOLERANCE = 1e-3


@dataclass(frozen=True)
class LinearHead:
    """Logit of the second class = features @ `kernel` + `bias`; `kernel` is float64 [features]."""

    kernel: NDArray[np.float64]
    bias: float

    def logits(self, features: Array) -> NDArray[np.float64]:
        """float [n, features] -> float64 [n]; above 0 is the second class."""
        return np.asarray(features @ self.kernel + self.bias, np.float64)


@dataclass(frozen=True)
class Scaler:
    """Scales each feature to mean 0 and deviation 1, so that one penalty fits all of them."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, features: Array) -> "Scaler":
        """Return the scaler for float32 `features` [n, features]."""
        deviation = features.std(axis=0)
        # The minimum avoids a division by zero for a constant feature.
        return cls(features.mean(axis=0), np.maximum(deviation, 1e-3, dtype=np.float32))

    def apply(self, features: Array) -> Array:
        """Return a scaled copy of float32 `features` [n, features]."""
        return (features - self.mean) / self.deviation

    def redo(self, head: LinearHead) -> LinearHead:
        """Convert a head for unscaled features to one for scaled features; the inverse of `undo`."""
        return LinearHead(head.kernel * self.deviation, head.bias + float(self.mean @ head.kernel))

    def undo(self, head: LinearHead) -> LinearHead:
        """Convert a head for scaled features to one for unscaled features."""
        kernel = head.kernel / self.deviation
        return LinearHead(kernel, head.bias - float(self.mean @ kernel))


def fit_path(
    features: Array,
    second: NDArray[np.bool_],
    weights: Array,
    penalties: Sequence[float],
    start: LinearHead | None = None,
) -> list[LinearHead]:
    """Return for each penalty the head that minimises sum(weights * log loss) + penalty / 2 * |kernel|^2.

    `features` float32 [n, features] are scaled; `second` bool [n] marks the photos of the second class; `weights`
    float32 [n] sum to 1. The bias is not penalised. Each fit starts from the result of the last one, so strong
    penalties should come first. `start`, a head near the first result, saves steps.
    """
    solution = np.append(start.kernel, start.bias) if start else np.zeros(features.shape[1] + 1)
    heads = []
    for penalty in penalties:
        for _ in range(MAX_STEPS):
            step = _newton_step(features, second, weights, penalty, solution)
            solution = solution - step
            if np.abs(step).max() < TOLERANCE:
                break
        heads.append(LinearHead(solution[:-1], float(solution[-1])))
    return heads


def _newton_step(
    features: Array, second: NDArray[np.bool_], weights: Array, penalty: float, solution: NDArray[np.float64]
) -> NDArray[np.float64]:
    logits = features @ solution[:-1].astype(np.float32) + np.float32(solution[-1])
    probability = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    residual = weights * (probability - second)
    curvature = weights * probability * (1 - probability)
    gradient = np.append(features.T @ residual + penalty * solution[:-1], residual.sum())
    scaled = features * np.sqrt(curvature)[:, None]
    hessian = np.empty((gradient.size, gradient.size))
    hessian[:-1, :-1] = scaled.T @ scaled
    hessian[:-1, -1] = hessian[-1, :-1] = features.T @ curvature
    hessian[-1, -1] = curvature.sum() + 1e-9
    hessian[np.arange(gradient.size - 1), np.arange(gradient.size - 1)] += penalty
    return np.asarray(np.linalg.solve(hessian, gradient), np.float64)
