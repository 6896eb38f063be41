"""Writes the version folder of a classifier: the model, its recipe, labels, golden photos and its model card."""

import argparse
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.training import attention
from tools.training.backbone.backbone import Backbone
from tools.training.dataset.folders import named
from tools.training.export import (
    ATTENTION_NAME,
    DOMAIN_NAME,
    OUTPUT_NAME,
    ExportError,
    Scaling,
    next_version,
    write_saved_model,
)
from tools.training.head.second_look import looker, try_second_look
from tools.training.model_card import write_card
from tools.training.run import Domain, Head, Run, TrainError

if TYPE_CHECKING:
    # Where they come before TensorFlow, its messages stand in its place.
    from tools.evaluation.predictors.predictor import Prediction
    from tools.model_folder import GoldenPhoto

GOLDEN_PHOTOS = 3
# Of how many photos, the surest ones, the golden photos are taken.
_CANDIDATES = 12
# The allowed difference between an answer of the written model and that of the features, which are rounded to 16 bits.
_DIFFERENCE = 0.02
# As `run.py serve` and URLs take it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def version_folder(models: Path, name: str, version: int | None) -> Path:
    """Return the folder for the new version; raises TrainError if the name is invalid or the folder exists."""
    if not _NAME.fullmatch(name):
        raise TrainError(f"--name {name!r} is not a valid name: use letters, digits, '.', '_' and '-'")
    target = models / name / str(version or next_version(models / name))
    if target.exists():
        raise TrainError(f"{target} exists already: choose another --version or move it away")
    return target


def new_version(options: argparse.Namespace) -> Path:
    """Return the folder for the new version. Raises TrainError if it or the cache can't be written."""
    target = version_folder(options.models, options.name, options.version)
    for folder, option in ((target.parent, "--models"), (options.cache, "--cache")):
        # With no folder made, as a stopped run would leave it.
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        try:
            Path(tempfile.mkdtemp(prefix=".train-", dir=there)).rmdir()
        except OSError as exc:
            raise TrainError(f"can't write in {folder} ({exc.strerror}): choose another folder with {option}") from exc
    return target


def check_labels(target: Path, labels: Sequence[str], replace_labels: bool) -> None:
    """Raise TrainError if the version `target` would be served in place of one with other labels."""
    newest = target.parent / str(next_version(target.parent) - 1)
    file = newest / "assets.extra" / "labels.txt"
    if replace_labels or int(target.name) < int(newest.name) or not file.is_file():
        return
    served = file.read_text(encoding="utf-8").splitlines()
    if set(served) != set(labels):
        raise TrainError(
            f"{newest} has the labels {named(served)}, yours are {named(labels)}: choose another --name, or add "
            "--replace-labels to put the new model in its place"
        )


def write_version(target: Path, backbone: Backbone, run: Run) -> Run:
    """Write the version folder of `run` beside `target`, check its answers, and rename it.

    Returns the run with what was found about a second look. Raises ExportError.
    """
    scale, offset = backbone.config.picture.scaling()
    finished = run

    def finish(folder: Path) -> None:
        nonlocal finished
        from preprocess_service.app.recipe import parse_recipe
        from tools.evaluation.predictors.version import VersionPredictor
        from tools.model_folder import write_recipe

        plain = parse_recipe({"preprocessor_config": run.recipe, "labels": run.labels})
        predictor = VersionPredictor(folder, plain, max_looks=1)
        golden = _golden_photos(predictor.predict, run)
        trial = try_second_look(run.validation.photos, run.probabilities, looker(predictor), run.seed)
        recipe = {**run.recipe, **({"second_look": trial.settings.model_dump()} if trial.settings else {})}
        finished = replace(run, recipe=recipe, second_look=str(trial))
        write_recipe(folder, recipe, run.labels, golden)
        write_card(folder, finished)

    outputs = graph_outputs(backbone, run.head, run.domain)
    write_saved_model(target, backbone.config.size, outputs, True, Scaling(scale[0], offset[0]), finish)
    return finished


def graph_outputs(backbone: Backbone, head: Head, domain: Domain | None) -> Any:
    """Return a function that builds the model's named outputs in TensorFlow from its float32 input."""

    def outputs(image: Any) -> dict[str, Any]:
        import tensorflow as tf

        places = backbone.places(image)
        pooled = tf.reduce_mean(places, axis=[1, 2])
        kernel, bias = tf.constant(head.kernel), tf.constant(head.bias)
        even = attention.constants(backbone.config.size, places)
        logits = tf.nn.bias_add(tf.matmul(pooled, kernel), bias)
        named = {
            OUTPUT_NAME: tf.nn.softmax(logits),
            ATTENTION_NAME: attention.graph(places, pooled, kernel, bias, len(head.bias), even),
        }
        return named | ({DOMAIN_NAME: domain.graph(pooled, logits)} if domain else {})

    return outputs


def _golden_photos(predict: "Callable[[bytes], Prediction]", run: Run) -> "list[GoldenPhoto]":
    """Return photos of validation with the answers that the written model gives; raises ExportError.

    The surest right answers are taken, of different classes if possible: they hardly change between processors.
    """
    from tools.importing.photos import numbered, read_photo, smaller
    from tools.model_folder import GoldenPhoto

    numbers = _surest(run)[:GOLDEN_PHOTOS]
    for number in numbers:
        found = predict(run.validation.photos[number].path.read_bytes()).probabilities
        if not np.abs(found - run.probabilities[number]).max() <= _DIFFERENCE:
            trained = run.probabilities[number].max()
            raise ExportError(f"the written model answers {found.max():.3f}, but {trained:.3f} was trained")
    chosen = [read_photo(run.validation.photos[number].path) for number in numbers]
    return [
        GoldenPhoto(photo.name, photo.data, _largest(predict(photo.data).probabilities, run.labels))
        for photo in numbered([smaller(photo) for photo in chosen])
    ]


def _surest(run: Run) -> list[int]:
    """Return the numbers of the validation photos with the surest right answers, first one for each class."""
    sure = np.where(run.probabilities.argmax(1) == run.validation.classes, run.probabilities.max(1), -1)
    order = np.argsort(-sure, kind="stable")[:_CANDIDATES].tolist()
    first = {int(run.validation.classes[number]): number for number in reversed(order)}
    return sorted(first.values(), key=order.index) + [number for number in order if number not in first.values()]


def _largest(probabilities: Any, labels: Sequence[str], most: int = 5) -> Mapping[str, float]:
    """Return the largest probabilities by label."""
    order = np.argsort(-probabilities)[:most]
    # In float32, a probability may be slightly above 1.
    return {labels[index]: round(min(float(probabilities[index]), 1.0), 6) for index in order}
