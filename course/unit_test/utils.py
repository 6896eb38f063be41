"""Helps the tests: sends a photo to the service."""

import base64
import os
from pathlib import Path

import requests

ENDPOINT = os.environ.get("COURSE_URL", "http://127.0.0.1:7999") + "/predict"
IMAGES = Path(__file__).parents[2] / "images"


def image_to_base64(path: Path) -> str:
    """Return the file's bytes as base64."""
    return base64.b64encode(path.read_bytes()).decode()


def predict(image_b64: str) -> requests.Response:
    """Send base64 to the service and return its response."""
    return requests.post(ENDPOINT, json={"image_b64": image_b64}, timeout=30)
