"""The head: a logistic regression whose penalty and temperature are chosen on sources that it was not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tools.evaluation.measures import Proportion, by_group
from tools.training.backbone import features
from tools.training.backbone.efficientnet_lite import Network
from tools.training.cats_and_dogs import animals
from tools.training.cats_and_dogs.logistic import LinearHead, Scaler, fit_path

Array = NDArray[np.float32]

# ImageNet's odds are scaled to this deviation, the other features to 1, so the penalty hardly affects the odds. Of 1, 3
# and 10 this has the best mean accuracy over left-out sources.
ODDS_STRENGTH = 10.0

# Candidates for the temperature, in steps of 2 %.
TEMPERATURES = np.geomspace(0.2, 5.0, 163)


class HeadError(Exception):
    """No head can be chosen; the message says why."""


@dataclass(frozen=True)
class Examples:
    """The input of the head: `values` float32 [photos, views, features], `second` bool [photos], `sources` [photos]."""

    values: Array
    second: NDArray[np.bool_]
    sources: NDArray[np.object_]

    @classmethod
    def of(cls, found: features.Features, network: Network | None) -> "Examples":
        """Return the photos of `found`. The last feature is the odds of `network`'s classifier, 0 without a network."""
        second = np.array([photo.label == 1 for photo in found.photos])
        if network:
            values = animals.with_odds(found.values.astype(np.float32), animals.Classifier.of(network.classifier))
        else:
            # A constant feature has no effect on the head.
            values = np.pad(found.values.astype(np.float32), ((0, 0), (0, 0), (0, 1)))
        return cls(values, second, np.array([photo.source for photo in found.photos], object))

    def where(self, chosen: NDArray[np.bool_]) -> "Examples":
        """Return only the `chosen` photos."""
        return Examples(self.values[chosen], self.second[chosen], self.sources[chosen])

    def first_views(self, count: int) -> "Examples":
        """Return only the first `count` views. View 0 is the photo as it is served."""
        return Examples(self.values[:, :count], self.second, self.sources)

    @property
    def both_classes(self) -> bool:
        """Whether there are photos of both classes."""
        return bool(self.second.any() and not self.second.all())


def photo_weights(examples: Examples, exponent: float) -> Array:
    """Return float32 [photos] with sum 1. Each class gets half; a source of n photos counts as n ** `exponent`.

    With 1 every photo has the same weight, and large sources dominate. With 0 every source has the same weight.
    """
    weights = np.zeros(len(examples.second), np.float64)
    for source in set(examples.sources):
        members = examples.sources == source
        weights[members] = float(members.sum()) ** (exponent - 1)
    for members in (examples.second, ~examples.second):
        weights[members] *= 0.5 / weights[members].sum()
    return weights.astype(np.float32)


def fit_heads(
    examples: Examples, exponent: float, penalties: Sequence[float], start: LinearHead | None = None
) -> list[LinearHead]:
    """Return one head per penalty for unscaled features, fitted on all views; `start` is a head near the first one."""
    count = examples.values.shape[1]
    flat = examples.values.reshape(-1, examples.values.shape[2])
    scaler = Scaler.of(flat)
    scaler.deviation[-1] /= ODDS_STRENGTH
    weights = np.repeat(photo_weights(examples, exponent) / count, count)
    near = scaler.redo(start) if start else None
    heads = fit_path(scaler.apply(flat), np.repeat(examples.second, count), weights, penalties, near)
    return [scaler.undo(head) for head in heads]


def hits(head: LinearHead, examples: Examples) -> NDArray[np.bool_]:
    """Return bool [photos]: whether the head is right on view 0, the photo as it is served."""
    return np.asarray((head.logits(examples.values[:, 0]) > 0) == examples.second)


def leave_one_source_out(
    examples: Examples, exponent: float, penalties: Sequence[float], starts: Sequence[LinearHead]
) -> list[NDArray[np.float64]]:
    """Return for each penalty the logits [photos]. Each photo's head was fitted on all sources except the photo's own.

    NaN if a class has no photos without that source. `starts` are heads near the results.
    """
    results = [np.full(len(examples.second), np.nan) for _ in penalties]
    for source in tqdm(sorted(set(examples.sources)), desc="leave one source out", unit="source"):
        held_out = examples.sources == source
        rest = examples.where(~held_out)
        if rest.both_classes:
            for result, head in zip(results, fit_heads(rest, exponent, penalties, starts[0]), strict=True):
                result[held_out] = head.logits(examples.values[held_out, 0])
    return results


def source_accuracies(examples: Examples, logits: NDArray[np.float64]) -> dict[str, Proportion]:
    """Return the accuracy of `logits` [photos] for each source; NaNs are ignored."""
    known = ~np.isnan(logits)
    right = (logits > 0) == examples.second
    return by_group(right[known], list(examples.sources[known]))


def temperature(examples: Examples, logits: NDArray[np.float64], exponent: float) -> float:
    """Return the divisor of logits with the least log loss on left-out photos (Guo et al. 2017, arXiv:1706.04599)."""
    known = ~np.isnan(logits)
    weights = photo_weights(examples, exponent)[known]
    signed = np.where(examples.second[known], logits[known], -logits[known])
    losses = [float(weights @ np.logaddexp(0, -signed / degree)) for degree in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def mean_accuracy(result: dict[str, Proportion]) -> float:
    """Return the unweighted mean over the sources, 0 to 1."""
    return sum(share.value for share in result.values()) / len(result)


@dataclass(frozen=True)
class Chosen:
    """The head for all sources, its penalty and temperature, and the accuracy on left-out sources (may be empty)."""

    head: LinearHead
    penalty: float
    temperature: float
    left_out: dict[str, Proportion]


def choose_head(examples: Examples, exponent: float, penalties: Sequence[float]) -> Chosen:
    """Return the head with the penalty that is best on left-out sources, and the temperature fitted there."""
    ordered = sorted(penalties, reverse=True)
    heads = fit_heads(examples, exponent, ordered)
    logits = leave_one_source_out(examples, exponent, ordered, heads) if len(set(examples.sources)) > 1 else []
    results = [source_accuracies(examples, values) for values in logits]
    if not any(results):
        if len(ordered) > 1:
            raise HeadError("choosing a penalty needs an INDEX.csv with several sources: give one --penalty instead")
        return Chosen(heads[0], ordered[0], 1.0, {})
    # Of equally good penalties the strongest: max returns the first.
    best = max(range(len(ordered)), key=lambda number: mean_accuracy(results[number]))
    for penalty, result in zip(ordered, results, strict=True):
        print(f"penalty {penalty:<8g} mean over left-out sources {mean_accuracy(result):.2%}")
    degree = temperature(examples, logits[best], exponent)
    return Chosen(heads[best], ordered[best], degree, results[best])
