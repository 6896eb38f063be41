"""Maps a path to its route: removes a proxy's prefix and a slash at the end."""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from preprocess_service.app.middleware.client_address import ClientAddresses
from preprocess_service.app.setting_types import PREFIX

LONGEST_PREFIX = 200
# FastAPI writes the prefix into this document, so that clients find the routes.
DOCUMENT = "/openapi.json"


class RoutePathMiddleware:
    """Removes the prefix from each path, and the slash at its end if a route without the slash exists.

    Args:
        paths: the paths of all routes.
        prefix: the prefix that a proxy puts before all paths; "" for none.
        proxies: trusted proxies, whose ``X-Forwarded-Prefix`` overrides ``prefix``. From any other client the header is
            ignored, because links would contain it.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str], prefix: str, proxies: ClientAddresses | None) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._with_slash = frozenset(path for path in self._paths if not path.endswith("/"))
        self._patterns = [compile_path(path)[0] for path in self._paths if "{" in path]
        self._prefix = prefix
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            path, prefix = scope["path"], self._prefix
            if self._proxies and scope["client"] and self._proxies.trusts(scope["client"][0]):
                prefix = forwarded_prefix(Headers(scope=scope)) or prefix
            if prefix and path.startswith(f"{prefix}/"):
                path = path[len(prefix) :]
            elif prefix and path == prefix:
                # The page's links are relative, so it needs the slash. The redirect has only a path and never a host.
                app = RedirectResponse(f"{prefix}/")
            if path.endswith("/") and path not in self._paths and self._is_route(path[:-1]):
                path = path[:-1]
            scope["path"] = path
            if prefix and path == DOCUMENT:
                scope["root_path"] = prefix
        await app(scope, receive, send)

    def _is_route(self, path: str) -> bool:
        return path in self._with_slash or any(pattern.match(path) for pattern in self._patterns)


def forwarded_prefix(headers: Headers) -> str:
    """Return the prefix of ``X-Forwarded-Prefix``, or "" if it is missing or not a path.

    Each of several proxies appends its own prefix.
    """
    sent = "".join(part.strip().rstrip("/") for part in ",".join(headers.getlist("x-forwarded-prefix")).split(","))
    return sent if len(sent) <= LONGEST_PREFIX and re.fullmatch(PREFIX, sent) else ""
