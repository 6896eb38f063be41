"""The course of docs/course as web pages, at /course/."""

import html
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from preprocess_service.app.api.course.markdown import render
from preprocess_service.app.api.exception_handlers import language_of
from preprocess_service.app.api.pages import ALWAYS_ASK, HEADERS, PageFiles

# A container image has the same folders as the project.
FOLDER = Path(__file__).resolve().parents[5] / "docs" / "course"
FIRST_PAGE = "README.md"
# What a page says besides its text. Each language has a folder.
WORDS = {
    "pt": {
        "lang": "pt-BR",
        "skip": "Ir para o conteúdo",
        "course": "Curso",
        "service": "Página do serviço",
        "table": "Tabela",
    },
    "en": {
        "lang": "en",
        "skip": "Go to the content",
        "course": "Course",
        "service": "The service's page",
        "table": "Table",
    },
}
# All links are relative, so that a page works below any prefix.
PAGE = """<!doctype html>
<html lang="{lang}">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <meta name="color-scheme" content="light dark" />
    <title>{title} · {course}</title>
    <link rel="icon" href="../../static/favicon.svg" type="image/svg+xml" />
    <link rel="stylesheet" href="../../static/page.css" />
    <link rel="stylesheet" href="../../static/course.css" />
    <script type="module" src="../../static/course.js"></script>
  </head>
  <body class="course">
    <a class="skip" href="#course-page">{skip}</a>
    <header class="top">
      <a href="./"><img src="../../static/favicon.svg" alt="" width="36" height="36" />{course}</a>
      <a href="../../">{service}</a>
    </header>
    <main id="course-page" tabindex="-1">
{body}    </main>
  </body>
</html>
"""
# A picture that is opened by itself may have its own styles, and nothing else.
PICTURE_POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


def add_course(app: FastAPI) -> bool:
    """Add the routes of the course, and return whether its files are there. Without them no route is added."""
    if not all((FOLDER / language / FIRST_PAGE).is_file() for language in WORDS):
        return False
    app.get("/course", include_in_schema=False)(redirect("course/"))
    app.get("/course/", include_in_schema=False)(redirect(""))
    if (FOLDER / "pictures").is_dir():
        app.mount("/course/pictures", Pictures(FOLDER / "pictures"))
    app.mount("/course", Pages(FOLDER))
    return True


def redirect(root: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the route that leads to the course in the reader's language.

    Args:
        root: the relative path from the route to /course/.
    """

    async def to_language(request: Request) -> Response:
        return RedirectResponse(f"{root}{language_of(request)}/", headers=ALWAYS_ASK | {"Vary": "Accept-Language"})

    return to_language


class Pages:
    """Serves the Markdown files of the languages' folders as HTML.

    The files are listed once. So the path of a request never becomes a path on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {f"{name}/{file.name}": file for name in WORDS for file in (folder / name).glob("*.md")}
        pictures = {f"pictures/{file.name}" for file in folder.glob("pictures/*") if is_picture(file.name)}
        self._linked = {*WORDS, *self._files, *pictures}
        # There are as many pages as files, and each is small.
        self._rendered: dict[str, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        response = await self._respond(scope["path"].removeprefix(scope["root_path"]).removeprefix("/"))
        await response(scope, receive, send)

    async def _respond(self, path: str) -> Response:
        if path in WORDS:
            return RedirectResponse(f"{path}/")
        language, _, name = path.partition("/")
        path = f"{language}/{name or FIRST_PAGE}"
        if path not in self._files:
            raise HTTPException(404)
        if path not in self._rendered:
            self._rendered[path] = await run_in_threadpool(self._render, path, WORDS[language])
        headers = HEADERS | ALWAYS_ASK | {"Content-Language": WORDS[language]["lang"]}
        return HTMLResponse(self._rendered[path], headers=headers)

    def _render(self, path: str, words: dict[str, str]) -> bytes:
        page = render(self._files[path].read_text(encoding="utf-8"), path, self._linked, words["table"])
        escaped = {key: html.escape(value) for key, value in words.items()}
        return PAGE.format(title=html.escape(page.title), body=page.body, **escaped).encode()


class Pictures(PageFiles):
    """Serves the pictures of the course, and nothing else of their folder."""

    def lookup_path(self, path: str) -> tuple[str, Any]:
        return super().lookup_path(path) if is_picture(path) else ("", None)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(PICTURE_POLICY)
        return response


def is_picture(name: str) -> bool:
    return name.endswith((".svg", ".png"))
