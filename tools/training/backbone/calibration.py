"""Chooses the photos for calibrating the 8-bit ranges, and caches the ranges."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.photos import Photo
from tools.service import Config, decode_image, to_tensor
from tools.training.backbone.efficientnet_lite import Network
from tools.training.backbone.quantization import calibrate

Array = NDArray[np.float32]

CALIBRATION_PHOTOS = 192


class CalibrationError(Exception):
    """There is no photo to calibrate with."""


def calibration_pictures(photos: Sequence[Photo], config: Config) -> Array:
    """Return float32 [pictures, height, width, 3] of CALIBRATION_PHOTOS photos, evenly spread over the sources.

    Broken photos are skipped here; feature extraction reports them. Raises CalibrationError if all are broken.
    """
    order = [photos[number] for number in np.random.default_rng(0).permutation(len(photos))]
    before: Counter[str] = Counter()
    turns = []
    for photo in order:
        turns.append(before[photo.source])
        before[photo.source] += 1
    pictures: list[Array] = []
    # First one photo of every source, then a second one of every source, and so on.
    for number in np.argsort(turns, kind="stable"):
        if len(pictures) == CALIBRATION_PHOTOS:
            break
        with contextlib.suppress(Exception):
            image = decode_image(order[number].path.read_bytes(), config.limits.pixels, config.picture)
            pictures.append(to_tensor(image, config.picture))
    if not pictures:
        raise CalibrationError("train: no readable photo")
    return np.stack(pictures)


def calibrated(
    network: Network, photos: Sequence[Photo], config: Config, cache: Path, base: Mapping[str, object]
) -> dict[str, Any]:
    """Return the ranges of `network` for `photos`. They are cached in `cache`, by the photos and `base`."""
    files = [(str(photo.path), photo.path.stat().st_size, photo.path.stat().st_mtime_ns) for photo in photos]
    text = json.dumps([dict(base), CALIBRATION_PHOTOS, files], sort_keys=True)
    path = cache / f"ranges-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        ranges = calibrate(
            network,
            calibration_pictures(photos, config),
            image_range=config.input_range,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ranges), "utf-8")
    return dict(json.loads(path.read_text("utf-8")))
