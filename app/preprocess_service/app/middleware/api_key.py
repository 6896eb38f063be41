"""API keys: if keys are set, all routes but the open ones require one."""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from preprocess_service.app.errors import ServiceError, Unauthorized

# Paths that need no key: health, the page with its files, the documentation, the course. All other paths need one, also
# new routes.
OPEN_PATHS = ("/", "/livez", "/readyz", "/docs", "/docs/", "/openapi.json", "/course")
OPEN_FOLDERS = ("/static/", "/samples/", "/static-offline-docs/", "/course/")


class ApiKeys:
    """The accepted keys. It stores only their digests."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, headers: Headers) -> bool:
        """Return whether a request has one of the keys, as ``Authorization: Bearer`` or as ``X-API-Key``.

        The time does not depend on the key that was sent, nor on how much of it is right: digests of equal length are
        compared in constant time, and with all keys.
        """
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        digest = _digest(sent.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        return any([hmac.compare_digest(digest, known) for known in self._digests])


class ApiKeyMiddleware:
    """Answers 401 to requests without a valid key, except on open paths.

    Args:
        on_error: makes the response to an error.
    """

    def __init__(
        self, app: ASGIApp, keys: ApiKeys, on_error: Callable[[Request, ServiceError], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._keys = keys
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and not is_open(scope["path"]) and not self._keys.accept(Headers(scope=scope)):
            app = await self._on_error(Request(scope), Unauthorized())
        await app(scope, receive, send)


def is_open(path: str) -> bool:
    """Return whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
