"""What each error becomes: an answer in the form of all others, in its sender's language."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from preprocess_service.app.errors import (
    DeadlineExceeded,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    ServiceError,
)
from preprocess_service.app.middleware.cors import answer_headers
from preprocess_service.app.middleware.request_context import HEADERS
from preprocess_service.app.translations import Language, negotiate


def language_of(request: Request) -> Language:
    return negotiate(request.headers.get("accept-language", ""))


async def on_service_error(request: Request, exc: ServiceError) -> JSONResponse:
    request_id, language = request.state.request_id, language_of(request)
    request.state.code = exc.code
    if isinstance(exc, (DeadlineExceeded, RequestTimeout)):
        request.app.state.metrics.expired.inc()
    # The id once more: Starlette answers what is unexpected outside of every middleware.
    headers = {"X-Request-ID": request_id, "Content-Language": language, "Vary": "Accept-Language"}
    if exc.retry_after_seconds is not None:
        headers["Retry-After"] = str(exc.retry_after_seconds)
    headers |= exc.headers
    return JSONResponse(exc.body(language, request_id), exc.status, headers)


async def on_http_exception(request: Request, exc: HTTPException) -> JSONResponse:
    error = {404: NotFound, 405: MethodNotAllowed}.get(exc.status_code, InternalError)
    answer = await on_service_error(request, error(path=request.scope["path"], method=request.method))
    answer.headers.update(exc.headers or {})
    return answer


async def on_client_disconnect(request: Request, exc: ClientDisconnect) -> Response:
    """Nobody is left to read this answer; without a handler it would be logged as our error."""
    request.state.code = "client_disconnected"
    request.app.state.metrics.client_disconnects.inc()
    return Response(status_code=400)


async def on_unexpected(request: Request, exc: Exception) -> JSONResponse:
    """A defect of ours: uvicorn logs the traceback, the sender gets the id to report it by."""
    answer = await on_service_error(request, InternalError())
    # Starlette sends this one outside of every middleware.
    allowed = answer_headers(request.headers.get("origin"), request.app.state.config.server.cors_origins)
    if allowed:
        answer.headers.add_vary_header("Origin")
    answer.headers.update(HEADERS | allowed)
    return answer


HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    ServiceError: on_service_error,
    HTTPException: on_http_exception,
    ClientDisconnect: on_client_disconnect,
    Exception: on_unexpected,
}
