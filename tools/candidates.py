"""Measures backbones, input sizes and crops against each other: accuracy from source to source, and cost.

    python tools/candidates.py DATA --json candidates.json --plot candidates.png
    python tools/candidates.py DATA --candidate lite1:200:0.875:odds --json candidates.json

A candidate is backbone:pixels:crop:head, the head `linear` (pooled features) or `odds` (also ImageNet's cats against
dogs, see animals.py). Each is fitted on one view of each training photo, with one penalty, so that all are compared
alike; train.py's own model has more views and does a little better. The JSON grows by each candidate: a stopped run
goes on from there. Cost is measured at the end, for all in one run.
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import features
import numpy as np
import photos
import views
from cost import openvino_milliseconds
from efficientnet_lite import VARIANTS, Network, WeightsError, installed_weights, load_network
from export import ExportError
from heads import Examples, fit_heads, hits, leave_one_source_out, mean_accuracy, source_accuracies
from measures import Proportion, proportion
from service import PROJECT, Config, ConfigError, decode_image, read_config, to_tensor
from train import feature_model, fingerprint, report_broken

PENALTY = 0.3
REFERENCE = "lite0:224:0.875:linear"
DEFAULT = (
    REFERENCE,
    "lite0:224:0.875:odds",
    "lite0:208:0.875:odds",
    "lite0:192:0.875:odds",
    "lite0:224:1.0:odds",
    "lite1:200:0.875:odds",
    "lite1:208:0.875:odds",
    "lite2:192:0.875:odds",
    "lite1:240:0.875:odds",
    "lite2:260:0.875:odds",
)


@dataclass(frozen=True)
class Candidate:
    """What a name such as lite0:224:0.875:odds says."""

    name: str
    variant: str
    pixels: int
    crop: float
    odds: bool

    @classmethod
    def of(cls, name: str) -> "Candidate":
        """Raises ValueError on a name of another form."""
        parts = name.split(":")
        if len(parts) != 4 or parts[0] not in VARIANTS or parts[3] not in ("linear", "odds"):
            raise ValueError(f"{name}: not backbone:pixels:crop:head")
        variant, pixels, crop, head = parts
        return cls(name, variant, int(pixels), float(crop), head == "odds")

    def config(self, config: Config) -> Config:
        """The service's settings with this candidate's picture."""
        update = {"width": self.pixels, "height": self.pixels, "crop": self.crop}
        return config.model_copy(update={"picture": config.picture.model_copy(update=update)})


def backbone(candidate: Candidate, options: argparse.Namespace) -> tuple[Network, Config, dict[str, object], Path]:
    """The network, its settings, what its features depend on, and its SavedModel in the cache."""
    config = candidate.config(read_config(options.config))
    weights = installed_weights(VARIANTS[candidate.variant])
    network = load_network(VARIANTS[candidate.variant], weights)
    base = fingerprint(config, weights, candidate.variant)
    key = f"{candidate.variant}-{candidate.pixels}"
    return network, config, base, feature_model(network, config, options.cache, key)


def examples_of(candidate: Candidate, options: argparse.Namespace, part: str) -> Examples:
    """One view of each photo of `part`, train or val; without the odds where the candidate has none."""
    network, config, base, model = backbone(candidate, options)
    found = photos.find_photos(options.data / part, photos.read_labels(options.labels), photos.find_index(options.data))
    extraction = features.Extraction(
        model,
        decode=lambda data: decode_image(data, config.limits.pixels),
        views=views.plain_view,
        prepare=lambda image: to_tensor(image, config.picture),
        fingerprint={**base, "part": part, "views": "plain"},
    )
    result = features.extract(found, extraction, options.cache, options.workers, f"{candidate.name} {part}")
    report_broken(part, result)
    examples = Examples.of(result, network)
    if not candidate.odds:
        # A feature that never changes: the head can do nothing with it.
        examples.values[..., -1] = 0
    return examples


def accuracy(share: Proportion) -> float:
    """Percent, two decimals."""
    return round(100 * share.value, 2)


def measure(candidate: Candidate, options: argparse.Namespace) -> dict[str, Any]:
    """Accuracy on val and on left-out sources, in percent."""
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
    """Milliseconds of each backbone on one core, in one run, and relative to the reference."""
    models = {name: backbone(Candidate.of(name), options)[3] for name in found}
    models[REFERENCE] = backbone(Candidate.of(REFERENCE), options)[3]
    unique = {str(path): path for path in models.values()}
    taken = openvino_milliseconds(unique)
    for name, row in found.items():
        row["milliseconds"] = round(taken[str(models[name])], 2)
        row["relative_cost"] = round(taken[str(models[name])] / taken[str(models[REFERENCE])], 2)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what the JSON does not hold yet; writes it after each candidate."""
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
        import charts  # matplotlib takes a second, and only this needs it

        rows = [(name, row["relative_cost"], row["left_out_mean"]) for name, row in found.items()]
        charts.draw_pareto(rows, options.plot)
    return found


def main(arguments: list[str] | None = None) -> int:
    """0, or 2 with one line that says what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/{class}/, val/{class}/ and INDEX.csv")
    parser.add_argument("--candidate", nargs="+", help="backbone:pixels:crop:head (default: ten of them)")
    parser.add_argument("--json", type=Path, required=True, help="the table, read and written")
    parser.add_argument("--plot", type=Path, help="write the Pareto plot there, PNG")
    parser.add_argument("--config", type=Path, help="config.yaml (default: the service's)")
    default = PROJECT / "prev_trained_models" / "CAT-DOG" / "labels.txt"
    parser.add_argument("--labels", type=Path, default=default, help="labels.txt (default: CAT-DOG's)")
    parser.add_argument("--cache", type=Path, default=PROJECT / ".build" / "features", help="where features are kept")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: %(default)s)")
    try:
        run(parser.parse_args(arguments))
    except (ValueError, photos.PhotosError, WeightsError, ConfigError, ExportError, OSError) as exc:
        print(f"candidates: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
