"""The routes that predict: a request's photos in, its answer out, as long as somebody wants it and there is time."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from preprocess_service.app.api.exception_handlers import language_of
from preprocess_service.app.api.request_body import read_batch, read_photo
from preprocess_service.app.api.schemas import Failure, PredictBatchAnswer, PredictSuccess, failure, success
from preprocess_service.app.errors import DeadlineExceeded, InvalidRequest, RequestTimeout, ServiceError
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.pipeline import Pipeline
from preprocess_service.app.server.admission import AdmissionController
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.utils import Photo

Answer = TypeVar("Answer")

TIMEOUT_HEADER = "x-request-timeout-ms"


async def predict(request: Request) -> Response:
    """Is it a cat or a dog?"""
    admission: AdmissionController = request.app.state.admission
    pipeline: Pipeline = request.app.state.pipeline
    context = start_request(request, pipeline.config.limits.deadline_seconds)
    with admission.body(reservation_of(request)) as body:
        async with context.deadline():
            with admission.reading(body), context.reading():
                photo = await read_photo(request, pipeline.config.limits, body.reserve)
            context.bytes = len(photo)
            with admission.acquire():
                prediction = await cancel_on_disconnect(request, pipeline.classify(photo, context))
    return respond(success(prediction, pipeline.config, context.request_id), context)


async def predict_batch(request: Request) -> Response:
    """Which of these are cats, which dogs? Each photo is answered on its own: a broken one spoils no other."""
    admission: AdmissionController = request.app.state.admission
    pipeline: Pipeline = request.app.state.pipeline
    context = start_request(request, pipeline.config.limits.deadline_seconds)

    async def answer(photo: Photo | ServiceError) -> PredictSuccess | Failure:
        try:
            if isinstance(photo, ServiceError):
                raise photo
            return success(await pipeline.classify(photo, context), pipeline.config, context.request_id)
        except ServiceError as exc:
            return failure(exc, language_of(request), context.request_id)

    with admission.body(reservation_of(request)) as body:
        async with context.deadline():
            with admission.reading(body), context.reading():
                photos = await read_batch(request, pipeline.config.limits, body.reserve)
            context.bytes = sum(len(photo) for photo in photos if not isinstance(photo, ServiceError))
            with admission.acquire(len(photos)):
                predictions = await cancel_on_disconnect(request, gather(answer(photo) for photo in photos))
    return respond(PredictBatchAnswer(predictions=predictions), context)


def start_request(request: Request, seconds: float) -> RequestContext:
    """The request's time budget starts here; its sender may have less patience than we, never more.

    Raises:
        InvalidRequest: X-Request-Timeout-Ms is no number of milliseconds.
    """
    sent = request.headers.get(TIMEOUT_HEADER)
    # A body that is not here at the deadline is the sender's doing, unless it set the deadline itself.
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
    """What the server reserved at the request's head; None where it was not asked, as behind another request on the
    same connection. The request is let in, or refused, now."""
    return getattr(request.state, "reservation", None)


async def gather(works: Iterable[Awaitable[Answer]]) -> list[Answer]:
    return await asyncio.gather(*works)


async def cancel_on_disconnect(request: Request, work: Awaitable[Answer]) -> Answer:
    """Do ``work``, and drop it as soon as the sender is gone.

    Raises:
        ClientDisconnect: it is.
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
