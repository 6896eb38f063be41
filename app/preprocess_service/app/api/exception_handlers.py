"""Turns each error into an answer of the common form, in the client's language."""

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


def language_headers(language: Language) -> dict[str, str]:
    """Return the headers of an answer whose texts are in ``language``, which the client preferred."""
    return {"Content-Language": language, "Vary": "Accept-Language"}


async def on_service_error(request: Request, exc: ServiceError) -> JSONResponse:
    request_id, language = request.state.request_id, language_of(request)
    request.state.code = exc.code
    if isinstance(exc, (DeadlineExceeded, RequestTimeout)):
        request.app.state.metrics.expired.inc()
    # The id is set here too: Starlette sends answers to unexpected errors outside of all middleware.
    headers = {"X-Request-ID": request_id} | language_headers(language)
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
    """Return an answer that no client reads. Without this handler a disconnect would be logged as internal error."""
    request.state.code = "client_disconnected"
    request.app.state.metrics.client_disconnects.inc()
    return Response(status_code=400)


async def on_unexpected(request: Request, exc: Exception) -> JSONResponse:
    """Answer a defect of the service: uvicorn logs the traceback, and the client gets the request id to report."""
    answer = await on_service_error(request, InternalError())
    # Starlette sends this answer outside of all middleware.
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
