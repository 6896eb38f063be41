"""Reads gRPC's messages: only where there is room for them, and parses none that would take much more than it brings.

gRPC itself would read as many messages of the largest size as come, and parse them in the event loop, before any code
of ours runs. A method that is declared as one that takes a stream of bytes is called when the metadata of a call has
come, before its message; on the wire the two are the same.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from model_service.errors import ServingError, forget_frames, invalid_argument, resource_exhausted
from model_service.prediction.message_memory import MessageMemory, Reservation, slow
from serving_common.tensorflow_protos import DecodeError

logger = logging.getLogger(__name__)

# For all requests but those that hold tensors.
MAX_SMALL_BYTES = 64 << 10

# TensorFlow Serving cuts its texts here: they travel in a header, and gRPC drops headers of more than 8 KiB.
_MAX_TEXT = 1024
_TRUNCATED = "...TRUNCATED"

Method = Callable[..., Awaitable[Any]]


def cut(text: str) -> str:
    """Return at most the first 1024 characters of a text, and a sign where there are more."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + _TRUNCATED


def ends_with_status(method: Method) -> Method:
    """Make a ServingError the status of the call, and anything unexpected INTERNAL, with the details in the log."""

    @functools.wraps(method)
    async def call(requests: Any, context: Any) -> Any:
        try:
            return await method(requests, context)
        except ServingError as exc:
            code, text = exc.code, exc.message
            forget_frames(exc)
        except Exception as exc:
            logger.exception("%s failed", method.__name__)
            code, text = grpc.StatusCode.INTERNAL, "Internal error; the server's log has the details"
            forget_frames(exc)
        await context.abort(code, cut(text))

    return call


class Receiver:
    """Reads one message of each call, where `memory` has a place for it."""

    def __init__(self, memory: MessageMemory) -> None:
        self._memory = memory

    async def receive(self, context: Any) -> tuple[bytes, Reservation]:
        """Return the message, and its reservation, which is the caller's to release.

        Raises ServingError: RESOURCE_EXHAUSTED where there is no place, or the message comes slowly while others
        wait for its place; INVALID_ARGUMENT where the client sends none.
        """
        reservation = await self._memory.start_reading(context.peer())
        try:
            return await self._read(context, reservation), reservation
        except BaseException:
            reservation.release()
            raise

    async def _read(self, context: Any, reservation: Reservation) -> bytes:
        # One that never comes ends with its connection, within a minute; here a timer would cost more than all else.
        task = asyncio.current_task()
        reservation.stop = task.cancel if task else None
        try:
            message: bytes = await context.read()
        except asyncio.CancelledError:
            if not reservation.is_stopped or (task and task.uncancel()):
                raise
            raise slow() from None
        reservation.is_read()
        if message is grpc.aio.EOF:
            raise invalid_argument("The call has no message")
        self._memory.note(len(message))
        return message

    def small(self, request: Any, method: Method) -> Any:
        """Return the handler of a method whose request, of this class, is small; it gets that and the context."""

        @functools.wraps(method)
        async def call(_requests: Any, context: Any) -> Any:
            message, reservation = await self.receive(context)
            # What is as small as this is not counted; some of these calls last.
            reservation.release()
            if len(message) > MAX_SMALL_BYTES:
                text = f"The message has {len(message)} bytes: this method takes at most {MAX_SMALL_BYTES}"
                raise resource_exhausted(text)
            parsed = parse(request, message)
            del message
            return await method(parsed, context)

        return grpc.stream_unary_rpc_method_handler(ends_with_status(call), response_serializer=serialize)

    def stream(self, request: Any, method: Method) -> Any:
        """The same for a method that writes a stream of answers."""
        handler = self.small(request, method).stream_unary
        return grpc.stream_stream_rpc_method_handler(handler, response_serializer=serialize)


def serialize(message: Any) -> bytes:
    """Return a message as it goes over the wire."""
    data: bytes = message.SerializeToString()
    return data


def parse(request: Any, message: bytes) -> Any:
    """Return the message as one of the class `request`; raises ServingError INVALID_ARGUMENT."""
    try:
        return request.FromString(message)
    except DecodeError as exc:
        raise invalid_argument(f"The message is no {request.DESCRIPTOR.name}") from exc
