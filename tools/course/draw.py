"""Draws the diagrams of the course: docs/course/pictures/NAME.svg from the Mermaid text in NAME.mmd.

    python -m tools.course.draw [NAME ...]

It draws those that are out of date, or those that are named. It needs npm, which downloads Mermaid once, and an
installed Chromium, Chrome or Edge. A picture contains a digest of its text, by which a test finds old pictures.
"""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page, sync_playwright

from tools.page_picture import launch
from tools.service import PROJECT

PICTURES = PROJECT / "docs" / "course" / "pictures"
LIBRARY = PROJECT / ".build" / "mermaid"
VERSION = "12.3.0"
INTEGRITY = "sha512-4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw=="
# As large as it is shown on a page of this width, no text may be smaller than this.
PAGE_WIDTH, SMALLEST_TEXT = 700, 13
MARGIN = 12
# All of them have letters as wide as DejaVu's, which the text is measured with.
FONT = "DejaVu Sans, Verdana, sans-serif"
LOOK = {
    "startOnLoad": False,
    "securityLevel": "strict",
    "deterministicIds": True,
    # Labels in HTML are not shown in a picture.
    "htmlLabels": False,
    "layout": "dagre",
    "look": "classic",
    "theme": "base",
    "themeVariables": {
        "useGradient": False,
        "dropShadow": "none",
        "fontFamily": FONT,
        "fontSize": "16px",
        "primaryColor": "#e8f1fb",
        "primaryBorderColor": "#2b6cb0",
        "primaryTextColor": "#1a202c",
        "lineColor": "#4a5568",
        "clusterBkg": "#f7fafc",
        "clusterBorder": "#a0aec0",
        "edgeLabelBackground": "#ffffff",
        "actorLineColor": "#a0aec0",
        "noteBkgColor": "#fff8e1",
        "noteBorderColor": "#c09000",
    },
    "flowchart": {
        "htmlLabels": False,
        "nodeSpacing": 30,
        "rankSpacing": 28,
        "padding": 12,
        "wrappingWidth": 260,
        "subGraphTitleMargin": {"top": 4, "bottom": 22},
    },
    "sequence": {
        "useMaxWidth": False,
        "mirrorActors": False,
        "width": 110,
        "height": 44,
        "actorMargin": 16,
        "diagramMarginX": 0,
        "messageMargin": 30,
        "wrapPadding": 8,
        "actorFontFamily": FONT,
        "messageFontFamily": FONT,
        "noteFontFamily": FONT,
        "actorFontSize": 16,
        "messageFontSize": 16,
        "noteFontSize": 16,
    },
}


