"""Measures second looks, on `val` and on sources that the head was not trained on, with the recipe and with changes.

    python -m tools.evaluation.second_look DATA --json OUT/second_look.json

DATA contains train/{class}/, val/{class}/ and INDEX.csv, as for training. On `val` the shipped model answers. A photo
of `train` is answered by a head that was fitted on the other sources, with the features that the shipped network has
for both looks. Boxes are found and cut with the preprocess service's own functions. It takes some minutes.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

# It loads TensorFlow's messages, and after that TensorFlow itself can't be loaded.
from preprocess_service.app.inference.second_look import find_box
from tools.evaluation import photos
from tools.evaluation.measures import expected_calibration_error, proportion, reliability
from tools.evaluation.photos import Photo
from tools.inference import import_openvino
from tools.service import PROJECT, Box, Config, ConfigError, SecondLook, prepare, read_config
from tools.training.backbone.efficientnet_lite import VARIANTS, WeightsError, load_network
from tools.training.cats_and_dogs import animals, heads
from tools.training.cats_and_dogs.heads import Examples
from tools.training.cats_and_dogs.logistic import LinearHead
from tools.training.export import ATTENTION_NAME, DOMAIN_NAME, OUTPUT_NAME

Array = NDArray[np.float32]
Numbers = NDArray[np.float64]

MIDDLE: Box = (0.15, 0.15, 0.85, 0.85)
# That of train.py.
PENALTY = 0.3


class SecondLookError(Exception):
    """Nothing can be measured; the message says why."""


@dataclass(frozen=True)
class Variant:
    """The settings of second looks, and the box of each; None is the one that the attention gives."""

    name: str
    settings: SecondLook
    boxes: tuple[Box | None, ...] = (None,)


def variants(chosen: SecondLook) -> Iterator[Variant]:
    """Yield the recipe's settings, none, and changes of each."""
    yield Variant("one look", chosen.model_copy(update={"max_confidence": 0.0}))
    yield Variant("the recipe's", chosen)
    yield Variant("the middle 70 %", chosen, (MIDDLE,))
    yield Variant("two more looks: the recipe's and the middle 70 %", chosen, (None, MIDDLE))
    for name, values in (
        ("max_confidence", (0.8, 0.85, 0.95)),
        ("min_domain_score", (0.0, 0.1, 0.2, 0.3)),
        ("attention_threshold", (0.4, 0.45, 0.55, 0.6)),
        ("min_side", (0.4, 0.5, 0.55, 0.65, 0.7)),
        ("weight", (0.4, 0.6, 0.7)),
    ):
        for value in values:
            yield Variant(f"{name} {value:g}", chosen.model_copy(update={name: value}))


class Look(NamedTuple):
    """What the model computes for pictures of one photo: a row for each picture."""

    pooled: Array
    log_odds: Numbers
    attention: Array
    domain_score: Array


class Network:
    """The SavedModel in the folder `model`, with the pooled features as one more output. Threads may share it."""

    def __init__(self, model: Path, workers: int) -> None:
        core = import_openvino().Core()
        try:
            network = core.read_model(str(model))
            means = [node for node in network.get_ops() if node.get_type_name() == "ReduceMean"]
            # The other mean is that of the classifier's weights.
            (pool,) = (node for node in means if len(node.input(0).get_partial_shape()) == 4)
        except (RuntimeError, ValueError) as exc:
            raise SecondLookError(f"{model}: no SavedModel with one mean over places, as train.py writes it") from exc
        network.add_outputs([pool.output(0)])
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers}
        self._compiled = core.compile_model(network, "CPU", settings)
        self._local = threading.local()

    def __call__(self, pictures: Array) -> Look:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        results = self._local.request.infer([pictures])
        outputs = {next(iter(output.names), ""): np.array(results[output]) for output in self._compiled.outputs}
        named = (OUTPUT_NAME, ATTENTION_NAME, DOMAIN_NAME)
        (pooled,) = (values for name, values in outputs.items() if name not in named)
        for name in (ATTENTION_NAME, DOMAIN_NAME):
            if name not in outputs:
                raise SecondLookError(f"the model has no output {name}")
        logarithms = np.log(np.maximum(outputs[OUTPUT_NAME].astype(np.float64), animals.SMALLEST))
        return Look(pooled, logarithms[:, 1] - logarithms[:, 0], outputs[ATTENTION_NAME], outputs[DOMAIN_NAME])


# Float32 pictures [n, height, width, 3] -> their look.
Looker = Callable[[Array], Look]


