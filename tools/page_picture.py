"""Takes the picture of the page that the README shows, images/page.png, of a running pair.

    python run.py serve
    python -m tools.page_picture [http://localhost:7998]

Needs an installed Chromium, Chrome or Edge. The picture keeps a digest of the page's files: a test compares it with
today's files, and so tells when the picture is out of date.
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
# The keyword of the digest in the PNG.
DIGEST = "page sha256"
SAMPLES = ("cat_2.jpg", "dog_1.jpg")
# Where Playwright itself finds an installed browser, on Windows and macOS above all.
CHANNELS = ("chrome", "msedge")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://localhost:7998")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            print("page_picture: no Chromium, Chrome or Edge is installed; CHROMIUM names one", file=sys.stderr)
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
    """The sha256 of all text files that make the page."""
    digest = hashlib.sha256()
    for path in sorted(path for path in STATIC.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def launch(playwright: Playwright, arguments: Sequence[str] = ()) -> Browser | None:
    """Start the first browser of Chromium's family that this machine has; None where it has none."""
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
