"""Leaves out copies of photos, and splits the rest into training and validation."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.photos import Photo
from tools.training.backbone.features import Features, Values
from tools.training.dataset.folders import counted, named
from tools.training.dataset.near_duplicates import near_duplicates
from tools.training.run import Numbers, Part, TrainError

# Photos that a class needs in all, and in each part.
FEWEST_PHOTOS = 10
FEWEST_TRAINING, FEWEST_VALIDATION = 6, 2
# Below this number of training photos in a class, the user is told that the figures may change.
FEW_PHOTOS = 50
_MIX = np.uint64(0x9E3779B97F4A7C15)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """The two parts, and sentences for the user: what was left out, and which classes have few photos."""

    training: Part
    validation: Part
    notes: list[str]
    few: list[str]


def split(labels: Sequence[str], found: Features, share: float, seed: int) -> Split:
    """Split photos, so that `share` of each class is for validation and near-duplicates are on one side.

    The same photos are chosen again with the same `seed`, also after others were added.

    Raises:
        TrainError: a class has too few photos.
    """
    kept, notes = _without_copies(labels, found)
    photos = [photo for photo, keep in zip(found.photos, kept, strict=True) if keep]
    values, digests = found.values[kept], found.digests[kept]
    classes = np.array([photo.label for photo in photos], np.int64)
    _check(labels, classes, FEWEST_PHOTOS, "photos that can be read and are no copies", notes)
    groups = near_duplicates(values, found.sketches[kept])
    notes += _alike(labels, photos, groups)
    order = _scrambled(digests, seed)
    held = _choose(classes, groups, order, share)
    # Of a camera that never moves, all photos are alike.
    if alike := _badly_split(classes, held):
        notes.append(
            f"most photos of {named([labels[number] for number in alike])} are near-duplicates, so they are on both "
            "sides of the split: the figures hold for photos like these only"
        )
        groups = np.arange(len(photos))
        held = _choose(classes, groups, order, share)
    training, validation = (_part(photos, values, groups, chosen) for chosen in (~held, held))
    return Split(training, validation, notes, _few(labels, training.classes))


def given(labels: Sequence[str], training: Features, validation: Features) -> Split:
    """Use the split that the folders have. Copies of validation photos are left out of training.

    Raises:
        TrainError: a class has too few photos.
    """
    kept, notes = _without_copies(labels, training)
    copied = kept & np.isin(training.digests, validation.digests)
    if copied.any():
        notes.append(f"{counted(int(copied.sum()), 'photo')} in training and in validation: left out of training")
    kept &= ~copied
    photos = [photo for photo, keep in zip(training.photos, kept, strict=True) if keep]
    values = training.values[kept]
    count = len(photos)
    # View 1 exists in both or in neither.
    groups = near_duplicates(
        np.concatenate([values, validation.values]), np.concatenate([training.sketches[kept], validation.sketches])
    )
    both = np.isin(groups[count:], groups[:count])
    if both.any():
        notes.append(
            f"{both.sum()} of {len(both)} validation photos are near-duplicates of training photos: the figures are "
            "too good"
        )
    every = np.ones(count, bool)
    learned = _part(photos, values, groups[:count], every)
    held = _part(validation.photos, validation.values, groups[count:], np.ones(len(both), bool))
    _check(labels, learned.classes, FEWEST_PHOTOS - FEWEST_VALIDATION, "photos for training", notes)
    _check(labels, held.classes, FEWEST_VALIDATION, "photos for validation", [])
    return Split(learned, held, notes, _few(labels, learned.classes))


def _part(photos: Sequence[Photo], values: Values, groups: Numbers, chosen: Flags) -> Part:
    return Part([photo for photo, keep in zip(photos, chosen, strict=True) if keep], values[chosen], groups[chosen])


def _without_copies(labels: Sequence[str], found: Features) -> tuple[Flags, list[str]]:
    """Return bool [photos]: not for further copies of a photo in its class, nor for a photo in several classes."""
    kept = np.ones(len(found.photos), bool)
    by_digest: defaultdict[int, list[int]] = defaultdict(list)
    for number, digest in enumerate(found.digests.tolist()):
        by_digest[digest].append(number)
    copies: list[str] = []
    notes = []
    for numbers in by_digest.values():
        if len(numbers) == 1:
            continue
        same = [found.photos[number] for number in numbers]
        classes = sorted({photo.label for photo in same})
        if len(classes) > 1:
            kept[numbers] = False
            notes.append(
                f"the same photo is in {named([labels[number] for number in classes])}, and left out: "
                + ", ".join(str(photo.path) for photo in same)
            )
        else:
            kept[numbers[1:]] = False
            copies += [str(photo.path) for photo in same[1:]]
    if copies:
        verb = "copy of another photo of its" if len(copies) == 1 else "copies of other photos of their"
        notes.append(f"{len(copies)} {verb} class left out: {named(copies)}")
    return kept, notes


def _alike(labels: Sequence[str], photos: Sequence[Photo], groups: Numbers) -> list[str]:
    """Return notes about near-duplicates."""
    sizes = Counter(groups.tolist())
    several = sum(size for size in sizes.values() if size > 1)
    notes = [f"{several} photos are near-duplicates of others: kept on one side of the split"] if several else []
    members: defaultdict[int, list[Photo]] = defaultdict(list)
    for photo, group in zip(photos, groups.tolist(), strict=True):
        if sizes[group] > 1:
            members[group].append(photo)
    for same in members.values():
        first = {photo.label: photo for photo in reversed(same)}
        if len(first) > 1:
            pair = " and ".join(f"{first[number].path} ({labels[number]!r})" for number in sorted(first)[:2])
            notes.append(f"near-duplicates in different classes: {pair}")
    return notes


def _scrambled(digests: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return a random number for each photo, which depends on nothing but its bytes and the seed."""
    with np.errstate(over="ignore"):
        mixed = (digests ^ np.uint64(seed % 2**64)) * _MIX
        return np.asarray((mixed ^ (mixed >> np.uint64(29))) * _MIX)


