"""The HTTP face: a photo comes in as base64, CAT or DOG goes out.

Start it with ``python app/preprocess_service/app/app_server.py``, from any folder.
"""

import logging
import os
import re
import socket
import sys
import uuid
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import uvicorn
from config import Config, ConfigError, load_config
from errors import ImageTooLarge, InvalidRequest, ServiceError, UnsupportedMediaType
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from model_runner import ModelRunner
from pipeline import PROBE_SECONDS, Pipeline, Runner
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXAMPLE = '{"image_b64": "<the picture in base64>"}'
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class PredictRequest(BaseModel):
    """A photo."""

    model_config = ConfigDict(extra="forbid")

    image_b64: str = Field(strict=True, description="The picture's bytes in base64; a `data:` URL is taken too.")


class ModelInUse(BaseModel):
    """Which model answered."""

    name: str
    version: int = Field(description="The version's folder in `prev_trained_models`.")


class PredictSuccess(BaseModel):
    """What is in the photo."""

    status: Literal["Success"] = "Success"
    pet_type: str = Field(description="The most probable label.", examples=["CAT"])
    model_conf: float = Field(description="Its probability in percent.", ge=0, le=100, examples=[99.87])
    probabilities: dict[str, float] = Field(examples=[{"CAT": 0.9987, "DOG": 0.0013}])
    model: ModelInUse
    request_id: str


class Failure(BaseModel):
    """Why there is no answer."""

    status: Literal["Failed"] = "Failed"
    msg: str = Field(description="What the sender can do about it.")
    code: str = Field(description="What failed, for programs.", examples=["invalid_base64"])
    request_id: str


class Health(BaseModel):
    """The outcome of each check by its name."""

    ok: list[str]
    failing: dict[str, str] = Field(description="The name of each failed check, and why.")


class ModelDescription(BaseModel):
    """The model in use and what it takes and gives."""

    name: str
    version: int
    labels: tuple[str, ...]
    input_name: str
    input_shape: tuple[int, int, int] = Field(description="Height, width, channels.")
    output_name: str


def get_pipeline(request: Request) -> Pipeline:
    return request.app.state.pipeline  # type: ignore[no-any-return]  # Starlette's state is untyped by design


PipelineOfApp = Annotated[Pipeline, Depends(get_pipeline)]


async def predict(request: Request, pipeline: PipelineOfApp) -> PredictSuccess:
    """Is it a cat or a dog?"""
    photo = parse_request(request.headers, await read_body(request, pipeline.config.limits.body_bytes))
    prediction = await pipeline.classify(photo.image_b64)
    return PredictSuccess(
        pet_type=prediction.label,
        model_conf=round(100 * prediction.probabilities[prediction.label], 2),
        probabilities={label: round(value, 6) for label, value in prediction.probabilities.items()},
        model=ModelInUse(name=pipeline.config.experiment_id, version=prediction.model_version),
        request_id=request.state.request_id,
    )


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


async def readyz(pipeline: PipelineOfApp, response: Response) -> Health:
    """Would a photo be answered now? Asks the model server for its state and for a prediction."""
    checks = await pipeline.check()
    failing = {name: str(error) for name, error in checks.items() if error is not None}
    response.status_code = 503 if failing else 200
    return Health(ok=[name for name in checks if name not in failing], failing=failing)


async def index() -> RedirectResponse:
    return RedirectResponse("/docs")


async def read_body(request: Request, limit: int) -> bytes:
    """Take in the body; one that is over ``limit`` bytes is refused while it streams, not after.

    Raises:
        ImageTooLarge: at the first byte too many, or at once where Content-Length already tells.
    """
    message = f"The body has more than {limit} bytes. Send a smaller picture."
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise ImageTooLarge(message)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise ImageTooLarge(message)
    return bytes(body)


def parse_request(headers: Headers, body: bytes) -> PredictRequest:
    """Read the JSON of a request.

    Raises:
        UnsupportedMediaType: the body says that it is something other than JSON.
        InvalidRequest: it is not JSON, or a field is missing, unknown or of the wrong type.
    """
    media_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"Bodies of type {media_type} are not taken. Send {EXAMPLE} as application/json.")
    try:
        return PredictRequest.model_validate_json(body)
    except ValidationError as exc:
        raise InvalidRequest(f"{_explain(exc.errors()[0])} Send {EXAMPLE}.") from exc


