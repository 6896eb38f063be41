"""Measures what `python run.py train` makes, on fixed lists of photos beside this file (kinds.csv, sources.csv).

    python -m tools.evaluation.trained_models DATA

DATA has the folders catdog/ and neither/. The lists have paths, classes and parts only: five kinds of things, and the
seven sources of the cat and dog photos as classes. Near-duplicates are in one part. Measured are

- the accuracy of the head on the rounded backbone, beside scikit-learn's LogisticRegression on features in float32;
- the domain score and others that were tried: the AUROC of classes that were left out of training (1: perfect);
- the time of the network for one photo, beside the shipped CAT-DOG;
- what a second look does on photos of validation.
"""

import argparse
import os
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tools.evaluation.cost import openvino_milliseconds
from tools.evaluation.measures import expected_calibration_error, proportion, reliability
from tools.evaluation.photos import PhotosError
from tools.evaluation.trained_models.scores import areas, softmax, trials
from tools.evaluation.trained_models.splits import NAMES, Photos, read_photos
from tools.service import PROJECT, Config, read_config
from tools.training.backbone.backbone import Backbone
from tools.training.export import write_saved_model
from tools.training.head.domain import fit_domain
from tools.training.head.second_look import looker, try_second_look
from tools.training.head.softmax_head import fit_head
from tools.training.run import Part

PARTS = ("accuracy", "second-look", "cost", "domain")


def divided(found: Photos, name: str) -> tuple[list[str], Part, Part, Any, Any]:
    """Return the classes of the list `name`, its parts, and the rows of training and of validation."""
    labels = getattr(found, name)
    classes = sorted(set(labels) - {""})
    parts = []
    for chosen in ((labels != "") & ~found.validation, (labels != "") & found.validation):
        rows = np.flatnonzero(chosen)
        parts.append((rows, found.part(rows, np.array([classes.index(label) for label in labels[rows]], np.int64))))
    (inside, training), (outside, validation) = parts
    return classes, training, validation, inside, outside


def measure_accuracy(found: Photos, name: str) -> None:
    """Print the accuracy of both ways on the list `name`."""
    from sklearn.linear_model import LogisticRegression

    classes, training, validation, inside, outside = divided(found, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = LogisticRegression().fit(found.exact[inside, 0], training.classes)
        longer = LogisticRegression(max_iter=5000).fit(found.exact[inside, 0], training.classes)
    head = fit_head(training, len(classes))
    probabilities = softmax(head.logits(validation.served()))
    right = probabilities.argmax(1) == validation.classes
    error = expected_calibration_error(reliability(probabilities.max(1), right))
    print(f"\n{name}: {len(classes)} classes, {len(inside)} photos for training, {len(outside)} for validation")
    for title, model in (("LogisticRegression()", plain), ("LogisticRegression(max_iter=5000)", longer)):
        print(f"  {title + ', float32':45} {proportion(model.predict(found.exact[outside, 0]) == validation.classes)}")
    exact = fit_head(replace(training, values=found.exact[inside]), len(classes))
    same = exact.logits(found.exact[outside, 0]).argmax(1) == validation.classes
    print(f"  {'the head of run.py train, float32':45} {proportion(same)}")
    print(f"  {'run.py train, 8 bits':45} {proportion(right)}")
    held_out = head.held_out.argmax(1) == training.classes
    print(f"  {'  cross-validation':45} {proportion(held_out)}")
    print(
        f"  C {head.penalty:g}, temperature {head.temperature:.3f}, expected calibration error {error:.4f}", flush=True
    )


def measure_domain(found: Photos, imagenet: Any) -> None:
    """Print the mean and the lowest AUROC of each score."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for name, trial in trials(found):
        for score, by_group in areas(found, trial, imagenet).items():
            groups.setdefault(name, {}).setdefault(score, {}).update(by_group)
    for name, by_score in groups.items():
        print(f"\n{name}: AUROC, mean and lowest; {', '.join(next(iter(by_score.values())))}")
        for score, values in by_score.items():
            shown = " ".join(f"{value:.3f}" for value in values.values())
            print(f"  {score:48} {np.mean([*values.values()]):.3f} {min(values.values()):.3f}   {shown}", flush=True)


def measure_models(found: Photos, backbone: Backbone, options: argparse.Namespace) -> None:
    """Print the cost of the models of both lists, and what a second look does."""
    from tools.training.version import graph_outputs

    shipped = PROJECT / "prev_trained_models" / "CAT-DOG"
    versions = sorted((path for path in shipped.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    with tempfile.TemporaryDirectory() as scratch:
        models = {f"CAT-DOG {versions[-1].name}": versions[-1]}
        for name in NAMES:
            classes, training, validation, _, _ = divided(found, name)
            head = fit_head(training, len(classes))
            domain = fit_domain(training, validation, head, backbone.network.classifier[0])
            models[name] = Path(scratch) / name
            write_saved_model(models[name], backbone.config.size, graph_outputs(backbone, head, domain))
            if "second-look" in options.parts:
                probabilities = softmax(head.logits(validation.served()))
                measure_second_look(name, models[name], backbone.config, validation, probabilities)
        if "cost" in options.parts:
            times = openvino_milliseconds(models, options.rounds)
            first = next(iter(times.values()))
            print("\nmilliseconds of the network for one photo, in one thread")
            for name, taken in times.items():
                print(f"  {name:12} {taken:.2f}   {taken / first:.3f}", flush=True)


def measure_second_look(name: str, model: Path, config: Config, validation: Part, probabilities: Any) -> None:
    """Print what a second look does."""
    from preprocess_service.app.recipe import parse_recipe
    from tools.evaluation.predictors.version import VersionPredictor

    labels = [str(number) for number in range(probabilities.shape[1])]
    recipe = parse_recipe({"preprocessor_config": config.picture.model_dump(), "labels": labels})
    predictor = VersionPredictor(model, recipe, max_looks=1)
    print(f"\n{name}: {try_second_look(validation.photos, probabilities, looker(predictor))}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with catdog/ and neither/")
    cache = PROJECT / ".build" / "features"
    parser.add_argument("--cache", type=Path, default=cache, help="folder for features (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each network (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    options = parser.parse_args(arguments)
    try:
        config = read_config(None)
        backbone = Backbone.frozen(config.with_picture(domain_threshold=0.0, second_look=None))
        found = read_photos(options.data, backbone, options.cache, options.workers)
    except (PhotosError, OSError) as exc:
        print(f"trained_models: {exc}", file=sys.stderr)
        return 2
    for name in NAMES if "accuracy" in options.parts else ():
        measure_accuracy(found, name)
    if {"cost", "second-look"} & set(options.parts):
        measure_models(found, backbone, options)
    if "domain" in options.parts:
        measure_domain(found, backbone.network.classifier)
    return 0


if __name__ == "__main__":
    sys.exit(main())
