"""Finds how photos are prepared for a model: the way that gives the known answers, or the usual one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.importing.network import (
    Activation,
    ImportProblem,
    Network,
    Numbers,
    OpenQuestion,
    counted,
    prepare,
    probabilities,
)
from tools.importing.photos import Photo
from tools.importing.source import Source
from tools.importing.ways import SCALES, WAYS, Candidate, Wanted, fitted

# The allowed difference from a known probability, in addition to half of its last digit.
TOLERANCE = 1e-3
# One photo is enough only if an invented answer would be less likely to match one of the ways.
_MOST_CHANCE = 0.05
# How many of the nearest ways are tried on every photo, also if they are off: the error names the nearest.
_KEPT = 20
_AT_A_TIME = 16


@dataclass(frozen=True)
class Said(Photo):
    """A photo, and the answer of the author's own script for it. `half_digit`: the largest error by rounding."""

    label: str
    probability: float
    half_digit: float


def measure(
    network: Network,
    output: str,
    activation: Activation,
    ways: Sequence[Candidate],
    labels: Sequence[str],
    said: Sequence[Said],
    progress: Callable[[Sequence[Any]], Any] = iter,
) -> NDArray[np.float64]:
    """Return the differences from the known answers beyond rounding, ``[ways, photos]``.

    A way that is off for one photo is not tried on the next, unless it is one of the nearest. Its difference is then
    infinite.
    """
    errors = np.full((len(ways), len(said)), np.inf)
    rows = list(range(len(ways)))
    for column, photo in enumerate(said):
        answers = _answers(network, output, activation, [ways[row] for row in rows], photo.image, progress)
        for row in rows:
            way = ways[row]
            order = list(reversed(labels)) if way.reverse else list(labels)
            probability = answers[way.resize, way.numbers][order.index(photo.label)]
            errors[row, column] = max(0.0, abs(probability - photo.probability) - photo.half_digit)
        worst = errors[:, : column + 1].max(axis=1)
        rows = [row for row in np.argsort(worst, kind="stable")[:_KEPT].tolist() if np.isfinite(worst[row])]
        rows += [row for row in np.flatnonzero(worst <= TOLERANCE).tolist() if row not in rows]
    return errors


def _answers(
    network: Network,
    output: str,
    activation: Activation,
    ways: Sequence[Candidate],
    image: Image.Image,
    progress: Callable[[Sequence[Any]], Any],
) -> dict[tuple[str, Numbers], NDArray[np.float64]]:
    """Return the probabilities of a photo for each way to prepare it. One answer serves both orders of the labels."""
    resized = {
        key: way.pixels(image) for key, way in {(way.resize, way.numbers.grey_photo): way for way in ways}.items()
    }
    inputs = list(dict.fromkeys((way.resize, way.numbers) for way in ways))
    answers: dict[tuple[str, Numbers], NDArray[np.float64]] = {}
    for start in progress(range(0, len(inputs), _AT_A_TIME)):
        keys = inputs[start : start + _AT_A_TIME]
        pixels = [resized[name, numbers.grey_photo] for name, numbers in keys]
        values = np.stack([prepare(one, key[1], network.spec.channels) for one, key in zip(pixels, keys, strict=True)])
        answers |= zip(keys, probabilities(network.run(values)[output], activation), strict=True)
    return answers


def search(
    ways: Sequence[Candidate], errors: NDArray[np.float64], hint: str | None, usual_way: Candidate | None = None
) -> tuple[Candidate, list[str]]:
    """Return the way that reproduces the known answers, and what was still assumed.

    Args:
        errors: from ``measure``.
        hint: the scale that the first batch normalisation suggests.
        usual_way: is returned if it is one of several that fit a single photo.

    Raises:
        ImportProblem: no way reproduces them.
        OpenQuestion: several ways do, and they differ in more than the filter; the message names the option to decide.
    """
    worst = errors.max(axis=1)
    best = int(worst.argmin())
    if worst[best] > TOLERANCE:
        nearest = ways[best]
        raise ImportProblem(
            "no known way to prepare photos gives the known answers: the nearest is "
            f"--resize {nearest.resize} --scale {nearest.scale} --order {nearest.order}, off by {worst[best]:.4f}. "
            "Check that photos, labels and percentages are right"
        )
    # If one way agrees far better than the rest, it is the right one: two decimals rarely agree by chance.
    limit = min(TOLERANCE, max(4 * worst[best], 1e-4))
    left = [way for way, error in zip(ways, worst, strict=True) if error <= limit]
    if hint is not None and len({way.scale for way in left}) > 1 and any(way.scale == hint for way in left):
        left = [way for way in left if way.scale == hint]
    if open_options := _open(left):
        decisions = [f"{option} {'|'.join(choices)}" for option, choices in open_options.items()]
        (option, choices), *_ = open_options.items()
        raise OpenQuestion(
            f"{len(left)} ways to prepare photos give the known answers; decide by {' and '.join(decisions)}, or give "
            "another photo that is not square and has a less certain answer",
            option,
            choices,
        )
    chosen = ways[best] if ways[best] in left else left[0]
    if errors.shape[1] == 1 and usual_way is not None and usual_way in left:
        chosen = usual_way
    others = sorted({way.resize for way in left} - {chosen.resize})
    assumed = [f"--resize {chosen.resize}, the nearest; {', '.join(others)} fit as well"] if others else []
    return chosen, assumed


