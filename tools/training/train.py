"""Trains a two-class head on an EfficientNet-Lite backbone, and writes a SavedModel version.

    python -m tools.training.train DATA --model prev_trained_models/CAT-DOG

DATA contains train/{class}/ and val/{class}/ with photos. The classes have the names of labels.txt, in any case. DATA
may contain INDEX.csv with the columns path and source. The backbone keeps its ImageNet weights, rounded to 8 bits, as
are its activations (see quantization.py). The head is a logistic regression. Its inputs are the pooled features of
several views of each training photo from the rounded backbone, and the odds of ImageNet's own classifier for dogs and
cats (see animals.py). Photos are prepared with the preprocess service's own functions and the recipe of its
config.yaml. Of several penalties the best on left-out sources is chosen (leave one source out); the temperature is
fitted there too. Features are cached in --cache, so a stopped run can be continued.
"""

import argparse
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.evaluation import photos
from tools.evaluation.measures import Proportion, by_group, proportion
from tools.service import PROJECT, Config, ConfigError, decode_image, read_config, resize, to_tensor, utils
from tools.training.backbone import features, quantization, views
from tools.training.backbone.calibration import CalibrationError, calibrated
from tools.training.backbone.efficientnet_lite import VARIANTS, Network, WeightsError, installed_weights, load_network
from tools.training.backbone.quantization import Ranges, quantized_features
from tools.training.cats_and_dogs import animals
from tools.training.cats_and_dogs.heads import Chosen, Examples, HeadError, choose_head, hits, mean_accuracy
from tools.training.export import DOMAIN_NAME, OUTPUT_NAME, ExportError, Scaling, next_version, write_saved_model

Array = NDArray[np.float32]


class TrainError(Exception):
    """Training can't continue; the message says why."""


def export(
    network: Network, ranges: Ranges, chosen: Chosen, config: Config, labels: Sequence[str], target: Path
) -> None:
    """Write the SavedModel and its recipe: rounded backbone, mean pooling, ImageNet's odds, head, temperature, softmax.

    Beside the float32 input it has a uint8 input of pixels, which the graph scales with the recipe's numbers.
    """
    # Softmax over (-z/2, z/2) is the logistic function of z.
    scaled = chosen.head.kernel / chosen.temperature
    kernel = np.outer(scaled, [-0.5, 0.5]).astype(np.float32)
    bias = np.array([-0.5, 0.5], np.float32) * np.float32(chosen.head.bias / chosen.temperature)

    def outputs(image: Any) -> dict[str, Any]:
        import tensorflow as tf

        pooled = quantized_features(network, image, ranges)
        odds, domain = animals.graph(pooled, animals.Classifier.of(network.classifier))
        logits = tf.matmul(pooled, tf.constant(kernel[:-1])) + tf.matmul(odds, tf.constant(kernel[-1:]))
        return {OUTPUT_NAME: tf.nn.softmax(tf.nn.bias_add(logits, bias)), DOMAIN_NAME: domain}

    scale, offset = config.picture.scaling()
    recipe = json.loads(config.picture.model_dump_json(exclude_defaults=True, exclude_none=True))

    def add_recipe(folder: Path) -> None:
        # Where it comes before TensorFlow, it stands in its place.
        from tools.model_folder import write_recipe

        write_recipe(folder, recipe, labels)

    write_saved_model(target, config.size, outputs, True, Scaling(scale[0], offset[0]), add_recipe)


def fingerprint(config: Config, weights: Path, variant: str) -> dict[str, object]:
    """Return everything that a photo's features depend on, except the photo and the seed."""
    code = [Path(inspect.getfile(part)) for part in (features, quantization, views, utils, resize)]
    return {
        "variant": variant,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "picture": config.picture.model_dump(),
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    }


def feature_model(features_of: Callable[[Any], Any], config: Config, cache: Path, base: Mapping[str, object]) -> Path:
    """Return the backbone as a SavedModel in `cache`, written once per `base`; `features_of` builds its output."""
    key = hashlib.sha256(json.dumps(dict(base), sort_keys=True).encode()).hexdigest()[:16]
    target = cache / f"backbone-{key}"
    if not target.is_dir():
        write_saved_model(target, config.size, lambda image: {"features": features_of(image)})
    return target


