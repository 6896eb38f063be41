"""A real browser for the tests of the page: any browser of Chromium's family on this machine.

Playwright controls it. No browser is downloaded. ``CHROMIUM`` is the path of one in an unusual place.
"""

import re
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tools.system_packages import why_skipped
from unit_test.utils import IMAGES


def skip(reason: str) -> NoReturn:
    """Skip these tests and print why, because unittest itself only counts skipped tests."""
    sys.stderr.write(f"\n##  SKIPPED: the page is not tested. {reason}  ##\n")
    raise unittest.SkipTest(reason)


try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, BrowserContext, CDPSession, Locator, Page, sync_playwright

    from tools.page_picture import launch
except ImportError:
    skip("Playwright is missing: pip install -r requirements.txt")

# Generous: a page that is slower than this is broken, even on a busy machine.
TIMEOUT_MS = 20_000

# Reports what the browser complains about: refused scripts and styles, uncaught errors, failed loads.
REPORT_VIOLATIONS = """
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
        console.error(`policy: ${violatedDirective} ${blockedURI}`))
"""

__all__ = [
    "REPORT_VIOLATIONS",
    "Axe",
    "Browser",
    "BrowserContext",
    "CDPSession",
    "Locator",
    "Page",
    "Visit",
    "browser",
    "photo",
]


def photo(path: Path, name: str = "") -> dict[str, Any]:
    """Return a file for the chooser, under another name if one is given."""
    content = path.read_bytes()
    return {"name": name or path.name, "mimeType": "image/jpeg", "buffer": content}


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a headless browser whose camera shows the sample ``dog_1.jpg``.

    Raises:
        SkipTest: this machine has no such browser.
    """
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # If a picture has an odd width or height, the browser's fake camera shows black frames.
        film = Path(folder, "dog.mjpeg")
        film.write_bytes((IMAGES / "dog_1.jpg").read_bytes() * 10)
        camera = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
        started = launch(playwright, camera)
        if started is None:
            skip(why_skipped("Chromium"))
        try:
            yield started
        finally:
            started.close()


class Visit:
    """One visit to the page, and what the browser complained about meanwhile."""

    def __init__(self, browser: Browser, url: str, **settings: Any) -> None:
        # Without animations, so that nothing is half faded in during a check.
        self.context: BrowserContext = browser.new_context(**{"locale": "en-US", "reduced_motion": "reduce"} | settings)
        self.context.set_default_timeout(TIMEOUT_MS)
        self.context.add_init_script(REPORT_VIOLATIONS)
        self.complaints: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(url)
        # Wait for the first text that only the script can have written.
        self.page.locator("#language:not(:empty)").wait_for()

    def _hear(self, message: Any) -> None:
        # The browser itself logs each error of the service, and each file without a preview.
        foreseen = re.search("^blob:|/predict([?].*)?$", message.location.get("url", ""))
        if message.type in ("error", "warning") and not foreseen:
            self.complaints.append(message.text)

    def choose(self, *files: Any) -> None:
        """Give files to the chooser: paths, or results of ``photo``."""
        self.page.set_input_files("#files", [photo(file) if isinstance(file, Path) else file for file in files])

    def drop(self, *paths: Path) -> None:
        """Drop files of this machine on the page, as a mouse would."""
        session: CDPSession = self.context.new_cdp_session(self.page)
        box = self.page.locator("#drop").bounding_box()
        assert box is not None
        place = {"x": box["x"] + 20, "y": box["y"] + 20}
        data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})
        session.detach()

    def card(self, name: str) -> Locator:
        """Return the finished card of the photo with this name."""
        heading = self.page.get_by_role("heading", name=name, exact=True)
        card = self.page.locator('.card[aria-busy="false"]').filter(has=heading)
        card.wait_for()
        return card

    def verdict(self, name: str) -> str:
        """Return the large label on a photo's card."""
        return self.card(name).locator(".verdict strong").inner_text()

    def violations(self) -> list[str]:
        """Return what axe, the accessibility checker, finds wrong with the page now."""
        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {node['html']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]

    def close(self) -> None:
        # Otherwise the handlers of requests that a test holds back would fail.
        self.page.unroute_all(behavior="ignoreErrors")
        self.context.close()
