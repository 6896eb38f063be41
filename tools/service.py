"""The preprocess service's own modules, for the tools: photos are prepared here exactly as they are when served."""

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SERVICE_FOLDER = PROJECT / "app" / "preprocess_service" / "app"

sys.path.insert(0, str(SERVICE_FOLDER))

from preprocess_service.app.config import Config, ConfigError, Picture, load_config  # noqa: E402 - found through the line above
from preprocess_service.app.errors import ServiceError  # noqa: E402
from preprocess_service.app.utils import GROUND, decode_image, normalise, to_pixels, to_tensor  # noqa: E402

__all__ = [
    "GROUND",
    "Config",
    "ConfigError",
    "Picture",
    "ServiceError",
    "decode_image",
    "normalise",
    "read_config",
    "to_pixels",
    "to_tensor",
]


def read_config(path: Path | None) -> Config:
    """The service's settings from `path`, or from its own config.yaml; raises ConfigError."""
    return load_config({"SERVICE_CONFIG": str(path)} if path else {})
