"""The page at / and its parts: served as they are, under a policy that lets nothing else in."""

import base64
import hashlib
import html
import mimetypes
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parents[1] / "static"
CAT_DOG = "CAT-DOG"
# The photos to try it with; an image keeps the project's folders, so that they are found there too.
SAMPLES = Path(__file__).resolve().parents[4] / "images"
HEADERS = {
    # Nothing from elsewhere, nothing inline; blob: and data: are the visitor's own photos.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
# A browser asks again each time, and an unchanged file comes as 304; so it never mixes the parts of two versions.
ALWAYS_ASK = {"Cache-Control": "no-cache"}
# What a browser must be told, whatever a Windows registry says of these suffixes: it refuses a script of another type.
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PageFiles(StaticFiles):
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, check_dir=False)
        for suffix, media_type in TYPES.items():
            mimetypes.add_type(media_type, suffix)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(ALWAYS_ASK)
        return response


def media_type_of(photo: bytes) -> str:
    """The type of a picture by its first bytes."""
    kinds = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"RIFF", "webp"))
    subtype = next((subtype for start, subtype in kinds if photo.startswith(start)), None)
    return f"image/{subtype}" if subtype else "application/octet-stream"


def page_of(model: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    """The route of the page: CAT-DOG's own, and for any other model one that says nothing of cats and dogs."""
    path = FOLDER / "index.html"

    async def page() -> FileResponse:
        return FileResponse(path, headers=HEADERS | ALWAYS_ASK)

    async def neutral_page() -> HTMLResponse:
        return HTMLResponse(neutral(path.read_text(encoding="utf-8"), model), headers=HEADERS | ALWAYS_ASK)

    return page if model == CAT_DOG else neutral_page


def icon_of(model: str) -> str:
    return "static/favicon.svg" if model == CAT_DOG else "static/neutral.svg"


def neutral(text: str, model: str) -> str:
    """The page without what it has for CAT-DOG alone, which stands between <!--cat-dog--> and <!--/cat-dog-->."""
    name = html.escape(model)
    text = text.replace("static/favicon.svg", icon_of(model))
    text = re.sub(r"<!--cat-dog-->.*?<!--/cat-dog-->", "", text, flags=re.S)
    text = text.replace('<html lang="en">', f'<html lang="en" data-model="{name}">')
    text = re.sub(r"<title>.*?</title>", lambda _: f"<title>{name}</title>", text)
    # The page's own script says what belongs there, in its reader's language.
    return re.sub(r'(<(\w+)[^>]* data-words="(?:title|lead)"[^>]*>).*?(</\2>)', r"\1\3", text, flags=re.S)


def docs(content: bytes) -> Callable[[], Coroutine[Any, Any, Response]]:
    """The route of a page whose scripts are the service's own files, and those that stand in ``content`` itself."""
    hashes = [
        base64.b64encode(hashlib.sha256(it).digest()).decode()
        for it in re.findall(rb"<script>(.*?)</script>", content, re.S)
    ]
    scripts = " ".join(f"'sha256-{value}'" for value in hashes)
    # Swagger UI has pictures in its styles. What it asks for is the service.
    policy = (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    async def page_of_docs() -> HTMLResponse:
        return HTMLResponse(content, headers={"Content-Security-Policy": policy})

    return page_of_docs
