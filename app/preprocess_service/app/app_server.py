"""The HTTP face: a photo comes in, CAT or DOG goes out.

Start it with ``python app/preprocess_service/app/app_server.py``, from any folder.
"""

import asyncio
import contextlib
import ctypes
import logging
import mimetypes
import os
import re
import socket
import sys
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import openapi
import uvicorn
from answers import Failure, Health, ModelDescription, PredictBatchAnswer, PredictSuccess, failure, success
from config import Config, ConfigError, load_config
from errors import InternalError, MethodNotAllowed, NotFound, ServiceError
from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from intake import Photo, read_batch, read_photo
from messages import Language, negotiate
from model_runner import ModelRunner
from pipeline import PROBE_SECONDS, Pipeline, Runner, Steps
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(__file__).with_name("static")
# The photos to try the page with; an image keeps the project's folders, so that they are found there too.
SAMPLES = Path(__file__).resolve().parents[3] / "images"
M_MMAP_THRESHOLD = -3  # <malloc.h>
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
PAGE_HEADERS = {
    # Nothing from elsewhere, nothing inline; blob: and data: are the visitor's own photos.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
# What browsers must be told, whatever a Windows registry says of these suffixes: they refuse a script of another type.
PAGE_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def get_pipeline(request: Request) -> Pipeline:
    return request.app.state.pipeline  # type: ignore[no-any-return]  # Starlette's state is untyped by design


PipelineOfApp = Annotated[Pipeline, Depends(get_pipeline)]


async def predict(request: Request, response: Response, pipeline: PipelineOfApp) -> PredictSuccess:
    """Is it a cat or a dog?"""
    steps = Steps()
    with steps.step("read"):
        photo = await read_photo(request, pipeline.config.limits)
    prediction = await pipeline.classify(photo, steps)
    response.headers["Server-Timing"] = steps.server_timing()
    return success(prediction, pipeline.config, request.state.request_id)


async def predict_batch(request: Request, response: Response, pipeline: PipelineOfApp) -> PredictBatchAnswer:
    """Which of these are cats, which dogs? Each photo is answered on its own: a broken one spoils no other."""
    steps = Steps()
    with steps.step("read"):
        photos = await read_batch(request, pipeline.config.limits)

    async def answer(photo: Photo | ServiceError) -> PredictSuccess | Failure:
        request_id = request.state.request_id
        try:
            if isinstance(photo, ServiceError):
                raise photo
            return success(await pipeline.classify(photo, steps), pipeline.config, request_id)
        except ServiceError as exc:
            return failure(exc, language_of(request), request_id)

    predictions = await asyncio.gather(*(answer(photo) for photo in photos))
    response.headers["Server-Timing"] = steps.server_timing()
    return PredictBatchAnswer(predictions=predictions)


async def describe_model(pipeline: PipelineOfApp) -> ModelDescription:
    """Which model answers, and what it takes."""
    config = pipeline.config
    version = await pipeline.runner.model_version(PROBE_SECONDS)
    signature = await pipeline.runner.signature(PROBE_SECONDS)
    return ModelDescription(
        name=config.experiment_id,
        version=version,
        labels=config.labels,
        input_name=signature.input_name,
        input_shape=(config.picture.height, config.picture.width, 3),
        output_name=signature.output_name,
    )


async def livez() -> Health:
    """Is this process alive? Asks nobody else: a restart of this service would not mend the model server."""
    return Health(ok=["process"], failing={})


async def readyz(request: Request, response: Response, pipeline: PipelineOfApp) -> Health:
    """Would a photo be answered now? Asks the model server for its state and for a prediction."""
    checks = await pipeline.check()
    failing = {name: error.text(language_of(request)) for name, error in checks.items() if error is not None}
    response.status_code = 503 if failing else 200
    return Health(ok=[name for name in checks if name not in failing], failing=failing)


async def page() -> FileResponse:
    return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS | {"Cache-Control": "no-cache"})


def language_of(request: Request) -> Language:
    return negotiate(request.headers.get("accept-language", ""))