class DrawError(Exception):
    """An error that the user can fix; the message says how."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="e.g. request.pt")
    names = parser.parse_args().names or [path.stem for path in texts(PICTURES) if is_outdated(path)]
    try:
        if names:
            with drawing_page() as page:
                for name in names:
                    picture = PICTURES / f"{name}.svg"
                    picture.write_text(drawn(page, PICTURES / f"{name}.mmd"), encoding="utf-8", newline="\n")
                    print(f"{picture.relative_to(PROJECT)}: {picture.stat().st_size} bytes")
    except (DrawError, OSError, BrowserError) as exc:
        print(f"draw: {exc}", file=sys.stderr)
        return 1
    print("\n".join(outdated()) or "All pictures are up to date.")
    return 0


def texts(pictures: Path) -> list[Path]:
    """Return the files with the text of a diagram."""
    return sorted(pictures.glob("*.mmd"))


def outdated(pictures: Path = PICTURES) -> list[str]:
    """Return a line for each picture that was not made from the present text; needs neither npm nor a browser."""
    lines = [f"{path.stem}: python -m tools.course.draw {path.stem}" for path in texts(pictures) if is_outdated(path)]
    without = {path.stem for path in pictures.glob("*.svg")} - {path.stem for path in texts(pictures)}
    return lines + [f"{name}.svg: there is no {name}.mmd" for name in sorted(without)]


def is_outdated(text: Path) -> bool:
    """Return whether the picture of this text is missing or was made from another text."""
    picture = text.with_suffix(".svg")
    return not picture.is_file() or f"<!-- {digest(text)} -->" not in picture.read_text(encoding="utf-8")


def digest(text: Path) -> str:
    """Return what a picture depends on, as a SHA-256: its text, the version of Mermaid, the look and the clean-up."""
    parts = [VERSION, json.dumps(LOOK), _clean_up(), text.read_text(encoding="utf-8")]
    return "sha256 " + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _clean_up() -> str:
    return Path(__file__).with_name("picture.js").read_text(encoding="utf-8")


@contextmanager
def drawing_page() -> Iterator[Page]:
    """Start a browser with Mermaid in it; raises DrawError."""
    library = mermaid()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        if browser is None:
            raise DrawError("no Chromium, Chrome or Edge found; set CHROMIUM to its path")
        try:
            page = browser.new_page()
            page.set_content("<!doctype html><body></body>")
            page.add_script_tag(path=library)
            page.add_script_tag(content=_clean_up())
            page.evaluate("look => mermaid.initialize(look)", LOOK)
            yield page
        finally:
            browser.close()


def drawn(page: Page, text: Path) -> str:
    """Return the SVG of a diagram; raises DrawError if the text has an error or can't be read at a page's width."""
    try:
        found: dict[str, Any] = page.evaluate(
            """async (text) => {
                const { svg } = await mermaid.render("picture", text);
                document.body.innerHTML = svg;
                return plain(document.body.firstElementChild);
            }""",
            text.read_text(encoding="utf-8"),
        )
    except BrowserError as exc:
        raise DrawError(f"{text.name}: {exc.message}") from exc
    if not (found["title"] and found["description"]):
        raise DrawError(f"{text.name}: accTitle or accDescr is missing: readers who do not see the picture need it")
    left, top, right, bottom = map(round, found["box"])
    left, top, right, bottom = left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN
    width, height = right - left, bottom - top
    if (size := found["smallest"] * min(1, PAGE_WIDTH / width)) < SMALLEST_TEXT:
        raise DrawError(
            f"{text.name}: {width} wide; at {PAGE_WIDTH} its text is {size:.1f}, not {SMALLEST_TEXT}, large"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="{left} {top} {width} {height}" '
        f'width="{width}" height="{height}" font-family="{FONT}" font-size="16">\n'
        f"<title>{found['title']}</title>\n<desc>{found['description']}</desc>\n<!-- {digest(text)} -->\n"
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="8" fill="#fff"/>\n{found["shapes"]}</svg>\n'
    )


def mermaid() -> Path:
    """Return the path of Mermaid, which npm downloads if it is not there yet; raises DrawError."""
    library = LIBRARY / f"mermaid-{VERSION}.min.js"
    if library.is_file():
        return library
    npm = shutil.which("npm")
    if npm is None:
        raise DrawError("npm is not installed; it comes with Node.js; on Debian: apt-get install npm")
    LIBRARY.mkdir(parents=True, exist_ok=True)
    archive = LIBRARY / f"mermaid-{VERSION}.tgz"
    packing = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(LIBRARY), f"mermaid@{VERSION}"]
    if subprocess.run(packing, cwd=LIBRARY, stdout=subprocess.DEVNULL, check=False).returncode or not archive.is_file():
        raise DrawError("npm could not download Mermaid; see its output above")
    try:
        if "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != INTEGRITY:
            raise DrawError(f"the package mermaid {VERSION} is not the one that this program was written for")
        with tarfile.open(archive) as package:
            content = package.extractfile("package/dist/mermaid.min.js")
            assert content is not None
            library.write_bytes(content.read())
    finally:
        archive.unlink()
    return library


if __name__ == "__main__":
    sys.exit(main())
