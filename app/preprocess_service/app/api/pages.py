"""The page at / and its files, with a Content-Security-Policy that allows nothing else."""

import html
import mimetypes
import re
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from preprocess_service.app.errors import NotFound

FOLDER = Path(__file__).parents[1] / "static"
CAT_DOG = "CAT-DOG"
# The sample photos. A container image has the same folders as the project, so the path is right there too.
SAMPLES = Path(__file__).resolve().parents[4] / "images"
HEADERS = {
    # Nothing from other hosts, nothing inline. blob: and data: are the user's own photos.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
# The browser revalidates each file, and gets 304 for an unchanged one. So it never mixes files of two versions.
ALWAYS_ASK = {"Cache-Control": "no-cache"}
# The types of these suffixes, because the Windows registry may have others. A browser rejects a script of another type.
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
    """Return the media type of a picture by its first bytes."""
    kinds = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"RIFF", "webp"))
    subtype = next((subtype for start, subtype in kinds if photo.startswith(start)), None)
    return f"image/{subtype}" if subtype else "application/octet-stream"


def page_of(models: Sequence[str], has_course: bool) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the route of the page: the page of CAT-DOG, or for any other model a page without cats and dogs.

    With several models, ``?model=NAME`` chooses one; the first one is the default. Without the course's files the page
    has no link to the course.
    """
    path = FOLDER / "index.html"

    async def page(request: Request) -> Response:
        if models[0] == CAT_DOG and len(models) == 1 and has_course:
            return FileResponse(path, headers=HEADERS | ALWAYS_ASK)
        model = request.query_params.get("model", models[0]) if len(models) > 1 else models[0]
        if model not in models:
            raise NotFound("model_unknown", name=model[:100], found=", ".join(models))
        text = path.read_text(encoding="utf-8")
        if not has_course:
            text = re.sub(r"<!--course-->.*?<!--/course-->", "", text, flags=re.S)
        if model != CAT_DOG:
            text = neutral(text, model)
        if len(models) > 1:
            text = with_choice(text, model, models)
        return HTMLResponse(text, headers=HEADERS | ALWAYS_ASK)

    return page


def with_choice(text: str, model: str, models: Sequence[str]) -> str:
    """Add a link to the page of each model, and tell the page's script where the routes of ``model`` are."""
    current = {model: ' aria-current="page"'}
    links = [
        f'<a href="?model={quote(name, safe="")}"{current.get(name, "")}>{html.escape(name)}</a>' for name in models
    ]
    text = text.replace("<!--models-->", f'<nav class="models" data-label="models">{"".join(links)}</nav>')
    return text.replace("<html ", f'<html data-routes="models/{quote(model, safe="")}/" ', 1)


def icon_of(model: str) -> str:
    return "static/favicon.svg" if model == CAT_DOG else "static/neutral.svg"


def neutral(text: str, model: str) -> str:
    """Remove the parts of the page for CAT-DOG only, which are between <!--cat-dog--> and <!--/cat-dog-->."""
    name = html.escape(model)
    text = text.replace("static/favicon.svg", icon_of(model))
    text = re.sub(r"<!--cat-dog-->.*?<!--/cat-dog-->", "", text, flags=re.S)
    text = text.replace('<html lang="en">', f'<html lang="en" data-model="{name}">')
    text = re.sub(r"<title>.*?</title>", lambda _: f"<title>{name}</title>", text)
    # The page's script fills in these texts, in the user's language.
    return re.sub(r'(<(\w+)[^>]* data-words="(?:title|lead)"[^>]*>).*?(</\2>)', r"\1\3", text, flags=re.S)