class PageFiles(StaticFiles):
    """Files that a browser asks for again each time (an unchanged one comes as 304), so that it never mixes versions."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


class ResponseHeaders:
    """Gives every answer the request's id (the sender's own ``X-Request-ID`` if it is sane, else a new one) and says
    that no browser should guess its type."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if SANE_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def on_service_error(request: Request, exc: ServiceError) -> JSONResponse:
    request_id, language = request.state.request_id, language_of(request)
    # The id once more: Starlette answers what is unexpected outside of every middleware.
    headers = {"X-Request-ID": request_id, "Content-Language": language, "Vary": "Accept-Language"}
    if exc.retry_after_seconds is not None:
        headers["Retry-After"] = str(exc.retry_after_seconds)
    return JSONResponse(failure(exc, language, request_id).model_dump(), exc.status, headers)


async def on_http_exception(request: Request, exc: HTTPException) -> JSONResponse:
    error = {404: NotFound, 405: MethodNotAllowed}.get(exc.status_code, InternalError)
    answer = await on_service_error(request, error(path=request.url.path, method=request.method))
    answer.headers.update(exc.headers or {})
    return answer


async def on_client_disconnect(request: Request, exc: ClientDisconnect) -> Response:
    """Nobody is left to read this answer; without a handler it would be logged as our error."""
    return Response(status_code=400)


async def on_unexpected(request: Request, exc: Exception) -> JSONResponse:
    """A defect of ours: uvicorn logs the traceback, the sender gets the id to report it by."""
    return await on_service_error(request, InternalError())


def create_app(config: Config, runner: Runner) -> FastAPI:
    """Build the service; nothing is opened before its lifespan starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pipeline = Pipeline(config, runner)
        await pipeline.open()
        app.state.pipeline = pipeline
        yield
        await pipeline.close()

    for suffix, media_type in PAGE_TYPES.items():
        mimetypes.add_type(media_type, suffix)
    app = FastAPI(title="CAT or DOG", description=openapi.DESCRIPTION, lifespan=lifespan)
    for path, route, body in (
        ("/predict", predict, openapi.photo_body()),
        ("/cat-dog_classification", predict, openapi.photo_body()),
        ("/predict/batch", predict_batch, openapi.batch_body()),
    ):
        app.post(path, responses=openapi.REFUSALS, openapi_extra=body, response_model_exclude_none=True)(route)
    app.get("/model", responses={status: openapi.REFUSALS[status] for status in (502, 503, 504)})(describe_model)
    app.get("/livez")(livez)
    app.get("/readyz", responses={503: {"model": Health}})(readyz)
    app.get("/", include_in_schema=False)(page)
    app.mount("/static", PageFiles(directory=STATIC))
    app.mount("/samples", PageFiles(directory=SAMPLES, check_dir=False))
    app.add_middleware(ResponseHeaders)
    for error, handler in {
        ServiceError: on_service_error,
        HTTPException: on_http_exception,
        ClientDisconnect: on_client_disconnect,
        Exception: on_unexpected,
    }.items():
        app.add_exception_handler(error, handler)  # type: ignore[arg-type]  # each takes just its own error
    return app


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; answers the exit status. A problem with the start is one line on stderr."""
    try:
        config = load_config(os.environ)
        listener = listen(config.server.host, config.server.port)
    except (ConfigError, OSError) as exc:
        sys.stderr.write(f"app_server: {exc}\n")
        return 1
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Pillow warns of every oddity in a photo; our log is for the operator, who can't mend other people's photos.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    give_memory_back()
    app = create_app(config, ModelRunner(config))
    uvicorn.Server(uvicorn.Config(app, server_header=False)).run(sockets=[listener])
    return 0


def give_memory_back() -> None:
    """Let the memory of a big photo go back to the system when it is freed.

    glibc takes a freed block of megabytes for a sign that more of that size will come, and keeps them from then on
    (mallopt(3), M_MMAP_THRESHOLD); a fixed threshold ends that. Other C libraries have no such habit.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def listen(host: str, port: int) -> socket.socket:
    """Open the port here, before anything else, so that a taken one ends the start with one clear line.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        reason = f"{exc.strerror}; is another one running? Set SERVICE_PORT to a free port"
        raise OSError(f"can't listen on {host}:{port}: {reason}") from exc


if __name__ == "__main__":
    sys.exit(main())
