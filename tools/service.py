"""The preprocess service's modules for the tools, so that photos are prepared exactly as in the service."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocess_service.app import config as service_config
from preprocess_service.app import utils
from preprocess_service.app.config import ConfigError, Limits, load_config
from preprocess_service.app.errors import ServiceError
from preprocess_service.app.imaging import resize
from preprocess_service.app.imaging.colour import BACKGROUND
from preprocess_service.app.imaging.resize import Pixels
from preprocess_service.app.recipe import Box, PreprocessorConfig, RecipeError, SecondLook, parse_recipe

PROJECT = Path(__file__).resolve().parents[1]
# How photos are prepared for a model that is trained here. EfficientNet-Lite was trained on (pixel - 127) / 128: 127,
# not 127.5, is in its authors' own input pipeline.
TRAINING = PreprocessorConfig.model_validate(
    {
        "size": {"height": 240, "width": 240},
        "resize_mode": "crop",
        "crop_pct": 0.95,
        "resample": 2,
        "decode": "fast",
        "do_rescale": True,
        "rescale_factor": 0.0078125,
        "do_normalize": True,
        "image_mean": 0.9921875,
        "image_std": 1.0,
        "domain_threshold": 0.3,
        "second_look": {
            "max_confidence": 0.9,
            "min_domain_score": 0.15,
            "attention_threshold": 0.5,
            "min_side": 0.6,
            "weight": 0.5,
            "temperature": 1.0,
        },
    }
)

__all__ = [
    "BACKGROUND",
    "TRAINING",
    "Box",
    "Config",
    "ConfigError",
    "PreprocessorConfig",
    "SecondLook",
    "ServiceError",
    "decode_image",
    "normalise",
    "prepare",
    "read_config",
    "resize",
    "to_pixels",
    "to_tensor",
    "utils",
]


@dataclass(frozen=True)
class Config:
    """What the tools need to know: the service's settings, and how photos are prepared."""

    service: service_config.Config
    picture: PreprocessorConfig = TRAINING

    @property
    def limits(self) -> Limits:
        """What a photo may cost."""
        return self.service.limits

    def with_picture(self, **changes: object) -> "Config":
        """The same with other keys of the recipe."""
        return replace(self, picture=PreprocessorConfig.model_validate(self.picture.model_dump() | changes))

    @property
    def input_range(self) -> tuple[float, float]:
        """The least and the largest number of the model's input."""
        scale, offset = self.picture.scaling()
        return min(offset), max(255 * one + other for one, other in zip(scale, offset, strict=True))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        geometry = self.picture.geometry()
        return geometry.height, geometry.width


def read_config(recipe: Path | None) -> Config:
    """The service's settings, and the recipe of a `preprocessor_config.json`, or `TRAINING`; raises ConfigError."""
    config = Config(load_config({}))
    if recipe is None:
        return config
    try:
        text = recipe.read_text(encoding="utf-8")
        # Labels are no part of that file.
        document = f'{{"preprocessor_config": {text}, "labels": ["1", "2"]}}'
        return Config(config.service, parse_recipe(document).preprocessor_config)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{recipe} can't be read: {exc}") from exc
    except RecipeError as exc:
        raise ConfigError(f"{recipe}: {exc}") from exc


def decode_image(data: bytes, max_pixels: int, picture: PreprocessorConfig | None = None) -> Image.Image:
    """See `utils.decode_image`."""
    return utils.decode_image(data, max_pixels, picture.geometry() if picture else None)


def to_pixels(image: Image.Image, picture: PreprocessorConfig) -> Pixels:
    """See `resize.resize`."""
    return resize.resize(image, picture.geometry())


def normalise(pixels: Pixels, picture: PreprocessorConfig) -> NDArray[np.float32]:
    """See `resize.normalise`."""
    return resize.normalise(pixels, picture.scaling())


def to_tensor(image: Image.Image, picture: PreprocessorConfig) -> NDArray[np.float32]:
    """The input of `serving_default` of a photo in RGB: float32 `[height, width, 3]`."""
    return normalise(to_pixels(image, picture), picture)


def prepare(data: bytes, config: Config, box: Box | None = None) -> NDArray[np.float32]:
    """The input of `serving_default` of a photo's file: float32 `[height, width, 3]`; `box` as in `Geometry`."""
    geometry = config.picture.geometry().model_copy(update={"box": box})
    image = utils.decode_image(data, config.limits.pixels, geometry)
    return resize.normalise(resize.resize(image, geometry), config.picture.scaling())