class Part:
    """The photos of `train` or `val`: their first looks, and second looks as they are needed."""

    def __init__(self, found: Sequence[Photo], network: Looker, config: Config, workers: int, mirror: bool) -> None:
        self.photos = found
        self._network, self._config, self._workers = network, config, workers
        self._seconds: dict[tuple[int, Box], Look] = {}

        def first(photo: Photo) -> Look:
            picture = prepare(photo.path.read_bytes(), config)
            return network(np.stack([picture, picture[:, ::-1]]) if mirror else picture[None])

        with ThreadPoolExecutor(workers) as pool:
            self.first = list(tqdm(pool.map(first, found), total=len(found), unit="photo", disable=None))
        # By which log odds of a photo's picture are computed; for `train` it is replaced by the head of its source.
        self.log_odds: Callable[[int, Look], float] = lambda _, look: float(look.log_odds[0])

    @property
    def second(self) -> NDArray[np.bool_]:
        """Whether a photo is of the second class, bool [photos]."""
        return np.array([photo.label == 1 for photo in self.photos])

    @property
    def sources(self) -> NDArray[np.object_]:
        """The source of each photo, [photos]."""
        return np.array([photo.source for photo in self.photos], object)

    def looks(self, wanted: Sequence[tuple[int, Box]]) -> list[Look]:
        """Return a second look for each number of a photo and box."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._seconds]

        def second(key: tuple[int, Box]) -> Look:
            return self._network(prepare(self.photos[key[0]].path.read_bytes(), self._config, key[1])[None])

        with ThreadPoolExecutor(self._workers) as pool:
            self._seconds.update(zip(missing, pool.map(second, missing), strict=True))
        return [self._seconds[key] for key in wanted]

    def answers(self, variant: Variant) -> tuple[Numbers, NDArray[np.bool_]]:
        """Return the log odds of the second class [photos], and which photos were looked at again, bool [photos]."""
        settings = variant.settings
        found = np.array([self.log_odds(number, look) for number, look in enumerate(self.first)])
        scores = np.array([look.domain_score[0] for look in self.first])
        again = 1 / (1 + np.exp(-np.abs(found))) < settings.max_confidence
        again &= scores >= settings.min_domain_score
        numbers = np.flatnonzero(again).tolist()
        sums = np.zeros(len(numbers))
        for box in variant.boxes:
            keys = [(number, box or find_box(self.first[number].attention[0], settings)) for number in numbers]
            sums += [self.log_odds(key[0], look) for key, look in zip(keys, self.looks(keys), strict=True)]
        seconds = sums / len(variant.boxes)
        found[again] = ((1 - settings.weight) * found[again] + settings.weight * seconds) / settings.temperature
        return found, again


def leave_sources_out(part: Part) -> float:
    """Give the photos of `part` heads that were fitted on the other sources; return the temperature of their logits."""
    classifier = animals.Classifier.of(load_network(VARIANTS["lite2"]).classifier)
    examples = Examples(
        animals.with_odds(np.stack([look.pooled for look in part.first]), classifier), part.second, part.sources
    )
    (start,) = heads.fit_heads(examples, 1.0, [PENALTY])
    fitted: dict[str, LinearHead] = {}
    logits = np.zeros(len(part.photos))
    for source in tqdm(sorted(set(part.sources)), unit="source", disable=None):
        held_out = part.sources == source
        (fitted[source],) = heads.fit_heads(examples.where(~held_out), 1.0, [PENALTY], start)
        logits[held_out] = fitted[source].logits(examples.values[held_out, 0])
    degree = heads.temperature(examples, logits, 1.0)

    def log_odds(number: int, look: Look) -> float:
        values = animals.with_odds(look.pooled[None, :1], classifier)[0]
        return float(fitted[part.photos[number].source].logits(values)[0]) / degree

    part.log_odds = log_odds
    return degree


def measure(variant: Variant, training: Part, validation: Part) -> dict[str, Any]:
    """Return the figures of a variant, in percent, for JSON."""
    left_out, left_out_again = training.answers(variant)
    right = (left_out > 0) == training.second
    sources = {source: 100 * right[training.sources == source].mean() for source in sorted(set(training.sources))}
    known, again = validation.answers(variant)
    confidences = (1 / (1 + np.exp(-np.abs(known)))).astype(np.float32)
    hits = (known > 0) == validation.second
    return {
        "val": 100 * proportion(hits).value,
        "val_twice": 100 * float(again.mean()),
        "val_ece": expected_calibration_error(reliability(confidences, hits)),
        "left_out_mean": float(np.mean([*sources.values()])),
        "left_out_twice": 100 * float(left_out_again.mean()),
        "left_out": {source: float(value) for source, value in sources.items()},
    }


def row(name: str, found: dict[str, Any]) -> str:
    """Return a line of the table in the model card."""
    lowest = min(found["left_out"].values())
    return (
        f"| {name} | {found['val']:.2f} | {found['val_twice']:.1f} | {found['val_ece']:.4f} | "
        f"{found['left_out_mean']:.2f} | {lowest:.2f} | {found['left_out_twice']:.1f} |"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants, and print a line for each."""
    config = read_config(options.config)
    chosen = config.picture.second_look
    if chosen is None:
        raise SecondLookError("the recipe has no second_look")
    labels = photos.read_labels(options.labels)
    index = photos.find_index(options.data)
    network = Network(options.model, options.workers)
    found = [photos.find_photos(options.data / part, labels, index) for part in ("train", "val")]
    training, validation = (
        Part(part, network, config, options.workers, mirror) for part, mirror in zip(found, (True, False), strict=True)
    )
    print(f"temperature on left-out sources {leave_sources_out(training):.3f}")
    print("| second look | `val` | twice, % | ECE | left-out mean | lowest source | twice, % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    results = {}
    for variant in variants(chosen):
        results[variant.name] = measure(variant, training, validation)
        print(row(variant.name, results[variant.name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    return results


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/{class}/, val/{class}/ and INDEX.csv")
    folder = PROJECT / "prev_trained_models" / "CAT-DOG"
    shipped = max(folder.glob("[0-9]*"), key=lambda path: int(path.name), default=folder)
    parser.add_argument("--model", type=Path, default=shipped, help="version folder (default: CAT-DOG's)")
    parser.add_argument("--labels", type=Path, default=folder / "labels.txt", help="labels.txt (default: CAT-DOG's)")
    parser.add_argument("--config", type=Path, help="preprocessor_config.json (default: CAT-DOG's)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    try:
        run(parser.parse_args(arguments))
    except (SecondLookError, photos.PhotosError, WeightsError, ConfigError, OSError) as exc:
        print(f"second_look: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