def check_evidence(way: Candidate, usual_way: Candidate, ways: Sequence[Candidate], said: Sequence[Said]) -> None:
    """Raise OpenQuestion if `way` may match the known answers by chance: one photo, and many ways that were tried.

    An invented answer is near the answer of one way with a probability of twice the tolerance, and near one of n ways
    with at most n times that. The way that is usual for the format needs no more evidence.
    """
    tried = {_key(one) for one in ways}
    chance = len(tried) * 2 * (TOLERANCE + said[0].half_digit)
    if len({one.data for one in said}) > 1 or _key(way)[:-1] == _key(usual_way)[:-1] or chance <= _MOST_CHANCE:
        return
    options = _open(ways) or {"--resize": sorted({one.resize for one in ways})}
    (option, choices), *_ = options.items()
    raise OpenQuestion(
        f"--resize {way.resize} --scale {way.scale} --order {way.order} gives the known answer, but perhaps by "
        f"chance: one photo can't decide between {counted(len(tried), 'way')} to prepare photos. Give a second one by "
        f"--photo and --says, or the options that you know ({', '.join(options)})",
        option,
        choices,
    )


def _key(way: Candidate) -> tuple[str, str, str, bool, bool]:
    """Return what tells ways apart. The numbers of one scale are nearly the same."""
    return way.resize, way.scale, way.order, way.numbers.grey_photo, way.reverse


def _open(left: Sequence[Candidate]) -> dict[str, list[str]]:
    """Return the options that decide between these ways, with the possible values of each."""
    groups = {way.name: way.group for way in WAYS}
    found = {
        "--resize": sorted({groups.get(way.resize, way.resize) for way in left}),
        "--scale": sorted({way.scale for way in left}),
        "--order": sorted({way.order for way in left}),
    }
    return {option: values for option, values in found.items() if len(values) > 1}


def scale_by_statistics(
    network: Network, images: Sequence[Image.Image], width: int, height: int
) -> tuple[str, str] | None:
    """Return the scale with which photos best match the first batch normalisation's statistics, and the reason as text.

    None if there is no batch normalisation, or if no scale is clearly the nearest.
    """
    pixels = np.stack([fitted(image, width, height) for image in images])
    distances = {}
    for name, several in SCALES.items():
        statistics = network.first_norm(
            prepare(pixels, replace(several[0], bgr=name == "caffe"), network.spec.channels)
        )
        if statistics is None or not np.all(np.isfinite(statistics.mean)):
            return None
        spread = np.sqrt(statistics.expected_variance + 1e-3)
        shift = np.abs(statistics.mean - statistics.expected_mean) / spread
        ratio = np.abs(np.log((statistics.variance + 1e-3) / (statistics.expected_variance + 1e-3)))
        distances[name] = float(np.median(shift) + np.median(ratio))
    (nearest, least), (_, second) = sorted(distances.items(), key=lambda item: item[1])[:2]
    if least > 2 or second < 1.5 * least:
        return None
    return nearest, f"its first batch normalisation: distance {least:.2f} with this scale, {second:.2f} with the next"


def is_teachable_machine(source: Source) -> bool:
    """Return whether the files have the names and content of an export of Teachable Machine."""
    if source.kind == "model.json":
        path = source.beside("metadata.json")
        return path is not None and b"teachablemachine" in path.read_bytes()[:100_000]
    named = source.path.name in ("keras_model.h5", "model.savedmodel", "model_unquant.tflite", "model.tflite")
    path = source.beside("labels.txt")
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path is not None and named else []
    lines = [line for line in lines if line.strip()]
    return bool(lines) and all(line.startswith(f"{number} ") for number, line in enumerate(lines))


def usual(
    network: Network, source: Source, ways: Sequence[Candidate], wanted: Wanted, measured: tuple[str, str] | None
) -> tuple[Candidate, list[str], list[str]]:
    """Return the way to prepare photos if no known answers are given, what was found, and what is assumed."""
    found, assumed = [], []
    theirs = is_teachable_machine(source)
    torch = network.format == "ONNX" and network.spec.channels_first
    name, scale = (
        ("crop-lanczos", "-1..1")
        if theirs
        else ("resize-crop-bilinear", "imagenet")
        if torch
        else ("stretch-tensorflow", "0..1")
    )
    why = "as Teachable Machine does" if theirs else "as PyTorch's users do" if torch else "as Keras' users do"
    if wanted.config is not None:
        found.append("resize: preprocessor_config.json")
    elif wanted.resize is None:
        assumed.append(f"--resize {name}, {why}")
    if wanted.numbers is not None:
        found.append("scale: as given")
    elif wanted.scale is None:
        if np.dtype(network.spec.dtype).kind in "ui":
            scale = "0..255"
            found.append("--scale 0..255: its input has whole numbers")
        elif network.scales_itself:
            scale = "0..255"
            found.append(f"--scale 0..255: {network.scales_itself}")
        elif measured is not None and not theirs:
            scale = measured[0]
            found.append(f"--scale {scale}: {measured[1]}")
        else:
            assumed.append(f"--scale {scale}, {why}")
    order = wanted.order or ("bgr" if scale == "caffe" else "rgb")
    if network.spec.channels == 3 and wanted.order is None and wanted.config is None:
        assumed.append(f"--order {order}")
    left = [way for way in ways if way.order == order or network.spec.channels == 1]
    left = [way for way in left if way.resize == name] or left
    left = [way for way in left if way.scale == scale] or left
    return left[0], found, assumed
