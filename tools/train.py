"""Trains a two-class head on an EfficientNet-Lite backbone and writes a versioned SavedModel.

    python tools/train.py DATA --model prev_trained_models/CAT-DOG

DATA holds train/{class}/ and val/{class}/ with photos, the classes named as in labels.txt (in any case), and
perhaps INDEX.csv with the columns path and source. The backbone keeps its ImageNet weights; the head is a logistic
regression on the pooled features of several views of each training photo. Photos are prepared by the preprocess
service's own functions, with the recipe of its config.yaml. The penalty is the one that does best on sources that
the head was not trained on (leave one source out). Features are kept in --cache: a stopped run goes on from there.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import features
import numpy as np
import photos
import views
from efficientnet_lite import VARIANTS, Network, WeightsError, installed_weights, load_network, pooled_features
from export import OUTPUT_NAME, ExportError, next_version, write_saved_model
from logistic import LinearHead, Scaler, fit_path
from measures import Proportion, by_group, proportion
from numpy.typing import NDArray
from service import PROJECT, Config, ConfigError, decode_image, read_config, to_tensor
from tqdm import tqdm

Array = NDArray[np.float32]


class TrainError(Exception):
    """Training can't go on; the message says why."""


@dataclass(frozen=True)
class Examples:
    """Photos as the head sees them: `values` float32 [photos, views, features], `second` [photos], `sources`."""

    values: Array
    second: NDArray[np.bool_]
    sources: NDArray[np.object_]

    @classmethod
    def of(cls, found: features.Features) -> "Examples":
        """The readable photos of `found`."""
        second = np.array([photo.label == 1 for photo in found.photos])
        return cls(found.values, second, np.array([photo.source for photo in found.photos], object))

    def where(self, chosen: NDArray[np.bool_]) -> "Examples":
        """Only the `chosen` photos."""
        return Examples(self.values[chosen], self.second[chosen], self.sources[chosen])

    @property
    def both_classes(self) -> bool:
        """Whether there is a photo of each class."""
        return bool(self.second.any() and not self.second.all())


def photo_weights(examples: Examples, exponent: float) -> Array:
    """float32 [photos], in sum 1: half for each class, and a source of n photos counts as n ** `exponent`.

    1 counts every photo alike, so that the largest source drowns the others; 0 counts every source alike.
    """
    weights = np.zeros(len(examples.second), np.float64)
    for source in set(examples.sources):
        members = examples.sources == source
        weights[members] = float(members.sum()) ** (exponent - 1)
    for members in (examples.second, ~examples.second):
        weights[members] *= 0.5 / weights[members].sum()
    return weights.astype(np.float32)


def fit_heads(examples: Examples, exponent: float, penalties: Sequence[float]) -> list[LinearHead]:
    """For each penalty a head for raw features, fitted on every view of every photo."""
    count = examples.values.shape[1]
    flat = examples.values.reshape(-1, examples.values.shape[2])
    scaler = Scaler.of(flat)
    weights = np.repeat(photo_weights(examples, exponent) / count, count)
    heads = fit_path(scaler.apply(flat), np.repeat(examples.second, count), weights, penalties)
    return [scaler.undo(head) for head in heads]


def hits(head: LinearHead, examples: Examples) -> NDArray[np.bool_]:
    """[photos]: whether the head is right on the first view, the photo as it is served."""
    return np.asarray((head.logits(examples.values[:, 0]) > 0) == examples.second)


def leave_one_source_out(
    examples: Examples, exponent: float, penalties: Sequence[float]
) -> list[dict[str, Proportion]]:
    """For each penalty the accuracy on each source, of a head that was fitted on all the other sources.

    A source without which a class would have no photos is passed over.
    """
    results: list[dict[str, Proportion]] = [{} for _ in penalties]
    for source in tqdm(sorted(set(examples.sources)), desc="leave one source out", unit="source"):
        held_out = examples.sources == source
        rest = examples.where(~held_out)
        if rest.both_classes:
            for result, head in zip(results, fit_heads(rest, exponent, penalties), strict=True):
                result[source] = proportion(hits(head, examples.where(held_out)))
    return results


def mean_accuracy(result: dict[str, Proportion]) -> float:
    """The mean over sources, each counting alike, 0 to 1."""
    return sum(share.value for share in result.values()) / len(result)


def choose_head(
    examples: Examples, exponent: float, penalties: Sequence[float]
) -> tuple[LinearHead, float, dict[str, Proportion]]:
    """The head on all sources, its penalty, and what that penalty reached on left-out sources (may be empty)."""
    ordered = sorted(penalties, reverse=True)
    results = leave_one_source_out(examples, exponent, ordered) if len(set(examples.sources)) > 1 else []
    if len(ordered) > 1 and not any(results):
        raise TrainError("choosing a penalty needs an INDEX.csv with several sources: give one --penalty instead")
    # Of equals the strongest penalty: max keeps the first.
    best = max(range(len(ordered)), key=lambda number: mean_accuracy(results[number])) if any(results) else 0
    for penalty, result in zip(ordered, results, strict=False):
        print(f"penalty {penalty:<8g} mean over left-out sources {mean_accuracy(result):.2%}" if result else "")
    head = fit_heads(examples, exponent, ordered[: best + 1])[-1]
    return head, ordered[best], results[best] if any(results) else {}


