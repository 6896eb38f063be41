"""All routes. A prediction is cancelled when the client disconnects or the deadline passes."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from preprocess_service.app.api import openapi
from preprocess_service.app.api.course.site import add_course
from preprocess_service.app.api.documentation.site import add_documentation
from preprocess_service.app.api.exception_handlers import language_headers, language_of
from preprocess_service.app.api.explanation import explain
from preprocess_service.app.api.model_routes import AllModels, describe_model, golden_photo, list_models, pipeline_of
from preprocess_service.app.api.pages import FOLDER, SAMPLES, PageFiles, icon_of, page_of
from preprocess_service.app.api.request_body import Options, read_batch, read_photo
from preprocess_service.app.api.schemas import (
    Failure,
    Health,
    PredictBatchAnswer,
    PredictSuccess,
    failure,
    success,
)
from preprocess_service.app.config import Config
from preprocess_service.app.errors import DeadlineExceeded, InvalidRequest, RequestTimeout, ServiceError
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.pipeline import Pipeline
from preprocess_service.app.observability.metrics import CONTENT_TYPE
from preprocess_service.app.server.admission import MODEL_PREFIX, AdmissionController
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.utils import Photo

Answer = TypeVar("Answer")

TIMEOUT_HEADER = "x-request-timeout-ms"


class DirectRoute(APIRoute):
    """Calls its function with the request and sends the function's response, without FastAPI's steps in between.

    It is in /docs like any other route. FastAPI would resolve dependencies and validate the response again for each
    photo. That takes time on the event loop and is not needed here.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


