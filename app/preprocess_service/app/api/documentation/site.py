"""``/docs`` and ``/openapi.json``, each in the language that the client prefers."""

import base64
import functools
import hashlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from preprocess_service.app.api.documentation.portuguese import PORTUGUESE
from preprocess_service.app.api.exception_handlers import language_headers, language_of
from preprocess_service.app.middleware.route_path import DOCUMENT
from preprocess_service.app.translations import Language

# The keys of the document whose values are texts for people.
TEXTS = ("title", "summary", "description")
_HTML_LANGUAGES: dict[Language, str] = {"en": "en", "pt": "pt-BR"}

Route = Callable[[Request], Coroutine[Any, Any, Response]]


def add_documentation(app: FastAPI, icon: str) -> None:
    """Add /docs and /openapi.json to the app.

    Args:
        icon: the relative path from the root to the icon of /docs.
    """
    app.get(DOCUMENT, include_in_schema=False)(_document_of(app))
    app.get("/docs", include_in_schema=False)(_docs_page(app.title, icon, ""))
    app.get("/docs/", include_in_schema=False)(_docs_page(app.title, icon, "../"))
    app.mount("/static-offline-docs", StaticFiles(packages=[("fastapi_offline", "static")]))


def in_language(language: Language, part: Any) -> Any:
    """Return a part of the English document in ``language``, without the titles that only repeat a field's name."""
    if isinstance(part, list):
        return [in_language(language, item) for item in part]
    if not isinstance(part, dict):
        return part
    made: dict[str, Any] = {}
    for key, value in part.items():
        if key in TEXTS and isinstance(value, str):
            made[key] = PORTUGUESE.get(value, value) if language == "pt" else value
        elif key == "properties":
            made[key] = {name: in_language(language, _without_title(field)) for name, field in value.items()}
        else:
            made[key] = in_language(language, value)
    return made


def _without_title(field: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key != "title"}


def _document_of(app: FastAPI) -> Route:
    # A prefix comes from the settings or from a trusted proxy, so there are few.
    @functools.lru_cache(maxsize=16)
    def render(language: Language, prefix: str) -> bytes:
        document = in_language(language, app.openapi())
        if prefix:
            document["servers"] = [{"url": prefix}]
        return bytes(JSONResponse(document).body)

    async def document(request: Request) -> Response:
        language = language_of(request)
        content = render(language, request.scope.get("root_path", ""))
        return Response(content, media_type="application/json", headers=language_headers(language))

    return document


def _docs_page(title: str, icon: str, root: str) -> Route:
    """Return the route /docs: FastAPI's page, with the script files of fastapi_offline.

    The page loads /openapi.json with the browser's own Accept-Language, so both are in one language.

    Args:
        root: the relative path from the page to the service's root, so that the page works below any prefix.
    """
    pages = {}
    for language, name in _HTML_LANGUAGES.items():
        html = get_swagger_ui_html(
            openapi_url=f"{root}openapi.json",
            title=f"{in_language(language, {'title': title})['title']} - Swagger UI",
            oauth2_redirect_url=None,
            swagger_js_url=f"{root}static-offline-docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}static-offline-docs/swagger-ui.css",
            swagger_favicon_url=f"{root}{icon}",
        )
        pages[language] = bytes(html.body).replace(b"<html>", f'<html lang="{name}">'.encode(), 1)
    # The same in both languages: the script's address of the document.
    policy = {"Content-Security-Policy": _policy_of(pages["en"])}

    async def docs(request: Request) -> HTMLResponse:
        language = language_of(request)
        return HTMLResponse(pages[language], headers=policy | language_headers(language))

    return docs


def _policy_of(page: bytes) -> str:
    """Return the policy of a page that may run only the service's own script files and the scripts in the page."""
    hashes = [
        base64.b64encode(hashlib.sha256(it).digest()).decode()
        for it in re.findall(rb"<script>(.*?)</script>", page, re.S)
    ]
    scripts = " ".join(f"'sha256-{value}'" for value in hashes)
    # The styles of Swagger UI have data: pictures. It sends requests only to this service.
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
