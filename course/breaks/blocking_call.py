"""Shows how long a light request waits while the service works on large photos.

    python course/breaks/blocking_call.py

GET /openapi.json needs no photo and no model. The script asks for it again and again: first alone, then while the
service gets 8 photos of 12 megapixels at the same time. It prints the longest wait of each.
"""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from course_client import get, predict

PHOTO = Path(__file__).parents[2] / "images" / "cat_1.jpg"
PHOTOS = 8


def large_photo() -> bytes:
    """Return a JPEG file of 12 megapixels, as of a phone."""
    file = io.BytesIO()
    with Image.open(PHOTO) as photo:
        photo.convert("RGB").resize((4000, 3000)).save(file, "JPEG", quality=85)
    return file.getvalue()


def wait() -> float:
    """Return how many seconds a light request takes."""
    start = time.monotonic()
    get("/openapi.json").raise_for_status()
    return time.monotonic() - start


def main() -> None:
    photo = large_photo()
    predict(photo).raise_for_status()
    print(f"longest wait alone            {max(wait() for _ in range(20)):.3f} s")
    with ThreadPoolExecutor(PHOTOS) as clients:
        sent = [clients.submit(predict, photo) for _ in range(PHOTOS)]
        waits = []
        while not all(one.done() for one in sent):
            waits.append(wait())
            time.sleep(0.005)
        for one in sent:
            one.result().raise_for_status()
    print(f"longest wait with {PHOTOS} photos    {max(waits):.3f} s")


if __name__ == "__main__":
    main()
