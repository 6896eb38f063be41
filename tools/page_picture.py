"""Takes the README's picture of the page, images/page.png, from a running pair.

    python run.py serve
    python -m tools.page_picture [http://localhost:7998]

It needs an installed Chromium, Chrome or Edge. The picture contains a digest of the page's files. A test compares it
with the present files, and fails if the picture is out of date.
"""

import argparse
import hashlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Playwright, sync_playwright
from playwright.sync_api import Error as BrowserError

from tools.service import PROJECT
from tools.system_packages import BROWSERS, find

STATIC = PROJECT / "app" / "preprocess_service" / "app" / "static"
PICTURE = PROJECT / "images" / "page.png"
# The key of the digest in the PNG's text.
DIGEST = "page sha256"
SAMPLES = ("cat_2.jpg", "dog_1.jpg")
# Playwright itself finds these installed browsers, mainly on Windows and macOS.
CHANNELS = ("chrome", "msedge")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://localhost:7998")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            print("page_picture: no Chromium, Chrome or Edge found; set CHROMIUM to its path", file=sys.stderr)
            return 1
        try:
            page = browser.new_page(locale="en-US", reduced_motion="reduce", viewport={"width": 1280, "height": 800})
            page.goto(options.url)
            for number, name in enumerate(SAMPLES, start=1):
                page.locator(f'[data-sample="{name}"]').click()
                page.locator('.card[data-state="done"]').nth(number - 1).wait_for()
            page.mouse.move(0, 0)
            shot = page.screenshot()
        except BrowserError as exc:
            print(f"page_picture: {exc.message}", file=sys.stderr)
            return 1
        finally:
            browser.close()
    info = PngInfo()
    info.add_text(DIGEST, digest_of_page())
    Image.open(io.BytesIO(shot)).convert("RGB").save(PICTURE, "PNG", pnginfo=info, optimize=True)
    print(f"{PICTURE.relative_to(PROJECT)}: written")
    return 0


def digest_of_page() -> str:
    """Return the SHA-256 of all text files of the page."""
    digest = hashlib.sha256()
    for path in sorted(path for path in STATIC.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def launch(playwright: Playwright, arguments: Sequence[str] = ()) -> Browser | None:
    """Start the first Chromium, Chrome or Edge that is found; None if there is none."""
    for place in _places():
        try:
            return playwright.chromium.launch(args=list(arguments), **place)
        except BrowserError:
            continue
    return None


def _places() -> Iterator[dict[str, Any]]:
    for program in filter(None, [os.environ.get("CHROMIUM"), *map(find, BROWSERS)]):
        yield {"executable_path": program}
    for channel in CHANNELS:
        yield {"channel": channel}


if __name__ == "__main__":
    sys.exit(main())