class GetRoute(APIRoute):
    """Answers HEAD like GET; the server omits the body. The OpenAPI document has only GET."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        await self.app(scope, receive, send)


def add_routes(app: FastAPI, config: Config) -> None:
    """Add every route of the service to the app."""
    app.router.route_class = GetRoute
    photo, batch = openapi.photo_body(), openapi.batch_body(config.limits.batch_items)
    one, several = (predict, PredictSuccess), (predict_batch, PredictBatchAnswer)
    photo_of_model, batch_of_model = openapi.of_model(config.models, photo), openapi.of_model(config.models, batch)
    for path, summary, (route, answer), body, responses in (
        ("/predict", "Classify a photo", one, photo, openapi.PREDICTION),
        ("/cat-dog_classification", "Classify a photo: the course's path", one, photo, openapi.PREDICTION),
        ("/predict/batch", "Classify several photos", several, batch, openapi.PREDICTION),
        (
            f"{MODEL_PREFIX}/predict",
            "Classify a photo with one of the models",
            one,
            photo_of_model,
            openapi.PREDICTION_OF_MODEL,
        ),
        (
            f"{MODEL_PREFIX}/predict/batch",
            "Classify several photos with one of the models",
            several,
            batch_of_model,
            openapi.PREDICTION_OF_MODEL,
        ),
    ):
        app.router.add_api_route(
            path,
            route,
            summary=summary,
            methods=["POST"],
            response_model=answer,
            responses=responses,
            openapi_extra=body,
            route_class_override=DirectRoute,
        )
    app.get("/models", summary="List the models", responses=openapi.MODELS, response_model_exclude_none=True)(
        list_models
    )
    of_model, golden_of_model = openapi.of_model(config.models), openapi.of_model(config.models, openapi.PHOTO_NAME)
    for prefix, which, responses, extra, golden in (
        ("", "the model in use", openapi.MODEL, None, openapi.PHOTO_NAME),
        (MODEL_PREFIX, "one of the models", openapi.MODEL_OF_SEVERAL, of_model, golden_of_model),
    ):
        app.get(f"{prefix}/model", summary=f"Describe {which}", responses=responses, openapi_extra=extra)(
            describe_model
        )
        app.get(
            f"{prefix}/model/golden/{{name}}",
            summary=f"Get a golden photo of {which}",
            responses=openapi.GOLDEN,
            response_class=Response,
            openapi_extra=golden,
        )(golden_photo)
    for path, summary, responses, check in (
        ("/livez", "Whether the process runs", openapi.LIVE, livez),
        ("/readyz", "Whether a photo would be answered now", openapi.READY, readyz),
    ):
        app.get(path, summary=summary, responses=responses, response_model_exclude_none=True)(check)
    app.get("/metrics", include_in_schema=False)(render_metrics)
    app.get("/", include_in_schema=False)(page_of(config.models, has_course=add_course(app)))
    add_documentation(app, icon_of(config.experiment_id))
    app.mount("/static", PageFiles(FOLDER))
    app.mount("/samples", PageFiles(SAMPLES))


async def predict(request: Request) -> Response:
    """Classify a photo. It is sent as JSON with base64, as the file itself, or as a form."""
    admission: AdmissionController = request.app.state.admission
    pipeline = pipeline_of(request)
    context = start_request(request, pipeline.config.limits.deadline_seconds)
    with admission.body(reservation_of(request)) as body:
        async with context.deadline():
            with admission.reading(body), context.reading():
                photo, options = await read_photo(request, pipeline.config.limits, body)
            context.bytes = len(photo)
            with admission.acquire():
                prediction = await cancel_on_disconnect(request, pipeline.classify(photo, context))
    return respond(found(prediction, options, pipeline, context), context)


async def predict_batch(request: Request) -> Response:
    """Classify several photos. Each has its own result: a broken photo does not affect the others."""
    admission: AdmissionController = request.app.state.admission
    pipeline = pipeline_of(request)
    context = start_request(request, pipeline.config.limits.deadline_seconds)

    async def answer(photo: Photo | ServiceError, options: Options) -> PredictSuccess | Failure:
        try:
            if isinstance(photo, ServiceError):
                raise photo
            prediction = await pipeline.classify(photo, context)
            return found(prediction, options, pipeline, context)
        except ServiceError as exc:
            return failure(exc, language_of(request), context.request_id)

    with admission.body(reservation_of(request)) as body:
        async with context.deadline():
            with admission.reading(body), context.reading():
                photos, options = await read_batch(request, pipeline.config.limits, body)
            context.bytes = sum(len(photo) for photo in photos if not isinstance(photo, ServiceError))
            with admission.acquire(len(photos)):
                predictions = await cancel_on_disconnect(request, gather(answer(photo, options) for photo in photos))
    return respond(PredictBatchAnswer(predictions=predictions), context)


def found(prediction: Prediction, options: Options, pipeline: Pipeline, context: RequestContext) -> PredictSuccess:
    answer = success(prediction, pipeline.config.experiment_id, options.top_k, context.request_id)
    if options.explain:
        answer.explanation = explain(prediction)
    return answer


def start_request(request: Request, seconds: float) -> RequestContext:
    """Create the request's context with its deadline. The client can shorten the deadline, but not extend it.

    Raises:
        InvalidRequest: X-Request-Timeout-Ms is not a whole number of milliseconds.
    """
    sent = request.headers.get(TIMEOUT_HEADER)
    # A body that is not complete at the deadline is the client's fault (408), unless the client set the deadline (504).
    timeout_error: type[ServiceError] = RequestTimeout
    if sent is not None:
        if not (sent.isascii() and sent.isdecimal() and len(sent) < 10 and int(sent)):
            raise InvalidRequest("timeout_header")
        seconds = min(seconds, int(sent) / 1000)
        timeout_error = DeadlineExceeded
    state = request.state
    context = state.context = RequestContext(state.request_id, seconds, state.arrived, state.trace, timeout_error)
    return context


def reservation_of(request: Request) -> IncomingBody | None:
    """Return the server's reservation for the request; None if there is none.

    A request that follows another one on the same connection has no reservation. It is admitted or rejected now.
    """
    return getattr(request.state, "reservation", None)


async def gather(works: Iterable[Awaitable[Answer]]) -> list[Answer]:
    return await asyncio.gather(*works)


async def cancel_on_disconnect(request: Request, work: Awaitable[Answer]) -> Answer:
    """Run ``work``, and cancel it when the client disconnects.

    Raises:
        ClientDisconnect: the client has disconnected.
    """
    task = asyncio.current_task()
    assert task is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not is_gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watching.cancel()


def respond(answer: PredictSuccess | PredictBatchAnswer, context: RequestContext) -> Response:
    headers = {"Server-Timing": context.server_timing()}
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json", headers=headers)


async def livez() -> Health:
    """Answer whether this process runs. It does not check the model server, which a restart would not repair."""
    return Health(ok=["process"], failing={}, warnings=None)


async def readyz(request: Request, response: Response, models: AllModels) -> Health:
    """Answer whether a photo would be answered now. It asks the model server for its state and for a prediction."""
    language = language_of(request)
    checks, warned = await models.check()
    failing = {name: error.text(language) for name, error in checks.items() if error is not None}
    response.status_code = 503 if failing else 200
    response.headers.update(language_headers(language))
    warnings = {name: error.text(language) for name, error in warned.items()} if not failing else {}
    return Health(ok=[name for name in checks if name not in failing], failing=failing, warnings=warnings or None)


async def render_metrics(models: AllModels) -> Response:
    return Response(await models.render_metrics(), media_type=CONTENT_TYPE)