def export(network: Network, head: LinearHead, config: Config, target: Path) -> None:
    """Writes the SavedModel: backbone, mean over places, head, softmax over the two classes."""
    # Softmax over (-z/2, z/2) is the logistic function of z, and grows into more classes or a temperature.
    kernel = np.outer(head.kernel, [-0.5, 0.5]).astype(np.float32)
    bias = np.array([-head.bias / 2, head.bias / 2], np.float32)

    def outputs(image: Any) -> dict[str, Any]:
        import tensorflow as tf

        logits = tf.nn.bias_add(tf.matmul(pooled_features(network, image), kernel), bias)
        return {OUTPUT_NAME: tf.nn.softmax(logits)}

    write_saved_model(target, (config.picture.height, config.picture.width), outputs)


def fingerprint(config: Config, weights: Path, variant: str) -> dict[str, object]:
    """What the features of a photo depend on, beside the photo and the seed."""
    code = [Path(module.__file__ or "") for module in (features, views)]
    return {
        "variant": variant,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "picture": config.picture.model_dump(),
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    }


def feature_model(network: Network, config: Config, cache: Path, key: str) -> Path:
    """The backbone alone as a SavedModel in `cache`, written once for each `key`."""
    target = cache / f"backbone-{key}"
    if not target.is_dir():
        size = (config.picture.height, config.picture.width)
        write_saved_model(target, size, lambda image: {"features": pooled_features(network, image)})
    return target


def read_examples(
    options: argparse.Namespace, config: Config, labels: Sequence[str], network: Network, weights: Path
) -> tuple[Examples, Examples]:
    """Features of the training photos (all views) and of the validation photos (as served)."""
    index = options.index or photos.find_index(options.data)
    # Both folders are looked through first: a missing val must not show after minutes of work.
    found = {part: photos.find_photos(options.data / part, labels, index) for part in ("train", "val")}
    base = fingerprint(config, weights, options.variant)
    key = hashlib.sha256(json.dumps(base, sort_keys=True).encode()).hexdigest()[:16]
    model = feature_model(network, config, options.cache, key)
    examples = []
    for part, look in (("train", views.training_views), ("val", views.plain_view)):
        extraction = features.Extraction(
            model,
            decode=lambda data: decode_image(data, config.limits.pixels),
            views=look,
            prepare=lambda image: to_tensor(image, config.picture),
            fingerprint={**base, "part": part},
            seed=options.seed,
        )
        result = features.extract(found[part], extraction, options.cache, options.workers, part)
        report_broken(part, result)
        examples.append(Examples.of(result))
    return examples[0], examples[1]


def report_broken(part: str, result: features.Features) -> None:
    """Names the photos that could not be read; raises TrainError where a class has none left."""
    if result.broken:
        print(f"{part}: skipped {len(result.broken)} broken photos", file=sys.stderr)
    for name, reason in result.broken.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    if len({photo.label for photo in result.photos}) < 2:
        raise TrainError(f"{part}: a class has no readable photo")


def show(title: str, shares: Mapping[str, Proportion]) -> None:
    """A table of shares."""
    print(f"\n{title}")
    width = max(map(len, shares))
    for name, share in shares.items():
        print(f"  {name:{width}}  {share}")


def train(options: argparse.Namespace) -> Path:
    """The whole of it; the version folder that was written. Raises TrainError and what the modules raise."""
    config = read_config(options.config)
    labels = photos.read_labels(options.model / "labels.txt")
    if len(labels) != 2:
        raise TrainError(f"{options.model / 'labels.txt'}: {len(labels)} classes, but this head tells two apart")
    target: Path = options.model / str(options.version or next_version(options.model))
    if target.exists():
        raise TrainError(f"{target} exists already: choose another --version or move it away")
    weights = options.weights or installed_weights(VARIANTS[options.variant])
    network = load_network(VARIANTS[options.variant], weights)
    training, validation = read_examples(options, config, labels, network, weights)
    head, penalty, left_out = choose_head(training, options.source_exponent, options.penalty)
    if left_out:
        show(f"sources left out of training (penalty {penalty:g})", left_out)
    right = hits(head, validation)
    shares = {"all": proportion(right)} | by_group(right, list(validation.sources))
    show("val", shares)
    export(network, head, config, target)
    print(f"\nwrote {target}")
    return target


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/{class}/ and val/{class}/")
    model = PROJECT / "prev_trained_models" / "CAT-DOG"
    parser.add_argument("--model", type=Path, default=model, help="folder with labels.txt that gets the version")
    parser.add_argument("--version", type=int, help="number of the version folder (default: the next free one)")
    parser.add_argument("--variant", choices=VARIANTS, default="lite0", help="backbone (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="the backbone's .pth (default: the installed package's)")
    parser.add_argument("--config", type=Path, help="config.yaml with the picture recipe (default: the service's)")
    parser.add_argument("--index", type=Path, help="INDEX.csv (default: the one in the folder or its parent)")
    parser.add_argument("--penalty", type=float, nargs="+", default=[1.0, 0.3, 0.1, 0.03], help="strengths to try")
    parser.add_argument(
        "--source-exponent", type=float, default=1.0, help="a source of n photos counts as n to this power"
    )
    cache = PROJECT / ".build" / "features"
    parser.add_argument("--cache", type=Path, default=cache, help="where features are kept (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random views (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0, or 2 with one line that says what is wrong."""
    try:
        train(parse_arguments(arguments))
    except (TrainError, photos.PhotosError, WeightsError, ConfigError, ExportError, OSError) as exc:
        print(f"train: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
