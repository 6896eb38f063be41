"""Receives and parses gRPC messages within a memory limit.

By default gRPC reads any number of messages of the largest size and parses them in the event loop, before our code
runs. To prevent this, each method is declared with a stream of bytes as its request. Such a method is called when the
metadata has arrived and the message has not. The bytes on the wire are the same.
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

# The limit of requests without tensors.
MAX_SMALL_BYTES = 64 << 10

# TensorFlow Serving cuts its texts at this length. They are sent in a header; gRPC drops headers of more than 8 KiB.
_MAX_TEXT = 1024
_TRUNCATED = "...TRUNCATED"

Method = Callable[..., Awaitable[Any]]


def cut(text: str) -> str:
    """Return the first 1024 characters of `text`, with "...TRUNCATED" if it is longer."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + _TRUNCATED


def ends_with_status(method: Method, name: str = "") -> Method:
    """Turn a ServingError into the status of the call. Any other exception becomes INTERNAL and is logged."""

    async def call(requests: Any, context: Any) -> Any:
        try:
            return await method(requests, context)
        except ServingError as exc:
            code, text = exc.code, exc.message
            forget_frames(exc)
        except Exception as exc:
            logger.exception("%s failed", name or method.__name__)
            code, text = grpc.StatusCode.INTERNAL, "Internal error; the server's log has the details"
            forget_frames(exc)
        await context.abort(code, cut(text))

    return call


class Receiver:
    """Receives the message of each call after `memory` has reserved a place for it."""

    def __init__(self, memory: MessageMemory) -> None:
        self._memory = memory

    async def receive(self, context: Any) -> tuple[bytes, Reservation]:
        """Return the message and its reservation. The caller must release the reservation.

        Raises ServingError: RESOURCE_EXHAUSTED if there is no place, or if the message arrives slowly while others
        wait for its place; INVALID_ARGUMENT if the client sends no message.
        """
        reservation = await self._memory.start_reading(context.peer())
        try:
            return await self._read(context, reservation), reservation
        except BaseException:
            reservation.release()
            raise

    async def _read(self, context: Any, reservation: Reservation) -> bytes:
        # No timer here: it would cost more than all the rest. If the message never comes, the call ends with its
        # connection, within a minute.
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
        """Return the handler of a method with a small request of class `request`; `method` gets (request, context)."""

        @functools.wraps(method)
        async def call(_requests: Any, context: Any) -> Any:
            message, reservation = await self.receive(context)
            # Small messages are not counted. Some of these calls last long (health watches).
            reservation.release()
            if len(message) > MAX_SMALL_BYTES:
                text = f"The message has {len(message)} bytes: this method takes at most {MAX_SMALL_BYTES}"
                raise resource_exhausted(text)
            parsed = parse(request, message)
            del message
            return await method(parsed, context)

        return grpc.stream_unary_rpc_method_handler(ends_with_status(call), response_serializer=serialize)

    def stream(self, request: Any, method: Method) -> Any:
        """Return the same for a method that streams its answers."""
        handler = self.small(request, method).stream_unary
        return grpc.stream_stream_rpc_method_handler(handler, response_serializer=serialize)


def serialize(message: Any) -> bytes:
    """Return the wire format of a protobuf message."""
    data: bytes = message.SerializeToString()
    return data


def parse(request: Any, message: bytes) -> Any:
    """Return `message` as an object of class `request`; raises ServingError INVALID_ARGUMENT."""
    try:
        return request.FromString(message)
    except DecodeError as exc:
        raise invalid_argument(f"The message is not a valid {request.DESCRIPTOR.name}") from exc