def _explain(error: Any) -> str:
    field = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "json_invalid":
            return "The body is not JSON."
        case "model_type":
            return "The body is not a JSON object."
        case "missing":
            return f"Field '{field}' is missing."
        case "extra_forbidden":
            return f"Field '{field}' is unknown."
        case _:
            return f"Field '{field}': {error['msg']}."


class RequestId:
    """Gives every request an id: the sender's own ``X-Request-ID`` if it is sane, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if SANE_REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def failure(request: Request, status: int, code: str, message: str, headers: dict[str, str]) -> JSONResponse:
    request_id = request.state.request_id
    body = Failure(msg=message, code=code, request_id=request_id)
    # The header once more: Starlette answers what is unexpected outside of every middleware.
    return JSONResponse(body.model_dump(), status, headers | {"X-Request-ID": request_id})


async def on_service_error(request: Request, exc: ServiceError) -> JSONResponse:
    headers = {"Retry-After": str(exc.retry_after_seconds)} if exc.retry_after_seconds else {}
    return failure(request, exc.status, exc.code, str(exc), headers)


async def on_http_exception(request: Request, exc: HTTPException) -> JSONResponse:
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "invalid_request")
    message = f"{exc.detail}: {request.method} {request.url.path}. See /docs for what there is."
    return failure(request, exc.status_code, code, message, dict(exc.headers or {}))


async def on_client_disconnect(request: Request, exc: ClientDisconnect) -> Response:
    """Nobody is left to read this answer; without a handler it would be logged as our error."""
    return Response(status_code=400)


async def on_unexpected(request: Request, exc: Exception) -> JSONResponse:
    """A defect of ours: uvicorn logs the traceback, the sender gets the id to report it by."""
    message = "Something went wrong here. Report it with this request_id."
    return failure(request, 500, "internal_error", message, {})


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": description}
    for status, description in {
        400: "`invalid_base64`, `invalid_image`",
        413: "`image_too_large`",
        415: "`unsupported_media_type`",
        422: "`invalid_request`",
        502: "`model_error`",
        503: "`overloaded`, `model_unavailable`; see Retry-After",
        504: "`deadline_exceeded`",
    }.items()
}
# The body is read by hand (with a limit, while it streams), so FastAPI can't see its type.
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PredictRequest.model_json_schema()}},
    }
}


def create_app(config: Config, runner: Runner) -> FastAPI:
    """Build the service; nothing is opened before its lifespan starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pipeline = Pipeline(config, runner)
        await pipeline.open()
        app.state.pipeline = pipeline
        yield
        await pipeline.close()

    app = FastAPI(title="CAT or DOG", description=__doc__.splitlines()[0], lifespan=lifespan)
    for path in ("/predict", "/cat-dog_classification"):
        app.post(path, responses=REFUSALS, openapi_extra=REQUEST_BODY)(predict)
    app.get("/model", responses={status: REFUSALS[status] for status in (502, 503, 504)})(describe_model)
    app.get("/livez")(livez)
    app.get("/readyz", responses={503: {"model": Health}})(readyz)
    app.get("/", include_in_schema=False)(index)
    app.add_middleware(RequestId)
    for error, handler in {
        ServiceError: on_service_error,
        HTTPException: on_http_exception,
        ClientDisconnect: on_client_disconnect,
        Exception: on_unexpected,
    }.items():
        app.add_exception_handler(error, handler)  # type: ignore[arg-type]  # each takes just its own error
    return app


def main() -> int:
    """Serve until SIGTERM or Ctrl-C. Answers the exit status; every problem with the start is one line on stderr."""
    try:
        config = load_config(os.environ)
        listener = listen(config.server.host, config.server.port)
    except (ConfigError, OSError) as exc:
        sys.stderr.write(f"app_server: {exc}\n")
        return 1
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Pillow warns of every oddity in a photo; our log is for the operator, who can't mend other people's photos.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    app = create_app(config, ModelRunner(config))
    uvicorn.Server(uvicorn.Config(app, server_header=False)).run(sockets=[listener])
    return 0


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
