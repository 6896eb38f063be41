"""Sends photos to the service on the cluster for a minute, and counts those that got no right answer. Runs in a pod."""

import json
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

URL = "http://preprocess-service.cat-dog:7998/predict"
# From the image of the preprocess service.
PHOTO = Path("/project/images/cat_1.jpg")
PHOTOS, PER_SECOND = 300, 5


def problem(photo: bytes) -> str:
    """Send a photo over a new connection; return what went wrong, or nothing if the answer is right."""
    request = urllib.request.Request(URL, photo, {"Content-Type": "image/jpeg"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            label = json.load(answer)["label"]
    except (OSError, HTTPException) as exc:
        return str(exc) or type(exc).__name__
    return "" if label == "CAT" else f"answer {label}"


def main() -> None:
    """Send the photos at a steady rate, also while others wait for their answer."""
    photo = PHOTO.read_bytes()
    begin = time.monotonic()
    with ThreadPoolExecutor(max_workers=50) as pool:
        answers = []
        for number in range(PHOTOS):
            time.sleep(max(0.0, begin + number / PER_SECOND - time.monotonic()))
            answers.append(pool.submit(problem, photo))
    problems = Counter(filter(None, (answer.result() for answer in answers)))
    print(f"sent {PHOTOS}, lost {problems.total()}")
    for text, times in problems.most_common():
        print(f"{times} times: {text}")


if __name__ == "__main__":
    main()
