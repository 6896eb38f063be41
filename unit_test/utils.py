"""For tests against a running service: its URL, and one request."""

import base64
import os
from pathlib import Path
from typing import Any

import requests

# For a service elsewhere: TEST_URL=http://192.168.0.7:7998 python -m unittest ...
URL = os.environ.get("TEST_URL", "http://localhost:7998")
ENDPOINT = f"{URL}/predict"
IMAGES = Path(__file__).parent.parent / "images"
TIMEOUT_SECONDS = 30


def image_to_base64(path: Path) -> str:
    """Return the file's bytes as base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")


def predict(body: Any, endpoint: str = ENDPOINT) -> requests.Response:
    """POST ``body`` as JSON and return the answer, whatever its status."""
    return requests.post(endpoint, json=body, timeout=TIMEOUT_SECONDS)


def predict_image(name: str, endpoint: str = ENDPOINT) -> dict[str, Any]:
    """Send ``images/<name>`` and return the JSON of the answer."""
    answer: dict[str, Any] = predict({"image_b64": image_to_base64(IMAGES / name)}, endpoint).json()
    return answer