def _choose(classes: Numbers, groups: Numbers, order: NDArray[np.uint64], share: float) -> Flags:
    """Return bool [photos]: those for validation."""
    wanted = {label: max(FEWEST_VALIDATION, round(share * size)) for label, size in Counter(classes.tolist()).items()}
    members: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups.tolist()):
        members[group].append(number)
    held = np.zeros(len(classes), bool)
    for numbers in sorted(members.values(), key=lambda numbers: int(order[numbers].min())):
        counts = Counter(classes[numbers].tolist())
        if all(wanted[label] >= count for label, count in counts.items()):
            held[numbers] = True
            wanted = {label: count - counts[label] for label, count in wanted.items()}
    return held


def _badly_split(classes: Numbers, held: Flags) -> list[int]:
    """Return the classes with too few photos in one part."""
    training, validation = (np.bincount(classes[chosen], minlength=classes.max() + 1) for chosen in (~held, held))
    return np.flatnonzero((training < FEWEST_TRAINING) | (validation < FEWEST_VALIDATION)).tolist()


def _check(labels: Sequence[str], classes: Numbers, fewest: int, what: str, notes: Sequence[str]) -> None:
    """Raise TrainError if a class has too few photos. It tells of `notes` what was left out, these classes first."""
    counts = np.bincount(classes, minlength=len(labels))
    short = [f"{label!r} has {count}" for label, count in zip(labels, counts, strict=True) if count < fewest]
    if short:
        shown = ", ".join(short[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")
        few = [repr(label) for label, count in zip(labels, counts, strict=True) if count < fewest]
        first = sorted(notes, key=lambda note: not any(label in note for label in few))
        more = [f"and {len(first) - 5} more like these"] if len(first) > 5 else []
        raise TrainError("; ".join([f"each class needs at least {fewest} {what}: {shown}", *first[:5], *more]))


def _few(labels: Sequence[str], classes: Numbers) -> list[str]:
    counts = np.bincount(classes, minlength=len(labels))
    few = [label for label, count in zip(labels, counts, strict=True) if count < FEW_PHOTOS]
    if not few:
        return []
    return [
        f"{named(few)} {'has' if len(few) == 1 else 'have'} fewer than {FEW_PHOTOS} photos for training: trust the "
        "model only for photos like these, and add photos of other places, times and cameras"
    ]
