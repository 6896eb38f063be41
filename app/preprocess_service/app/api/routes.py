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
from preprocess_service.app.inference.context import Job
from preprocess_service.app.inference.pipeline import Pipeline
from preprocess_service.app.server.admission import Gate
from preprocess_service.app.server.incoming_bodies import IncomingBody
from preprocess_service.app.utils import Photo

Answer = TypeVar("Answer")

TIMEOUT_HEADER = "x-request-timeout-ms"


async def predict(request: Request) -> Response:
    """Is it a cat or a dog?"""
    gate: Gate = request.app.state.gate
    pipeline: Pipeline = request.app.state.pipeline
    job = start_job(request, pipeline.config.limits.deadline_seconds)
    with gate.body(reservation_of(request)) as body:
        async with job.limit():
            with gate.reading(body), job.reading():
                photo = await read_photo(request, pipeline.config.limits, body.hold)
            job.bytes = len(photo)
            with gate.enter():
                prediction = await unless_gone(request, pipeline.classify(photo, job))
    return respond(success(prediction, pipeline.config, job.request_id), job)


async def predict_batch(request: Request) -> Response:
    """Which of these are cats, which dogs? Each photo is answered on its own: a broken one spoils no other."""
    gate: Gate = request.app.state.gate
    pipeline: Pipeline = request.app.state.pipeline
    job = start_job(request, pipeline.config.limits.deadline_seconds)

    async def answer(photo: Photo | ServiceError) -> PredictSuccess | Failure:
        try:
            if isinstance(photo, ServiceError):
                raise photo
            return success(await pipeline.classify(photo, job), pipeline.config, job.request_id)
        except ServiceError as exc:
            return failure(exc, language_of(request), job.request_id)

    with gate.body(reservation_of(request)) as body:
        async with job.limit():
            with gate.reading(body), job.reading():
                photos = await read_batch(request, pipeline.config.limits, body.hold)
            job.bytes = sum(len(photo) for photo in photos if not isinstance(photo, ServiceError))
            with gate.enter(len(photos)):
                predictions = await unless_gone(request, gather(answer(photo) for photo in photos))
    return respond(PredictBatchAnswer(predictions=predictions), job)


def start_job(request: Request, seconds: float) -> Job:
    """The request's time budget starts here; its sender may have less patience than we, never more.

    Raises:
        InvalidRequest: X-Request-Timeout-Ms is no number of milliseconds.
    """
    sent = request.headers.get(TIMEOUT_HEADER)
    # A body that is not here at the deadline is the sender's doing, unless it set the deadline itself.
    late: type[ServiceError] = RequestTimeout
    if sent is not None:
        if not (sent.isascii() and sent.isdecimal() and len(sent) < 10 and int(sent)):
            raise InvalidRequest("timeout_header")
        seconds = min(seconds, int(sent) / 1000)
        late = DeadlineExceeded
    state = request.state
    job = state.job = Job(state.request_id, seconds, state.arrived, state.trace, late)
    return job


def reservation_of(request: Request) -> IncomingBody | None:
    """What the server reserved at the request's head; None where it was not asked, as behind another request on the
    same connection. The request is let in, or refused, now."""
    return getattr(request.state, "reservation", None)


async def gather(works: Iterable[Awaitable[Answer]]) -> list[Answer]:
    return await asyncio.gather(*works)


async def unless_gone(request: Request, work: Awaitable[Answer]) -> Answer:
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


def respond(answer: PredictSuccess | PredictBatchAnswer, job: Job) -> Response:
    headers = {"Server-Timing": job.server_timing()}
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json", headers=headers)
