"""The ways to prepare photos for a model: the usual geometries, scales and colour orders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from preprocess_service.app.imaging.resize import resize
from preprocess_service.app.recipe import RESAMPLING, PreprocessorConfig, Resampling
from tools.importing.network import Array, ImportProblem, InputSpec, Numbers
from tools.importing.source import Source

_OURS: dict[str, Any] = {"decode": "exact", "do_rescale": False, "do_normalize": False}


@dataclass(frozen=True)
class Way:
    """A usual geometry. `group` and `name` are values of --resize. `user`: the functions that work this way."""

    group: str
    name: str
    filter: Resampling
    antialias: bool
    whole: bool
    user: str

    def config(self, width: int, height: int) -> dict[str, Any]:
        """The keys of ``preprocessor_config.json``."""
        keys: dict[str, Any] = {
            "resample": RESAMPLING.index(self.filter),
            "antialias": self.antialias,
            "resize_dtype": "uint8" if self.whole else "float32",
        }
        if self.group == "resize-crop":
            edge = round(max(width, height) * 256 / 224)
            size = {"size": {"shortest_edge": edge}, "crop_size": {"height": height, "width": width}}
            return {**size, "do_center_crop": True, **keys, **_OURS}
        return {"size": {"height": height, "width": width}, "resize_mode": self.group, **keys, **_OURS}


# The first of a group is the default of the group.
WAYS = (
    Way("crop", "crop-lanczos", "lanczos", True, True, "Teachable Machine, ImageOps.fit"),
    Way("crop", "crop-bicubic", "bicubic", True, True, "ImageOps.fit of Pillow"),
    Way("crop", "crop-bilinear", "bilinear", True, True, "Pillow, CenterCrop before Resize"),
    Way("crop", "crop-tensorflow", "bilinear", False, False, "image_dataset_from_directory(crop_to_aspect_ratio)"),
    Way("stretch", "stretch-tensorflow", "bilinear", False, False, "image_dataset_from_directory, tf.image.resize"),
    Way("stretch", "stretch-nearest", "nearest", True, True, "load_img(target_size), ImageDataGenerator"),
    Way("stretch", "stretch-bilinear", "bilinear", True, True, "Image.resize(BILINEAR), torchvision's Resize"),
    Way("stretch", "stretch-bicubic", "bicubic", True, True, "Image.resize of Pillow"),
    Way("stretch", "stretch-lanczos", "lanczos", True, True, "Image.resize(LANCZOS)"),
    Way("stretch", "stretch-opencv", "bilinear", False, True, "cv2.resize"),
    Way("stretch", "stretch-area", "box", True, True, "cv2.resize(INTER_AREA)"),
    Way("stretch", "stretch-tensorflow-antialias", "bilinear", True, False, "tf.image.resize(antialias=True)"),
    Way("pad", "pad-tensorflow", "bilinear", False, False, "tf.image.resize_with_pad"),
    Way("pad", "pad-bicubic", "bicubic", True, True, "ImageOps.pad of Pillow"),
    Way("pad", "pad-bilinear", "bilinear", True, True, "ImageOps.pad(BILINEAR)"),
    Way("resize-crop", "resize-crop-bilinear", "bilinear", True, True, "torchvision's Resize(256), CenterCrop(224)"),
    Way("resize-crop", "resize-crop-bicubic", "bicubic", True, True, "timm, Hugging Face"),
)
RESIZES = tuple(dict.fromkeys([*(way.group for way in WAYS), *(way.name for way in WAYS)]))

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# By the values of --scale. The first of each is the default.
SCALES: dict[str, tuple[Numbers, ...]] = {
    "-1..1": (
        Numbers(1 / 127.5, (1.0,) * 3),
        Numbers(1 / 127.0, (1.0,) * 3),
        Numbers(1 / 128.0, (127 / 128,) * 3),
    ),
    "0..1": (Numbers(1 / 255),),
    "0..255": (Numbers(),),
    "imagenet": (Numbers(1 / 255, _IMAGENET_MEAN, _IMAGENET_STD),),
    "caffe": (Numbers(1.0, (123.68, 116.779, 103.939)),),
}


@dataclass(frozen=True)
class Candidate:
    """One way to prepare a photo. `resize`, `scale`: values of the options. `reverse`: swap the labels of a sigmoid."""

    resize: str
    scale: str
    config: Mapping[str, Any]
    numbers: Numbers
    reverse: bool = False

    @property
    def order(self) -> str:
        """The value of --order."""
        return "bgr" if self.numbers.bgr else "rgb"

    def pixels(self, image: Image.Image) -> Array:
        """Return the pixels that the preprocess service sends, ``[height, width, 3]``."""
        return resize(image, PreprocessorConfig.model_validate(self.config).geometry())


@dataclass(frozen=True)
class Wanted:
    """The way to prepare photos as far as the user gave it. None: open."""

    resize: str | None = None
    scale: str | None = None
    order: str | None = None
    numbers: Numbers | None = None
    config: Mapping[str, Any] | None = None


def candidates(spec: InputSpec, width: int, height: int, wanted: Wanted, reverse: bool) -> list[Candidate]:
    """Return all ways that the options allow, the likelier ones first."""
    if wanted.config is not None:
        ways = [("preprocessor_config.json", dict(wanted.config))]
    else:
        ways = [(way.name, way.config(width, height)) for way in WAYS if wanted.resize in (None, way.group, way.name)]
    scales = [
        (name, numbers)
        for name, several in SCALES.items()
        for numbers in several
        if wanted.numbers is None and wanted.scale in (None, name)
    ]
    if wanted.numbers is not None:
        scales = [("as given", wanted.numbers)]
    elif wanted.scale is None and np.dtype(spec.dtype).kind in "ui":
        # Integer inputs are pixels. Signed ones are around 0.
        scales = [("0..255", Numbers(mean=(128.0,) * 3 if spec.dtype == "int8" else (0.0,) * 3))]
    if spec.channels == 1:
        variants = [(False, False), (False, True)]
    else:
        variants = [(order == "bgr", False) for order in ("rgb", "bgr") if wanted.order in (None, order)]
    return [
        Candidate(
            name,
            scale,
            config | ({"do_grayscale": True} if grey else {}),
            replace(numbers, bgr=bgr, grey_photo=grey),
            swapped,
        )
        for name, config in ways
        for scale, numbers in scales
        for bgr, grey in variants
        for swapped in ([False, True] if reverse else [False])
    ]


def fitted(image: Image.Image, width: int, height: int) -> Array:
    """Return the pixels of a photo with the first geometry, for checks where any geometry will do."""
    return resize(image, PreprocessorConfig.model_validate(WAYS[0].config(width, height)).geometry())


def given_config(source: Source) -> PreprocessorConfig | None:
    """Read Hugging Face's `preprocessor_config.json` beside the model; None if there is none; raises ImportProblem."""
    path = source.beside("preprocessor_config.json")
    if path is None:
        return None
    try:
        return PreprocessorConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as exc:
        first = str(exc.errors()[0]["msg"]) if isinstance(exc, ValidationError) else str(exc)
        raise ImportProblem(f"{path.name} beside the model can't be used: {first}") from exc


def wanted_of(wanted: Wanted, source: Source) -> Wanted:
    """Return the options, completed from a `preprocessor_config.json` beside the model."""
    config = given_config(source)
    if config is None:
        return wanted
    if wanted.resize is None:
        kept = {**config.model_dump(mode="json", exclude_none=True), **_OURS}
        for key in ("rescale_factor", "image_mean", "image_std"):
            kept.pop(key, None)
        wanted = replace(wanted, config=kept)
    if wanted.scale is None and wanted.numbers is None:
        numbers = Numbers(
            config.rescale_factor if config.do_rescale else 1.0,
            config.image_mean if config.do_normalize else (0.0,) * 3,
            config.image_std if config.do_normalize else (1.0,) * 3,
        )
        wanted = replace(wanted, numbers=numbers)
    return wanted
