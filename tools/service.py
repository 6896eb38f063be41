"""The preprocess service's modules for the tools, so that photos are prepared exactly as in the service."""

from pathlib import Path

from preprocess_service.app.config import Config, ConfigError, Picture, load_config
from preprocess_service.app.errors import ServiceError
from preprocess_service.app.imaging.colour import BACKGROUND
from preprocess_service.app.utils import decode_image, normalise, to_pixels, to_tensor

PROJECT = Path(__file__).resolve().parents[1]

__all__ = [
    "BACKGROUND",
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
    """Return the service's settings from `path`, or from its own config.yaml; raises ConfigError."""
    return load_config({"SERVICE_CONFIG": str(path)} if path else {})
