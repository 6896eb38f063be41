"""The frozen, rounded backbone of the models that are trained here: EfficientNet-Lite with ImageNet's weights."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.evaluation.photos import Photo
from tools.service import Config, resize, utils
from tools.training.backbone import features, quantization, views
from tools.training.backbone.calibration import calibrated
from tools.training.backbone.efficientnet_lite import VARIANTS, Network, installed_weights, load_network
from tools.training.backbone.quantization import Ranges, quantized_features, quantized_places
from tools.training.export import write_saved_model

# The ranges of the shipped CAT-DOG. They were calibrated on its training photos. With them every model has the same
# backbone, and a training run needs no calibration. Own ranges gave the same accuracy on validation, 139 of 140 photos
# of five kinds of things and 483 of 731 of seven sources (trained_models/): most ranges are those of ReLU6, 0 to 6.
RANGES = Path(__file__).with_name("ranges_lite2.json")

# The parts of a recipe that say what is done with an answer.
NOT_FOR_FEATURES = {"domain_threshold", "second_look"}


@dataclass(frozen=True)
class Backbone:
    """A network whose weights and activations are rounded to 8 bits, for pictures of `config`.

    `fingerprint` is everything that a photo's features depend on, except the photo, its views and the seed.
    """

    network: Network
    ranges: Ranges
    config: Config
    fingerprint: Mapping[str, object]

    @classmethod
    def frozen(cls, config: Config) -> "Backbone":
        """Return the backbone of the shipped model; raises WeightsError."""
        weights = installed_weights(VARIANTS["lite2"])
        ranges = {name: tuple(ends) for name, ends in json.loads(RANGES.read_text("utf-8")).items()}
        ranges["image"] = config.input_range
        network = load_network(VARIANTS["lite2"], weights)
        return cls(network, ranges, config, fingerprint(config, weights, "lite2") | {"ranges": ranges})

    @classmethod
    def calibrated(
        cls, config: Config, variant: str, weights: Path | None, photos: Sequence[Photo], cache: Path
    ) -> "Backbone":
        """Return a backbone whose ranges are calibrated on `photos`; raises WeightsError and CalibrationError."""
        weights = weights or installed_weights(VARIANTS[variant])
        network = load_network(VARIANTS[variant], weights)
        base = fingerprint(config, weights, variant)
        ranges = calibrated(network, photos, config, cache, base)
        return cls(network, ranges, config, base | {"ranges": ranges})

    def places(self, image: Any) -> Any:
        """TensorFlow: float32 [batch, height, width, 3] -> the last feature map, [batch, height, width, features]."""
        return quantized_places(self.network, image, self.ranges)

    def model(self, cache: Path) -> Path:
        """Return the backbone as a SavedModel in `cache`, which is written once."""

        def pooled(image: Any) -> Any:
            return quantized_features(self.network, image, self.ranges)

        return feature_model(pooled, self.config, cache, self.fingerprint)


def fingerprint(config: Config, weights: Path, variant: str) -> dict[str, object]:
    """Return everything that the features of a float32 backbone depend on, except the photo, its views and the seed."""
    code = [Path(inspect.getfile(part)) for part in (features, quantization, views, utils, resize)]
    return {
        "variant": variant,
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "picture": config.picture.model_dump(exclude=NOT_FOR_FEATURES),
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    }


def feature_model(features_of: Callable[[Any], Any], config: Config, cache: Path, base: Mapping[str, object]) -> Path:
    """Return the backbone as a SavedModel in `cache`, written once per `base`; `features_of` builds its output."""
    key = hashlib.sha256(json.dumps(dict(base), sort_keys=True).encode()).hexdigest()[:16]
    target = cache / f"backbone-{key}"
    if not target.is_dir():
        write_saved_model(target, config.size, lambda image: {"features": features_of(image)})
    return target
