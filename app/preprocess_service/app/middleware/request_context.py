"""For every request: its id, the answer's common headers, its log line, its metrics and its trace."""

import logging
import random
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from preprocess_service.app.middleware.client_address import ClientAddresses
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.observability.tracing import NO_TRACE, Tracing

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Monitoring requests these paths every few seconds. Their log lines would hide all others.
UNLOGGED_PATHS = ("/livez", "/readyz", "/metrics")
# Headers of every answer.
HEADERS = {
    # A browser must not guess a type, send a referrer to other sites, or show an answer within a page of another site.
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_RAW = Headers(HEADERS).raw
_NAMES = {b"x-request-id", *(name for name, _ in _RAW)}

_ids = random.Random()
logger = logging.getLogger("request")


def request_id_of(sent: str) -> str:
    """Return the request's id: the client's own if it is valid, else a new one."""
    # Ids must be unique but not secret. Random bytes of the operating system would take a system call for each.
    return sent if SANE_REQUEST_ID.fullmatch(sent) else f"{_ids.getrandbits(128):032x}"


class RequestContextMiddleware:
    """Adds the request's id and the security headers to every answer, and writes one log line per request.

    The log line never has the picture.

    Args:
        addresses: finds the client address for the log; None if it is not logged.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracing: Tracing, addresses: ClientAddresses | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_id_of(headers.get("x-request-id", ""))
        state = scope.setdefault("state", {})
        # The server records when the headers were complete. On a busy event loop that may be some time ago.
        start = state.setdefault("arrived", time.monotonic())
        state["request_id"] = request_id
        state["trace"] = NO_TRACE if scope["path"] in UNLOGGED_PATHS else self._tracing.request(headers)
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [header for header in message["headers"] if header[0] not in _NAMES]
                message["headers"] = [*others, (b"x-request-id", request_id.encode()), *_RAW]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._record(scope, status, time.monotonic() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The path of the route, not the requested path, which can be any text.
        route = getattr(scope.get("route"), "path", "none")
        state = scope["state"]
        code = state.get("code", "ok")
        context = state.get("context")
        timings = (context.timings() if context else {}) | {"total": seconds}
        self._metrics.record_request(route, status, code)
        if context:
            self._metrics.record_stages(timings)
            self._metrics.photo_bytes.observe(context.bytes)
        if route in UNLOGGED_PATHS:
            return
        trace = state["trace"]
        fields = {
            "request_id": state["request_id"],
            **({"trace_id": trace.id} if trace.id else {}),
            **self._client(scope),
            "method": scope["method"],
            "route": route,
            **({"model": state["model"]} if "model" in state else {}),
            "status": status,
            "code": code,
            "bytes": context.bytes if context else 0,
            "images": [{"format": name, "width": w, "height": h} for name, w, h in (context.images if context else ())],
            "timings": {stage: round(value, 5) for stage, value in timings.items()},
        }
        logger.info("%s %s %d %s", scope["method"], route, status, code, extra=fields)
        attributes = {"http.request.method": scope["method"], "http.route": route, "http.response.status_code": status}
        trace.end(f"{scope['method']} {route}", code, attributes | {"request_id": state["request_id"]})

    def _client(self, scope: Scope) -> dict[str, str]:
        if self._addresses is None or not scope["client"]:
            return {}
        return {"client": self._addresses.of(scope["client"][0], scope["headers"])}
