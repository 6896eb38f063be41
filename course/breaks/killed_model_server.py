"""Shows what the service answers while the model server does not run, and how long it needs when it runs again.

python course/breaks/killed_model_server.py          send one photo and print the answer
python course/breaks/killed_model_server.py --wait   send photos until one is classified, and print the time
"""

import sys
import time
from pathlib import Path

import requests

from course_client import predict, shown

PHOTO = Path(__file__).parents[2] / "images" / "cat_1.jpg"
LONGEST_SECONDS = 180


def ask() -> requests.Response:
    """Send the photo and print the answer."""
    response = predict(PHOTO.read_bytes())
    retry_after = response.headers.get("Retry-After")
    print(shown(response) + (f"  Retry-After: {retry_after}" if retry_after else ""))
    return response


def main() -> None:
    start = time.monotonic()
    if "--wait" not in sys.argv:
        ask()
        return
    while (response := predict(PHOTO.read_bytes())).status_code != 200:
        if time.monotonic() - start > LONGEST_SECONDS:
            sys.exit(f"no answer within {LONGEST_SECONDS} s. Start the model server: python run.py serve")
        time.sleep(0.1)
    print(f"{shown(response)} after {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
