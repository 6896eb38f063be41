"""Compares backbones, input sizes, crops and cuts: accuracy across sources, and cost.

    python -m tools.evaluation.candidates DATA --json candidates.json --plot candidates.png
    python -m tools.evaluation.candidates DATA --candidate lite1:200:0.875:odds --json candidates.json

A candidate is backbone:pixels:crop:head[:views][:int8]. The crop is a part of the centre, or `pad`: the whole photo
with grey borders. The head is `linear` (pooled features), `odds` (also ImageNet's odds of cats and dogs, see
animals.py), or `cut15`: linear on block 15, without the later blocks. All heads are fitted on one view of each training
photo with one penalty, so that they are comparable; with several views the penalty is train.py's. `int8` rounds the
backbone to 8 bits (see quantization.py). Each candidate is added to the JSON, so a stopped run can be continued. At the
end the costs of all backbones are measured in one run, together with the whole model of --model.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from tools.evaluation import photos
from tools.evaluation.cost import openvino_milliseconds
from tools.evaluation.measures import Proportion, proportion
from tools.service import BACKGROUND, PROJECT, Config, ConfigError, decode_image, read_config, to_tensor
from tools.training.backbone import features, views
from tools.training.backbone.backbone import feature_model, fingerprint
from tools.training.backbone.calibration import CalibrationError, calibrated
from tools.training.backbone.efficientnet_lite import (
    VARIANTS,
    Network,
    WeightsError,
    installed_weights,
    load_network,
    pooled_features,
)
from tools.training.backbone.quantization import quantized_features
from tools.training.cats_and_dogs.heads import (
    Examples,
    fit_heads,
    hits,
    leave_one_source_out,
    mean_accuracy,
    source_accuracies,
)
from tools.training.cats_and_dogs.method import report_broken
from tools.training.export import ExportError

# The penalty of train.py.
PENALTY = 0.3
SHIPPED = "shipped"
# The course's own model, on other photos (5,000 of Kaggle's and 1,632 of seven other sources). Only a rough comparison.
TUTORIAL = ("the tutorial's own, on other photos", 0.3, 90.4)
REFERENCE = "lite0:224:0.875:linear"
DEFAULT = (
    REFERENCE,
    "lite0:224:0.875:odds",
    "lite0:160:0.875:odds",
    "lite2:192:0.875:odds",
    "lite0:224:0.875:odds:int8",
    "lite0:224:0.95:odds:int8",
    "lite1:224:0.95:odds:int8",
    "lite2:192:0.875:odds:int8",
    "lite2:208:0.95:odds:int8",
    "lite2:224:0.875:odds:int8",
    "lite2:224:0.95:odds:2:int8",
    "lite2:240:0.875:odds:int8",
    "lite2:240:0.95:odds:int8",
    "lite2:240:0.95:odds:2:int8",
)

# `cut` is followed by the number of blocks that are kept.
CUT = "cut"


@dataclass(frozen=True)
class Candidate:
    """The parts of a name such as lite0:224:0.875:odds."""

    name: str
    variant: str
    pixels: int
    crop: float
    pad: bool
    head: str
    views: int
    int8: bool

    @property
    def odds(self) -> bool:
        """Whether ImageNet's odds are a feature."""
        return self.head == "odds"

    @property
    def blocks(self) -> int | None:
        """How many blocks are kept; None for the whole network."""
        return int(self.head.removeprefix(CUT)) if self.head.startswith(CUT) else None

    @classmethod
    def of(cls, name: str) -> "Candidate":
        """Parse a name; raises ValueError if it has another form."""
        found = re.fullmatch(rf"(\w+):(\d+):(pad|[01]\.\d+):(linear|odds|{CUT}\d+)(?::(\d+))?(:int8)?", name)
        if not found or found[1] not in VARIANTS:
            raise ValueError(f"{name}: not backbone:pixels:crop:head[:views][:int8]")
        variant, pixels, crop, head, views, int8 = found.groups()
        pad = crop == "pad"
        return cls(name, variant, int(pixels), 1.0 if pad else float(crop), pad, head, int(views or 1), bool(int8))

    def config(self, config: Config) -> Config:
        """Return the service's settings with the picture size and crop of this candidate."""
        return config.with_picture(size={"width": self.pixels, "height": self.pixels}, crop_pct=self.crop)

    def framed(self, image: Image.Image) -> Image.Image:
        """Return the photo, or with `pad` a square that contains all of it."""
        side = max(image.size)
        return ImageOps.pad(image, (side, side), color=BACKGROUND) if self.pad else image


def backbone(candidate: Candidate, options: argparse.Namespace) -> tuple[Network, Config, dict[str, object], Path]:
    """Return the network, its settings, the fingerprint of its features, and its SavedModel in the cache."""
    config = candidate.config(read_config(options.config))
    weights = installed_weights(VARIANTS[candidate.variant])
    network = load_network(VARIANTS[candidate.variant], weights)
    base = fingerprint(config, weights, candidate.variant)
    if candidate.pad:
        base["pad"] = BACKGROUND
    if candidate.blocks:
        network = dataclasses.replace(network, blocks=network.blocks[: candidate.blocks], head=None)
        base["blocks"] = candidate.blocks
    if not candidate.int8:
        return (
            network,
            config,
            base,
            feature_model(lambda image: pooled_features(network, image), config, options.cache, base),
        )
    base["ranges"] = ranges = calibrated(network, photos_of("train", options), config, options.cache, base)
    model = feature_model(lambda image: quantized_features(network, image, ranges), config, options.cache, base)
    return network, config, base, model


