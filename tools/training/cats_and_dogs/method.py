"""Trains CAT-DOG: its own ranges, ImageNet's odds as a feature, and a penalty chosen on left-out sources."""

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools.evaluation import photos
from tools.evaluation.measures import Proportion, by_group, proportion
from tools.service import Config, decode_image, read_config, to_tensor
from tools.training import attention
from tools.training.backbone import features, views
from tools.training.backbone.backbone import Backbone
from tools.training.cats_and_dogs import animals
from tools.training.cats_and_dogs.heads import Chosen, Examples, choose_head, hits, mean_accuracy
from tools.training.export import ATTENTION_NAME, DOMAIN_NAME, OUTPUT_NAME, Scaling, write_saved_model
from tools.training.run import TrainError
from tools.training.version import check_labels, new_version

# In the order of the model's outputs. The folders have these names in any case.
LABELS = ("CAT", "DOG")


def export(backbone: Backbone, chosen: Chosen, target: Path) -> None:
    """Write the SavedModel and its recipe: rounded backbone, mean pooling, ImageNet's odds, head, temperature, softmax.

    Beside the float32 input it has a uint8 input of pixels, which the graph scales with the recipe's numbers.
    """
    # Softmax over (-z/2, z/2) is the logistic function of z.
    scaled = chosen.head.kernel / chosen.temperature
    kernel = np.outer(scaled, [-0.5, 0.5]).astype(np.float32)
    bias = np.array([-0.5, 0.5], np.float32) * np.float32(chosen.head.bias / chosen.temperature)

    def outputs(image: Any) -> dict[str, Any]:
        import tensorflow as tf

        places = backbone.places(image)
        pooled = tf.reduce_mean(places, axis=[1, 2])
        classifier = animals.Classifier.of(backbone.network.classifier)
        imagenet, even = animals.tensors(classifier), attention.constants(backbone.config.size, places)
        odds, domain = animals.graph(pooled, *imagenet, classifier.masks)
        logits = tf.matmul(pooled, tf.constant(kernel[:-1])) + tf.matmul(odds, tf.constant(kernel[-1:]))
        return {
            OUTPUT_NAME: tf.nn.softmax(tf.nn.bias_add(logits, bias)),
            DOMAIN_NAME: domain,
            ATTENTION_NAME: attention.graph(places, pooled, *imagenet, animals.KNOWN, even),
        }

    picture = backbone.config.picture
    scale, offset = picture.scaling()
    recipe = json.loads(picture.model_dump_json(exclude_defaults=True, exclude_none=True))

    def add_recipe(folder: Path) -> None:
        # Where it comes before TensorFlow, it stands in its place.
        from tools.model_folder import write_recipe

        write_recipe(folder, recipe, LABELS)

    write_saved_model(target, backbone.config.size, outputs, True, Scaling(scale[0], offset[0]), add_recipe)


def read_examples(options: argparse.Namespace, config: Config) -> tuple[Examples, Examples, Backbone]:
    """Return the features of the training photos (all views) and validation photos (as served), and the backbone."""
    index = options.index or photos.find_index(options.photos)
    # Both folders are checked first, so that a missing val is reported at once.
    found = {part: photos.find_photos(options.photos / part, LABELS, index) for part in ("train", "val")}
    if options.calibrate or options.weights or options.variant != "lite2":
        backbone = Backbone.calibrated(config, options.variant, options.weights, found["train"], options.cache)
    else:
        backbone = Backbone.frozen(config)
    model = backbone.model(options.cache)
    examples = []
    # The random views of training photos are cut from the complete photo, so it is decoded in full size.
    training_views = partial(views.training_views, count=options.views)
    for part, look, picture in (("train", training_views, None), ("val", views.plain_view, config.picture)):
        extraction = features.Extraction(
            model,
            decode=partial(decode_image, max_pixels=config.limits.pixels, picture=picture),
            views=look,
            prepare=lambda image: to_tensor(image, config.picture),
            fingerprint={**backbone.fingerprint, "part": part, "views": options.views},
            seed=options.seed,
        )
        result = features.extract(found[part], extraction, options.cache, options.workers, part)
        report_broken(part, result)
        examples.append(Examples.of(result, backbone.network))
    return examples[0], examples[1], backbone


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
    """Train and return the version folder. Raises the errors that `train.main` reports."""
    config = read_config(options.config)
    target = new_version(options)
    check_labels(target, LABELS, options.replace_labels)
    training, validation, backbone = read_examples(options, config)
    chosen = choose_head(training, options.source_exponent, options.penalty)
    if chosen.left_out:
        show(f"sources left out of training (penalty {chosen.penalty:g})", chosen.left_out)
        print(f"  mean {mean_accuracy(chosen.left_out):.2%}; temperature {chosen.temperature:.3f}")
    right = hits(chosen.head, validation)
    shares = {"all": proportion(right)} | by_group(right, list(validation.sources))
    show("val", shares)
    export(backbone, chosen, target)
    print(f"\nwrote {target}")
    return target