def read_examples(
    options: argparse.Namespace, config: Config, labels: Sequence[str], network: Network, weights: Path
) -> tuple[Examples, Examples, Ranges]:
    """Return the features of the training photos (all views) and validation photos (as served), and the ranges."""
    index = options.index or photos.find_index(options.data)
    # Both folders are checked first, so that a missing val is reported at once.
    found = {part: photos.find_photos(options.data / part, labels, index) for part in ("train", "val")}
    base = fingerprint(config, weights, options.variant)
    base["ranges"] = ranges = calibrated(network, found["train"], config, options.cache, base)
    model = feature_model(lambda image: quantized_features(network, image, ranges), config, options.cache, base)
    examples = []
    # The random views of training photos are cut from the complete photo, so it is decoded in full size.
    for part, look, picture in (("train", views.training_views, None), ("val", views.plain_view, config.picture)):
        extraction = features.Extraction(
            model,
            decode=partial(decode_image, max_pixels=config.limits.pixels, picture=picture),
            views=look,
            prepare=lambda image: to_tensor(image, config.picture),
            fingerprint={**base, "part": part},
            seed=options.seed,
        )
        result = features.extract(found[part], extraction, options.cache, options.workers, part)
        report_broken(part, result)
        examples.append(Examples.of(result, network))
    return examples[0], examples[1], ranges


def report_broken(part: str, result: features.Features) -> None:
    """Print the photos that could not be read; raises TrainError if a class has no readable ones."""
    if result.broken:
        print(f"{part}: skipped {len(result.broken)} broken photos", file=sys.stderr)
    for name, reason in result.broken.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    if len({photo.label for photo in result.photos}) < 2:
        raise TrainError(f"{part}: a class has no readable photo")


def show(title: str, shares: Mapping[str, Proportion]) -> None:
    """Print a table of shares."""
    print(f"\n{title}")
    width = max(map(len, shares))
    for name, share in shares.items():
        print(f"  {name:{width}}  {share}")


def train(options: argparse.Namespace) -> Path:
    """Train and return the version folder. Raises TrainError and the errors of the used modules."""
    config = read_config(options.config)
    labels = photos.read_labels(options.model / "labels.txt")
    if len(labels) != 2:
        raise TrainError(f"{options.model / 'labels.txt'}: {len(labels)} classes, but this head needs two")
    target: Path = options.model / str(options.version or next_version(options.model))
    if target.exists():
        raise TrainError(f"{target} exists already: choose another --version or move it away")
    weights = options.weights or installed_weights(VARIANTS[options.variant])
    network = load_network(VARIANTS[options.variant], weights)
    training, validation, ranges = read_examples(options, config, labels, network, weights)
    training = training.first_views(options.views)
    chosen = choose_head(training, options.source_exponent, options.penalty)
    if chosen.left_out:
        show(f"sources left out of training (penalty {chosen.penalty:g})", chosen.left_out)
        print(f"  mean {mean_accuracy(chosen.left_out):.2%}; temperature {chosen.temperature:.3f}")
    right = hits(chosen.head, validation)
    shares = {"all": proportion(right)} | by_group(right, list(validation.sources))
    show("val", shares)
    export(network, ranges, chosen, config, [label.upper() for label in labels], target)
    print(f"\nwrote {target}")
    return target


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/{class}/ and val/{class}/")
    model = PROJECT / "prev_trained_models" / "CAT-DOG"
    parser.add_argument("--model", type=Path, default=model, help="model folder with labels.txt, for the new version")
    parser.add_argument("--version", type=int, help="number of the version folder (default: the next free one)")
    parser.add_argument("--variant", choices=VARIANTS, default="lite2", help="backbone (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="the backbone's .pth (default: the installed package's)")
    parser.add_argument("--config", type=Path, help="preprocessor_config.json (default: CAT-DOG's)")
    parser.add_argument("--index", type=Path, help="INDEX.csv (default: the one in the folder or its parent)")
    parser.add_argument("--penalty", type=float, nargs="+", default=[0.3], help="L2 penalties to try (default: 0.3)")
    parser.add_argument(
        "--source-exponent", type=float, default=1.0, help="a source of n photos counts as n to this power (default: 1)"
    )
    most = 2 + views.RANDOM_VIEWS
    parser.add_argument("--views", type=int, default=2, choices=range(1, most + 1), help="views per photo (default: 2)")
    cache = PROJECT / ".build" / "features"
    parser.add_argument("--cache", type=Path, default=cache, help="folder for features (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random views (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    try:
        train(parse_arguments(arguments))
    except (
        TrainError,
        CalibrationError,
        HeadError,
        photos.PhotosError,
        WeightsError,
        ConfigError,
        ExportError,
        OSError,
    ) as exc:
        print(f"train: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: stopped; the same command continues from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
