"""Reads the bodies of HTTP requests: within bounds of size and time, and where there is memory for them."""

import asyncio
import zlib

import grpc
from starlette.requests import ClientDisconnect, Request

from model_service.api.json_limits import memory_of
from model_service.errors import ServingError, invalid_argument
from model_service.prediction.message_memory import MessageMemory, Reservation, slow

# How long a body may take to come, also where nobody waits for its room.
READ_S = 10.0


class HttpError(ServingError):
    """An error for which HTTP has a status of its own."""

    def __init__(self, status: int, code: grpc.StatusCode, message: str) -> None:
        super().__init__(code, message)
        self.status = status


async def read_body(request: Request, memory: MessageMemory, max_bytes: int) -> tuple[bytes, Reservation]:
    """Return the body, JSON, unpacked if it came as gzip, and the memory that is reserved for reading it.

    The reservation is the caller's to release. Raises ServingError without reading on: 413 for a body over `max_bytes`
    as it came or unpacked, or that would take too much memory, 408 for one that comes too slowly, INVALID_ARGUMENT for
    broken gzip, RESOURCE_EXHAUSTED where there is no room.
    """
    reservation = memory.start_body(":".join(map(str, request.client or ())))
    try:
        body = await _received(request, reservation, max_bytes)
        reservation.is_read()
        if request.headers.get("content-encoding") == "gzip":
            await reservation.grow(len(body) + max_bytes)
            body = await asyncio.to_thread(unzipped, body, max_bytes)
        await _make_room(reservation, memory_of(body))
        return body, reservation
    except BaseException:
        reservation.release()
        raise


async def _received(request: Request, reservation: Reservation, max_bytes: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_S) as limit:
            reservation.stop = lambda: limit.reschedule(loop.time())
            async for part in request.stream():
                size += len(part)
                if size > max_bytes:
                    raise too_large(max_bytes)
                # Twice: the parts, and the whole that is made of them.
                await reservation.grow(2 * size)
                parts.append(part)
    except TimeoutError:
        if reservation.is_stopped:
            raise slow() from None
        text = f"The body did not come within {READ_S:g} s"
        raise HttpError(408, grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
    except ClientDisconnect:
        raise client_gone() from None
    return b"".join(parts)


async def _make_room(reservation: Reservation, size: int) -> None:
    if size > reservation.memory.most:
        raise HttpError(
            413,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"Reading this JSON would take {size} bytes of memory, more than the {reservation.memory.most} that there "
            "are for one request (--max_message_bytes): send fewer values at a time, or use gRPC",
        )
    await reservation.grow(size)


def unzipped(body: bytes, max_bytes: int) -> bytes:
    """Return what is packed in a gzip body; raises ServingError where that is broken or has more than `max_bytes`."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise invalid_argument(f"The body is not valid gzip ({exc})") from exc
    if len(unpacked) > max_bytes:
        raise too_large(max_bytes)
    if not unpacker.eof:
        raise invalid_argument("The body is not valid gzip (it is cut off)")
    return unpacked


def too_large(max_bytes: int) -> HttpError:
    """Return the error that says that a body is over the limit, as it came or once it is unpacked."""
    text = f"The body is larger than {max_bytes} bytes (--max_message_bytes)"
    return HttpError(413, grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def client_gone() -> ServingError:
    """Return the error that ends a call whose client has gone: nobody reads it; the status is what is counted."""
    return ServingError(grpc.StatusCode.CANCELLED, "The client has gone")
