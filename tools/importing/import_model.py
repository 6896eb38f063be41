"""Imports a model file as a version folder: finds its properties, asks for the rest, writes and compares."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tools.importing import recipes
from tools.importing.frameworks.graph import tensorflow
from tools.importing.labels import check_count, check_repeated, find_labels
from tools.importing.network import (
    SEEN,
    Export,
    ImportProblem,
    Network,
    Numbers,
    choose_activation,
    choose_output,
    classes_of,
    counted,
    prepare,
)
from tools.importing.photos import Photo, made_photos, read_photo, sample_images
from tools.importing.recipes import Said
from tools.importing.source import Source, load, opened
from tools.importing.version_folder import write_version
from tools.importing.ways import Candidate, Wanted, candidates, fitted, given_config, wanted_of
from tools.training.export import folder_written_beside, next_version

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Options:
    """The options of the command line. None: the import finds the value."""

    path: Path
    models: Path
    name: str | None = None
    version: int | None = None
    labels: Path | None = None
    said: Sequence[tuple[Path, str]] = ()
    output: str | None = None
    signature: str | None = None
    activation: str | None = None
    size: tuple[int, int] | None = None
    wanted: Wanted = field(default_factory=Wanted)


@dataclass
class Report:
    """What was found and assumed, and the result."""

    format: str
    name: str
    target: Path
    labels: Sequence[str]
    found: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    difference: str = ""


def import_model(options: Options, step: Callable[[str], object]) -> Report:
    """Import the model at `options.path`.

    Args:
        step: called with the name of each step when it begins.

    Raises:
        ImportProblem: the model can't be imported, or needs another option.
        ExportError: the folder can't be written.
    """
    with opened(options.path) as source:
        # All that is known without the model is checked before it is loaded, which may take a minute.
        name, target = _target(options, source)
        wanted = wanted_of(options.wanted, source)
        found = find_labels(source, options.labels)
        if found is not None:
            check_repeated(*found)
        said = [_said(read_photo(path), text, found[0] if found else None) for path, text in options.said]
        step(f"Loading {source.path.name}")
        tensorflow()
        network = load(source, options.signature)
        report = Report(network.format, name, target, [], assumed=list(source.assumed), notes=list(network.notes))
        width, height = _size(options, network, source)
        export, labels = _read_output(options, network, found, (width, height), report)
        way = _decide(wanted, network, export, labels, said, source, report, step)
        if way.reverse:
            labels = list(reversed(labels))
        report.labels = labels
        export = replace(export, numbers=way.numbers, pixels=way.config.get("resize_dtype", "uint8"))
        step("Writing and comparing")
        with folder_written_beside(target) as folder:
            report.difference, notes = write_version(network, folder, export, way, labels, said)
            report.notes += notes
    return report


def _target(options: Options, source: Source) -> tuple[str, Path]:
    name = options.name
    if name is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip("-._") or "model"
    if not _NAME.fullmatch(name):
        raise ImportProblem(f"--name {name!r} is not a valid name: use letters, digits, '.', '_' and '-'")
    folder = options.models / name
    target = folder / str(options.version or next_version(folder))
    if target.exists():
        raise ImportProblem(f"{target} exists already: choose another --version or move it away")
    return name, target


def _size(options: Options, network: Network, source: Source) -> tuple[int, int]:
    spec = network.spec
    width, height = options.size or (spec.width, spec.height)
    if width is None or height is None:
        config = given_config(source)
        if config is None:
            raise ImportProblem("it accepts photos of any size: give the size of its training, such as --size 224x224")
        geometry = config.geometry()
        width, height = geometry.width, geometry.height
    if (spec.width or width, spec.height or height) != (width, height):
        raise ImportProblem(f"--size {width}x{height} does not fit its input, {spec.width}x{spec.height}")
    return width, height


def _read_output(
    options: Options,
    network: Network,
    found: tuple[list[str], str] | None,
    size: tuple[int, int],
    report: Report,
) -> tuple[Export, list[str]]:
    """Find the output with the classes, the function that turns it into probabilities, and check the labels `found`."""
    width, height = size
    pixels = np.stack([fitted(photo.image, width, height) for photo in made_photos()])
    likely = Numbers() if network.scales_itself else Numbers(1 / 127.5, (1.0,) * 3)
    answers = network.run(prepare(pixels, likely, network.spec.channels))
    output = choose_output(network, options.output, len(found[0]) if found else None, answers)
    activation, why = choose_activation(network, output, options.activation, answers[output])
    values = classes_of(answers[output].shape) or 1
    classes = 2 if values == 1 else values
    if found is None:
        single = ": two labels, the second one is for the value 1" if values == 1 else ""
        raise ImportProblem(f"it has {classes} classes and no labels: add --labels FILE, one per line{single}")
    labels, where = found
    check_count(labels, where, classes)
    spec = network.spec
    order = "channels first" if spec.channels_first else "channels last"
    report.found += [
        f"input {width}x{height}, {'grey' if spec.channels == 1 else 'colour'}, {order}, {spec.dtype}",
        f"labels from {where}",
    ]
    # Rows whose sum is 1 are probabilities. The rest is a guess, which known answers confirm.
    known = why != SEEN or activation == "none" or options.said
    (report.found if known else report.assumed).append(
        f"output {output}, {len(labels)} classes: {_ACTIVATIONS[activation]} ({why})"
    )
    return Export(report.name, height, width, "uint8", Numbers(), output, activation, values), labels


_ACTIVATIONS = {
    "none": "probabilities",
    "softmax": "logits, softmax is added",
    "binary": "the probability of the second label",
    "sigmoid": "one logit, sigmoid is added",
}


def _said(photo: Photo, text: str, labels: Sequence[str] | None) -> Said:
    label, _, number = text.strip().rstrip("%").rstrip().rpartition(" ")
    label = label.strip()
    digits = number.replace(",", ".")
    try:
        percent = float(digits)
    except ValueError:
        percent = -1.0
    if not label or not 0 <= percent <= 100:
        raise ImportProblem(f'--says {text!r} is not a label and a number of 0 to 100, such as "Sparrow 95.16"')
    if labels is not None and label not in labels:
        raise ImportProblem(f"--says has the unknown label {label!r}; the labels are: {', '.join(labels[:20])}")
    half_digit = 0.5 * 10.0 ** -len(digits.partition(".")[2]) / 100
    return Said(photo.name, photo.data, photo.image, label, percent / 100, half_digit)


def _decide(
    wanted: Wanted,
    network: Network,
    export: Export,
    labels: Sequence[str],
    said: Sequence[Said],
    source: Source,
    report: Report,
    step: Callable[[str], object],
) -> Candidate:
    """Choose how photos are prepared: from the photos with known answers, from the file, or as usual for the format."""
    single = export.activation in ("binary", "sigmoid")
    ways = candidates(network.spec, export.width, export.height, wanted, reverse=single)
    measured = None
    if len({way.scale for way in ways}) > 1 and (said or not recipes.is_teachable_machine(source)):
        measured = recipes.scale_by_statistics(network, sample_images(), export.width, export.height)
    if said:
        step(f"Trying {counted(len(ways), 'way')} to prepare {counted(len(said), 'photo')}")
        progress: Any = lambda keys: tqdm(keys, unit="batch", leave=False, disable=None)  # noqa: E731
        errors = recipes.measure(network, export.output, export.activation, ways, labels, said, progress)
        usual, *_ = recipes.usual(network, source, ways, wanted, measured)
        way, assumed = recipes.search(ways, errors, measured[0] if measured else None, usual)
        recipes.check_evidence(way, usual, ways, said)
        report.found.append(f"{_told(way)}: gives the known answers of {counted(len(said), 'photo')}")
        report.assumed += assumed
        return way
    way, found, assumed = recipes.usual(network, source, ways, wanted, measured)
    report.found += found
    report.assumed += assumed
    if single:
        report.assumed.append(f"a value of 1 means {labels[1]}")
    return way


def _told(way: Candidate) -> str:
    return f"--resize {way.resize} --scale {way.scale} --order {way.order}"
