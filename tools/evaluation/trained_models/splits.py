"""The fixed lists of photos: their class, and whether they are for training or for validation."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools.evaluation.photos import Photo, PhotosError
from tools.service import Config, decode_image, to_tensor
from tools.training.backbone import features, views
from tools.training.backbone.backbone import Backbone, feature_model
from tools.training.backbone.efficientnet_lite import pooled_features
from tools.training.run import Array, Numbers, Part

NAMES = ("kinds", "sources")


@dataclass(frozen=True)
class Photos:
    """All photos of both lists. `kinds`, `sources` and `animals` are object [photos]: the class in a list, or "".

    `animals` is cat or dog. `validation` is bool [photos]. `rounded` is float16 [photos, 2 views, features] of the
    backbone in 8 bits, `exact` float32 [photos, 2 views, features] of the backbone in float32.
    """

    photos: list[Photo]
    kinds: Any
    sources: Any
    animals: Any
    validation: Any
    rounded: Any
    exact: Array

    def part(self, rows: Numbers, classes: Numbers) -> Part:
        """Return these photos for `fit_head`; `classes` are their numbers."""
        chosen = [Photo(self.photos[row].path, int(label), "") for row, label in zip(rows, classes, strict=True)]
        return Part(chosen, self.rounded[rows], np.arange(len(rows)))


def read_photos(data: Path, backbone: Backbone, cache: Path, workers: int) -> Photos:
    """Return the photos of both lists in `data`, which has the folders catdog and neither; raises PhotosError."""
    rows = []
    for name in NAMES:
        with Path(__file__).with_name(f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows += [(name, row["path"], row["class"], row["part"]) for row in csv.DictReader(stream)]
    missing = [path for _, path, _, _ in rows if not (data / path).is_file()]
    if missing:
        raise PhotosError(f"{data}: {len(missing)} of {len(rows)} photos are missing, for example {missing[0]}")
    photos = [Photo(data / path, 0, label) for _, path, label, _ in rows]
    rounded = compute(photos, backbone.model(cache), backbone.config, cache, workers, dict(backbone.fingerprint))
    base = {**backbone.fingerprint, "ranges": None}
    model = feature_model(partial(pooled_features, backbone.network), backbone.config, cache, base)
    exact = compute(photos, model, backbone.config, cache, workers, base)
    if len(rounded.photos) != len(rows):
        raise PhotosError(f"{data}: photos can't be read: {list(rounded.broken)[:3]}")

    def column(make: Callable[[tuple[str, str, str, str]], str]) -> Any:
        return np.array([make(row) for row in rows], object)

    return Photos(
        photos,
        column(lambda row: row[2] if row[0] == "kinds" else ""),
        column(lambda row: row[2] if row[0] == "sources" else ""),
        column(lambda row: row[1].split("/")[2] if row[0] == "sources" else ""),
        np.array([row[3] == "val" for row in rows]),
        rounded.values,
        exact.values.astype(np.float32),
    )


def compute(
    photos: list[Photo], model: Path, config: Config, cache: Path, workers: int, fingerprint: dict[str, object]
) -> features.Features:
    """Return the features of the photos and of their mirror images."""
    extraction = features.Extraction(
        model,
        decode=partial(decode_image, max_pixels=config.limits.pixels, picture=config.picture),
        views=views.photo_and_mirror_image,
        prepare=lambda image: to_tensor(image, config.picture),
        fingerprint={**fingerprint, "views": "photo and mirror image"},
    )
    return features.extract(photos, extraction, cache, workers, "float32" if not fingerprint["ranges"] else "8 bits")
