"""Left-out classes: how well each score that was tried tells them from the classes that a head was trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tools.evaluation.measures import auroc
from tools.evaluation.trained_models.splits import Photos
from tools.training.head.domain import DomainScore, directions, fit_domain, fit_neighbours, length_1
from tools.training.head.softmax_head import fit_head
from tools.training.run import Array, Numbers

FEW = 10
SHIPPED = "shipped: both, and the energy"


@dataclass(frozen=True)
class Trial:
    """Numbers of photos: `training` with the number of each one's class, `inside` (validation) and `outside`."""

    training: Numbers
    classes: Numbers
    inside: Numbers
    outside: Mapping[str, Numbers]


def trials(found: Photos) -> Iterator[tuple[str, Trial]]:
    """Yield the name and the trials of each group. In a group of left-out classes there is one trial per class."""
    kinds = sorted(set(found.kinds) - {""})
    mixed = np.where(found.kinds == "", found.animals, found.kinds)
    neither = {name: np.flatnonzero(found.kinds == name) for name in kinds}
    for few, suffix in ((None, ""), (FEW, f", {FEW} photos per class")):
        for name, labels in (("5 kinds, one left out", found.kinds), ("5 kinds, cats, dogs, one left out", mixed)):
            known = sorted(set(labels) - {""})
            for left_out in known:
                outside = {left_out: np.flatnonzero(labels == left_out)}
                yield name + suffix, _trial(found, labels, [one for one in known if one != left_out], few, outside)
        yield f"cats and dogs, kinds outside{suffix}", _trial(found, found.animals, ["cat", "dog"], few, neither)
    sources = sorted(set(found.sources) - {""})
    yield "7 sources, kinds outside", _trial(found, found.sources, sources, None, neither)


def _trial(found: Photos, labels: Array, known: list[str], few: int | None, outside: Mapping[str, Numbers]) -> Trial:
    random = np.random.default_rng(1)
    training = [random.permutation(np.flatnonzero((labels == name) & ~found.validation))[:few] for name in known]
    classes = np.repeat(np.arange(len(known)), [len(rows) for rows in training])
    inside = np.flatnonzero(np.isin(labels, known) & found.validation)
    return Trial(np.concatenate(training), classes, inside, outside)


def areas(found: Photos, trial: Trial, imagenet: tuple[Array, Array]) -> dict[str, dict[str, float]]:
    """Return for each score the AUROC of each group outside; also the share of each group that is flagged."""
    training = found.part(trial.training, trial.classes)
    inside = found.part(trial.inside, np.zeros(len(trial.inside), np.int64))
    head = fit_head(training, int(trial.classes.max()) + 1)
    domain = fit_domain(training, inside, head, imagenet[0])
    values = scores(found.rounded[:, 0].astype(np.float32), training.served(), trial.classes, domain, imagenet)
    result = {
        name: {group: auroc(value[trial.inside], value[rows]) for group, rows in trial.outside.items()}
        for name, value in values.items()
    }
    told = values[SHIPPED] < domain.threshold
    result["flagged, shipped"] = {group: float(told[rows].mean()) for group, rows in trial.outside.items()}
    return result


def scores(
    features: Array, training: Array, classes: Numbers, domain: DomainScore, imagenet: tuple[Array, Array]
) -> dict[str, Array]:
    """Return the scores that were tried, [photos] each, of `features` [photos, features]."""
    measures = domain.measures(features)
    unit, known = length_1(features), length_1(training)
    means = np.stack([known[classes == number].mean(0) for number in np.unique(classes)])
    basis = directions(imagenet[0])
    raw = fit_neighbours((training @ basis)[:, None], classes, 1, np.eye(basis.shape[1], dtype=np.float32), 0)
    own = softmax(training @ imagenet[0] + imagenet[1])
    highest = np.stack([own[classes == number].mean(0) for number in np.unique(classes)]).max(0)
    return {
        "largest probability": softmax(domain.head.logits(features)).max(1),
        "energy": measures[:, 2],
        "ImageNet's probability of what the classes show": softmax(features @ imagenet[0] + imagenet[1])
        @ (highest / (highest + 0.01)),
        "cosine to the nearest mean": (unit @ length_1(means).T).max(1),
        "cosine to the nearest photo": (unit @ known.T).max(1),
        "cosine to the nearest of 256 prototypes": measures[:, 0],
        "Mahalanobis distance, raw features": raw.measures(features @ basis)[:, 1],
        "Mahalanobis distance, features of length 1": measures[:, 1],
        "prototypes and Mahalanobis": measures[:, :2] @ domain.weights[:2],
        SHIPPED: domain.scores(features),
    }


def softmax(logits: Array) -> Array:
    """Return probabilities, [photos, classes]."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)
