"""Sends photos to the service on the cluster for a minute, and counts those that got no right answer. Runs in a pod."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

URL = "http://preprocess-service.cat-dog:7998/predict"
# From the image of the preprocess service.
PHOTO = Path("/project/images/cat_1.jpg")
PHOTOS, PER_SECOND = 1200, 20


def is_answered(photo: bytes) -> bool:
    """Send a photo over a new connection; return whether the answer is right."""
    request = urllib.request.Request(URL, photo, {"Content-Type": "image/jpeg"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(json.load(answer)["label"] == "CAT")
    except (OSError, HTTPException):
        return False


def main() -> None:
    """Send a photo every 50 ms, also while others wait for their answer."""
    photo = PHOTO.read_bytes()
    with ThreadPoolExecutor(max_workers=50) as pool:
        answers = []
        begin = time.monotonic()
        for number in range(PHOTOS):
            time.sleep(max(0.0, begin + number / PER_SECOND - time.monotonic()))
            answers.append(pool.submit(is_answered, photo))
    lost = sum(not answer.result() for answer in answers)
    print(f"sent {PHOTOS}, lost {lost}")


if __name__ == "__main__":
    main()