def photos_of(part: str, options: argparse.Namespace) -> list[photos.Photo]:
    """Return the photos of `part`, train or val."""
    return photos.find_photos(options.data / part, photos.read_labels(options.labels), photos.find_index(options.data))


def examples_of(candidate: Candidate, options: argparse.Namespace, part: str) -> Examples:
    """Return the features of the photos of `part`, train or val. For val there is always one view."""
    network, config, base, model = backbone(candidate, options)
    several = part == "train" and candidate.views > 1
    extraction = features.Extraction(
        model,
        decode=lambda data: decode_image(data, config.limits.pixels, None if several else config.picture),
        views=views.training_views if several else views.plain_view,
        prepare=lambda image: to_tensor(candidate.framed(image), config.picture),
        # The same as in train.py, so that both programs share the cache.
        fingerprint={**base, "part": part} | ({} if several else {"views": "plain"}),
    )
    result = features.extract(
        photos_of(part, options), extraction, options.cache, options.workers, f"{candidate.name} {part}"
    )
    report_broken(part, result)
    return Examples.of(result, network if candidate.odds else None).first_views(candidate.views)


def accuracy(share: Proportion) -> float:
    """Return the share in percent with two decimals."""
    return round(100 * share.value, 2)


def measure(candidate: Candidate, options: argparse.Namespace) -> dict[str, Any]:
    """Return the accuracy on val and on left-out sources, in percent."""
    training, validation = (examples_of(candidate, options, part) for part in ("train", "val"))
    heads = fit_heads(training, 1.0, [PENALTY])
    (logits,) = leave_one_source_out(training, 1.0, [PENALTY], heads)
    left_out = source_accuracies(training, logits)
    right = hits(heads[0], validation)
    kaggle = np.array([source.startswith("asirra") for source in validation.sources])
    return {
        "val": accuracy(proportion(right)),
        "val_kaggle": accuracy(proportion(right[kaggle])),
        "val_rest": accuracy(proportion(right[~kaggle])),
        "left_out_mean": round(100 * mean_accuracy(left_out), 2),
        "left_out": {name: accuracy(share) for name, share in left_out.items()},
    }


def add_costs(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Add the milliseconds of each backbone on one core, measured in one run, and relative to the reference."""
    models = {name: backbone(Candidate.of(name), options)[3] for name in found if name != SHIPPED}
    models[REFERENCE] = backbone(Candidate.of(REFERENCE), options)[3]
    if options.model:
        found.setdefault(SHIPPED, {})
        models[SHIPPED] = options.model
    taken = openvino_milliseconds({str(path): path for path in models.values()})
    for name, row in found.items():
        row["milliseconds"] = round(taken[str(models[name])], 2)
        row["relative_cost"] = round(taken[str(models[name])] / taken[str(models[REFERENCE])], 2)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the candidates that the JSON lacks; write it after each of them."""
    wanted = [Candidate.of(name) for name in options.candidate or DEFAULT]
    found: dict[str, Any] = json.loads(options.json.read_text("utf-8")) if options.json.is_file() else {}
    for candidate in wanted:
        if candidate.name not in found:
            found[candidate.name] = measure(candidate, options)
            print(candidate.name, json.dumps(found[candidate.name]), flush=True)
            options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    add_costs(found, options)
    options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if options.plot:
        from tools.evaluation.report import pictures  # importing matplotlib takes a second

        rows = [(name, row["relative_cost"], row["left_out_mean"]) for name, row in found.items() if "val" in row]
        rows.append(TUTORIAL)
        pictures.draw_pareto(rows, options.plot)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/{class}/, val/{class}/ and INDEX.csv")
    parser.add_argument("--candidate", nargs="+", help="backbone:pixels:crop:head[:views][:int8] (default: 14 of them)")
    parser.add_argument("--json", type=Path, required=True, help="the results; read and written")
    parser.add_argument("--plot", type=Path, help="write a Pareto plot (PNG) to this file")
    parser.add_argument("--model", type=Path, help="a version folder whose cost is measured too")
    parser.add_argument("--config", type=Path, help="preprocessor_config.json (default: that of training)")
    default = PROJECT / "prev_trained_models" / "CAT-DOG" / "labels.txt"
    parser.add_argument("--labels", type=Path, default=default, help="labels.txt (default: CAT-DOG's)")
    parser.add_argument("--cache", type=Path, default=PROJECT / ".build" / "features", help="where features are kept")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: %(default)s)")
    try:
        run(parser.parse_args(arguments))
    except (ValueError, CalibrationError, photos.PhotosError, WeightsError, ConfigError, ExportError, OSError) as exc:
        print(f"candidates: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
