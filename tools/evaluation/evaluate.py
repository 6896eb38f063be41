"""Measures a model on labelled photos: a folder with one folder per class, named as the classes.

    python run.py evaluate PHOTOS --model birds           the newest version in prev_trained_models/birds
    python run.py evaluate PHOTOS --model birds/2         another version, or the path of a version folder
    python run.py evaluate PHOTOS --url http://localhost:7998     the running service; --model checks its name

It prints the accuracy with its 95 % interval (Wilson), the most frequent mistakes, the calibration, and the share of
photos that were looked at twice. It also prints the accuracy by source if there is an INDEX.csv (columns path and
source) in the folder or its parent. Rejected photos are counted and named. If the service needs an API key, set the
environment variable CATDOG_API_KEY. Measure with photos that the model was not trained on.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from model_service.errors import StartError
from model_service.lifecycle.versions import find_versions
from model_service.models.saved_model import ir_of
from tools.classify import positive
from tools.evaluation.cost import openvino_milliseconds, tensorflow_milliseconds
from tools.evaluation.labelled import Labelled, find_labelled, find_others
from tools.evaluation.photos import Photo, PhotosError
from tools.evaluation.predictors.predictor import Prediction, Predictor, PredictorError, RefusedPhoto
from tools.evaluation.report.domain import domain_report, print_domain
from tools.evaluation.report.printed import print_results, results_json
from tools.evaluation.report.results import Results
from tools.quiet import quiet
from tools.service import PROJECT, ConfigError
from tools.training.run import TrainError

# So many photos are handed to the threads at a time.
_AT_A_TIME = 256


def ask(photos: Sequence[Photo], predictor: Predictor, clients: int) -> tuple[Results, dict[str, str]]:
    """Return the answers, and the reason for each rejected photo by its path; raises PredictorError.

    `clients` photos are asked for at a time, with a progress bar.
    """

    def one(photo: Photo) -> Prediction | str:
        try:
            return predictor(photo.path)
        except RefusedPhoto as exc:
            return str(exc)

    answered: list[Photo] = []
    refused: dict[str, str] = {}
    probabilities = np.empty((len(photos), len(predictor.labels)), np.float32)
    domain = np.empty(len(photos), np.float32)
    second_looks = 0
    with ThreadPoolExecutor(clients) as pool, tqdm(total=len(photos), unit="photo", disable=None) as bar:
        for start in range(0, len(photos), _AT_A_TIME):
            part = photos[start : start + _AT_A_TIME]
            for photo, found in zip(part, pool.map(one, part), strict=True):
                bar.update()
                if isinstance(found, str):
                    refused[str(photo.path)] = found
                    continue
                probabilities[len(answered)] = found.probabilities
                domain[len(answered)] = np.nan if found.domain is None else found.domain
                second_looks += found.looks > 1
                answered.append(photo)
    count = len(answered)
    if not count:
        raise PredictorError(f"every photo was refused, the first with: {next(iter(refused.values()))}")
    threshold = predictor.threshold
    scores = None if threshold is None else domain[:count]
    results = Results(predictor.labels, answered, probabilities[:count], scores, threshold or 0.0, second_looks)
    return results, refused


def version_folder(name: str, models: Path) -> Path:
    """Return the version folder that `--model` means: NAME, NAME/VERSION, or a path; raises PredictorError."""
    for folder in (models / name, Path(name)):
        if (folder / "saved_model.pb").is_file():
            return folder
        if folder.is_dir() and (versions := find_versions(name, folder)):
            return versions[max(versions)][0]
    base, _, version = name.rpartition("/")
    if base and (versions := find_versions(base, models / base) if (models / base).is_dir() else {}):
        listed = ", ".join(map(str, sorted(versions)))
        raise PredictorError(f"the model {base!r} has no version {version}; there are: {listed}")
    there = sorted(path.name for path in models.iterdir() if path.is_dir()) if models.is_dir() else []
    raise PredictorError(f"there is no model {name!r}; in {models} there are: {', '.join(there) or 'none'}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="run.py evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder with one folder of photos per class")
    parser.add_argument("--model", help="a model's name, NAME/VERSION, or a version folder")
    parser.add_argument("--url", help="ask the running service at this address, for example http://localhost:7998")
    models = PROJECT / "prev_trained_models"
    parser.add_argument("--models", type=Path, default=models, help="folder of models (default: %(default)s)")
    parser.add_argument("--skip-others", action="store_true", help="leave out folders that are no class")
    parser.add_argument("--index", type=Path, help="INDEX.csv (default: the one in the folder or its parent)")
    parser.add_argument("--clients", type=positive, default=4, help="photos at a time (default: %(default)s)")
    parser.add_argument("--neither", type=Path, help="a folder with photos of none of the classes: how many are found")
    parser.add_argument("--threshold", type=float, help="threshold of the domain score (default: the model's)")
    parser.add_argument("--one-look", action="store_true", help="without second looks; not with --url")
    parser.add_argument("--cost", action="store_true", help="measure the network on one core too; not with --url")
    parser.add_argument("--pictures", type=Path, help="write confusion.png, reliability.png, mistakes.jpg there")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    if not (options.model or options.url):
        parser.error("say what to measure: --model NAME, or --url of a running service")
    if options.url and (options.one_look or options.cost):
        parser.error("--one-look and --cost need --model without --url")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        parser.error("--threshold is a number from 0 to 1")
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.resolve().parent}")
    return options


def evaluate(options: argparse.Namespace) -> None:
    """Classify all photos, print the figures and write them."""
    folder = None if options.url else version_folder(options.model, options.models)
    predictor = _predictor(options, folder)
    print(f"{predictor.name}: {len(predictor.labels)} classes")
    found = find_labelled(options.photos, predictor.labels, options.index, options.skip_others)
    others = find_others(options.neither) if options.neither else Labelled([], [])
    notes = [*found.notes, *others.notes]
    if others.photos and predictor.threshold is None:
        raise PredictorError("--neither needs a model with a domain score, which this one does not have")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    results, refused = ask(found.photos, predictor, options.clients)
    if options.threshold is not None:
        results = replace(results, threshold=options.threshold)
    print_results(results, refused)
    figures: dict[str, Any] = {"model": predictor.name, **results_json(results, refused), "notes": notes}
    if others.photos:
        figures["neither"] = _neither(results, others.photos, predictor, options)
    if options.cost and folder:
        figures["milliseconds"] = milliseconds(folder)
        times = [f"{name} {taken:.2f}" for name, taken in figures["milliseconds"].items() if taken is not None]
        print(f"\nmilliseconds of the network for one photo on one core: {', '.join(times)}")
    if options.pictures:
        draw(results, options.pictures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _predictor(options: argparse.Namespace, folder: Path | None) -> Predictor:
    # Imported here, so that --help is fast.
    if folder is None:
        from tools.evaluation.predictors.service import ServicePredictor

        return ServicePredictor(options.url, options.model)
    from tools.evaluation.predictors.version import VersionPredictor

    return VersionPredictor(folder, max_looks=1 if options.one_look else 2)


def _neither(
    results: Results, others: Sequence[Photo], predictor: Predictor, options: argparse.Namespace
) -> dict[str, Any]:
    """Return how well the domain score finds photos of other things, and print it."""
    outside, refused = ask(others, predictor, options.clients)
    assert results.domain is not None and outside.domain is not None
    sources = [photo.source for photo in outside.photos]
    found = domain_report(results.domain, outside.domain, sources, results.threshold)
    print_domain(found)
    if refused:
        print(f"  refused: {len(refused)} of these photos")
    return {**found, "refused": refused}


def milliseconds(model: Path) -> dict[str, float | None]:
    """Return the network's time for one photo on one core, by runtime; None if the runtime can't compute it."""
    network = ir_of(model)
    return {
        "openvino": openvino_milliseconds({"": network or model})[""],
        "tensorflow": None if network else tensorflow_milliseconds(model),
    }


def draw(results: Results, folder: Path) -> None:
    """Write confusion.png, reliability.png, and mistakes.jpg if there are mistakes."""
    from tools.evaluation.report import pictures  # importing matplotlib takes a second

    folder.mkdir(parents=True, exist_ok=True)
    pictures.draw_confusion(results, folder / "confusion.png")
    pictures.draw_reliability(results, folder / "reliability.png")
    pictures.draw_mistakes(results, folder / "mistakes.jpg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name may have characters that the terminal can't show.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = parse_arguments(arguments)
    # The services log the errors that they raise.
    logging.disable()
    try:
        with quiet():
            evaluate(options)
    except (ConfigError, PhotosError, PredictorError, StartError, TrainError, OSError) as exc:
        print(f"evaluate: {' '.join(str(exc).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        logging.disable(logging.NOTSET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
