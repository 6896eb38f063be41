"""Evaluates the classifier on a folder of labelled photos, with a subfolder for each class of labels.txt.

    python -m tools.evaluation.evaluate PHOTOS                             the running service, http://localhost:7998
    python -m tools.evaluation.evaluate PHOTOS --url http://host:port      another service
    python -m tools.evaluation.evaluate PHOTOS --model prev_trained_models/CAT-DOG/7   the SavedModel, without a service

It prints the accuracy with its 95 % interval (Wilson), the confusion matrix, the calibration, and the share of photos
that were looked at twice. It also prints the accuracy by source if there is an INDEX.csv (columns path and source) in
the folder or its parent. Rejected photos are counted and named. --one-look measures --model without second looks.
--neither FOLDER evaluates the domain score on photos of neither class, by subfolder. --pictures FOLDER writes a
reliability diagram and a contact sheet of the worst mistakes. --cost measures --model on one core.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tools.evaluation.cost import openvino_milliseconds, tensorflow_milliseconds
from tools.evaluation.domain import domain_report, print_domain
from tools.evaluation.measures import (
    Proportion,
    by_group,
    confusion_matrix,
    expected_calibration_error,
    proportion,
    reliability,
)
from tools.evaluation.photos import Photo, PhotosError, find_index, find_photos, find_unlabelled, read_labels
from tools.evaluation.predictors import (
    ModelPredictor,
    Prediction,
    Predictor,
    PredictorError,
    RefusedPhoto,
    ServicePredictor,
)
from tools.evaluation.report.results import Results
from tools.service import PROJECT, ConfigError, read_config


@dataclass(frozen=True)
class Answers:
    """The answers for `photos`; `refused` maps the name of each rejected photo to the reason.

    `probabilities` is float32 [photos, classes]; `domain` is float32 [photos], NaN if the model has no domain score;
    `looks` int64 [photos] is 1 or 2.
    """

    photos: list[Photo]
    probabilities: NDArray[np.float32]
    domain: NDArray[np.float32]
    refused: dict[str, str]
    looks: NDArray[np.int64]

    @property
    def actual(self) -> NDArray[np.int64]:
        """The true class of each photo, int64 [photos]."""
        return np.array([photo.label for photo in self.photos], np.int64)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted class of each photo, int64 [photos]."""
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is right, bool [photos]."""
        return np.asarray(self.actual == self.predicted)


def ask(photos: Sequence[Photo], predictor: Predictor, clients: int) -> Answers:
    """Return the answers for all `photos`, `clients` at a time, with a progress bar; raises PredictorError."""

    def one(photo: Photo) -> Prediction | str:
        try:
            return predictor(photo.path.read_bytes())
        except RefusedPhoto as exc:
            return str(exc)

    with ThreadPoolExecutor(clients) as pool:
        results = list(tqdm(pool.map(one, photos), total=len(photos), unit="photo"))
    pairs = list(zip(photos, results, strict=True))
    answered = [(photo, result) for photo, result in pairs if not isinstance(result, str)]
    if not answered:
        raise PredictorError(f"every photo was refused, the first with: {results[0]}")
    refused = {str(photo.path): result for photo, result in pairs if isinstance(result, str)}
    return Answers(
        [photo for photo, _ in answered],
        np.stack([result.probabilities for _, result in answered]),
        np.array([np.nan if result.domain is None else result.domain for _, result in answered], np.float32),
        refused,
        np.array([result.looks for _, result in answered], np.int64),
    )


def share_json(share: Proportion) -> dict[str, Any]:
    """Return a proportion for the JSON report; shares are 0 to 1."""
    low, high = share.interval
    return {"right": share.right, "photos": share.total, "accuracy": share.value, "interval_95": [low, high]}


def calibration(answers: Answers) -> dict[str, Any]:
    """Return the bins of confidence and the expected calibration error, for JSON."""
    bins = reliability(answers.probabilities.max(1), answers.right)
    return {"ece": expected_calibration_error(bins), "bins": [asdict(found) for found in bins]}


def report(answers: Answers, labels: Sequence[str]) -> dict[str, Any]:
    """Return all figures, for JSON."""
    sources = by_group(answers.right, [photo.source for photo in answers.photos])
    classes = by_group(answers.right, [labels[photo.label] for photo in answers.photos])
    matrix = confusion_matrix(answers.actual.tolist(), answers.predicted.tolist(), len(labels))
    return {
        "labels": list(labels),
        "overall": share_json(proportion(answers.right)),
        "by_class": {name: share_json(share) for name, share in classes.items()},
        "by_source": {name: share_json(share) for name, share in sources.items()} if len(sources) > 1 else {},
        "confusion_matrix": {"rows": "actual", "columns": "predicted", "counts": matrix.tolist()},
        "calibration": calibration(answers),
        "second_looks": float((answers.looks > 1).mean()),
        "mistakes": [
            {
                "photo": str(photo.path),
                "actual": labels[photo.label],
                "probabilities": [round(float(share), 6) for share in row],
            }
            for photo, row, right in zip(answers.photos, answers.probabilities, answers.right, strict=True)
            if not right
        ],
        "refused": answers.refused,
    }


def print_report(answers: Answers, labels: Sequence[str]) -> None:
    """Print the figures."""
    sources = by_group(answers.right, [photo.source for photo in answers.photos])
    rows = {"all photos": proportion(answers.right)}
    rows |= by_group(answers.right, [labels[photo.label] for photo in answers.photos])
    rows |= sources if len(sources) > 1 else {}
    width = max(map(len, rows))
    for name, share in rows.items():
        print(f"{name:{width}}  {share}")
    matrix = confusion_matrix(answers.actual.tolist(), answers.predicted.tolist(), len(labels))
    print("\nactual \\ predicted" + "".join(f"{label:>10}" for label in labels))
    for label, counts in zip(labels, matrix, strict=True):
        print(f"{label:18}" + "".join(f"{count:10d}" for count in counts))
    print(f"\nexpected calibration error {calibration(answers)['ece']:.4f}")
    print(f"looked at twice {(answers.looks > 1).mean():.2%}")
    if answers.refused:
        print(f"\nrefused: {len(answers.refused)}")
        for name, reason in answers.refused.items():
            print(f"  {name}: {reason}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder that holds {class}/ for each class")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--url", default="http://localhost:7998", help="the running service (default: %(default)s)")
    way.add_argument("--model", type=Path, help="version folder of a SavedModel, in place of the service")
    default_labels = PROJECT / "prev_trained_models" / "CAT-DOG" / "labels.txt"
    parser.add_argument("--labels", type=Path, default=default_labels, help="labels.txt (default: CAT-DOG's)")
    parser.add_argument("--config", type=Path, help="preprocessor_config.json for --model (default: CAT-DOG's)")
    parser.add_argument("--one-look", action="store_true", help="without second looks, for --model")
    parser.add_argument("--index", type=Path, help="INDEX.csv (default: the one in the folder or its parent)")
    parser.add_argument("--clients", type=int, default=4, help="photos in flight (default: %(default)s)")
    parser.add_argument("--neither", type=Path, help="folder with photos of none of the classes")
    parser.add_argument("--threshold", type=float, help="threshold of the domain score (default: the recipe's)")
    parser.add_argument("--cost", action="store_true", help="measure --model on one core, in OpenVINO and TensorFlow")
    parser.add_argument("--pictures", type=Path, help="write reliability.png and mistakes.jpg into this folder")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args(arguments)


def evaluate(options: argparse.Namespace) -> None:
    """Classify all photos, print the figures and write them."""
    labels = read_labels(options.labels)
    photos = find_photos(options.photos, labels, options.index or find_index(options.photos))
    config = read_config(options.config)
    config = config.with_picture(second_look=None) if options.one_look else config
    predictor: Predictor = (
        ModelPredictor(options.model, config, len(labels)) if options.model else ServicePredictor(options.url, labels)
    )
    answers = ask(photos, predictor, options.clients)
    print_report(answers, labels)
    found = report(answers, labels)
    if options.neither:
        threshold = options.threshold
        threshold = config.picture.domain_threshold if threshold is None else threshold
        outside = ask(find_unlabelled(options.neither), predictor, options.clients)
        groups = [photo.source for photo in outside.photos]
        found["neither"] = domain_report(answers.domain, outside.domain, groups, threshold)
        print_domain(found["neither"])
    if options.cost and options.model:
        found["milliseconds"] = milliseconds(options.model)
        print(f"\nmilliseconds a photo on one core: {found['milliseconds']}")
    if options.pictures:
        draw(answers, labels, options.pictures)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def milliseconds(model: Path) -> dict[str, float | None]:
    """Return the network's time for one photo on one core, by runtime; None if the runtime is missing."""
    return {
        "openvino": openvino_milliseconds({"": model})[""],
        "tensorflow": tensorflow_milliseconds(model),
    }


def draw(answers: Answers, labels: Sequence[str], folder: Path) -> None:
    """Write reliability.png and mistakes.jpg."""
    from tools.evaluation.report import pictures  # importing matplotlib takes a second

    folder.mkdir(parents=True, exist_ok=True)
    results = Results(tuple(labels), answers.photos, answers.probabilities)
    pictures.draw_reliability(results, folder / "reliability.png")
    pictures.draw_mistakes(results, folder / "mistakes.jpg")


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    try:
        evaluate(parse_arguments(arguments))
    except (ConfigError, PhotosError, PredictorError, OSError) as exc:
        print(f"evaluate: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
