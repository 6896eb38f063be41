"""Reads the bodies of HTTP requests within limits of size, time and memory."""

import asyncio
import zlib

import grpc
from starlette.requests import ClientDisconnect, Request

from model_service.api.json_limits import memory_of
from model_service.errors import ServingError, invalid_argument
from model_service.prediction.message_memory import MessageMemory, Reservation, slow

# Time limit of a body, in seconds, also if no other request waits for its memory.
READ_S = 10.0


class HttpError(ServingError):
    """An error with an HTTP status of its own."""

    def __init__(self, status: int, code: grpc.StatusCode, message: str) -> None:
        super().__init__(code, message)
        self.status = status


async def read_body(request: Request, memory: MessageMemory, max_bytes: int) -> tuple[bytes, Reservation]:
    """Return the body (JSON, decompressed if it is gzip) and its memory reservation.

    The caller must release the reservation. Raises ServingError at once: HTTP 413 if the body has more than
    `max_bytes`, compressed or not, or if parsing would take too much memory; 408 if it arrives too slowly;
    INVALID_ARGUMENT if the gzip is invalid; RESOURCE_EXHAUSTED if there is not enough memory.
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
                # Twice: for the parts and for the joined body.
                await reservation.grow(2 * size)
                parts.append(part)
    except TimeoutError:
        if reservation.is_stopped:
            raise slow() from None
        text = f"The body did not arrive within {READ_S:g} s"
        raise HttpError(408, grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
    except ClientDisconnect:
        raise client_gone() from None
    return b"".join(parts)


async def _make_room(reservation: Reservation, size: int) -> None:
    if size > reservation.memory.most:
        raise HttpError(
            413,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"Parsing this JSON would take {size} bytes of memory, and one request may take {reservation.memory.most} "
            "(--max_message_bytes): send fewer values at a time, or use gRPC",
        )
    await reservation.grow(size)


def unzipped(body: bytes, max_bytes: int) -> bytes:
    """Return the decompressed body; raises ServingError if the gzip is invalid or holds more than `max_bytes`."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise invalid_argument(f"The body is not valid gzip ({exc})") from exc
    if len(unpacked) > max_bytes:
        raise too_large(max_bytes)
    if not unpacker.eof:
        raise invalid_argument("The body is not valid gzip (it is incomplete)")
    return unpacked


def too_large(max_bytes: int) -> HttpError:
    """Return an error (HTTP 413): the body exceeds the limit, compressed or not."""
    text = f"The body is larger than {max_bytes} bytes (--max_message_bytes)"
    return HttpError(413, grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def client_gone() -> ServingError:
    """Return the error of a call whose client has disconnected. Nobody reads it; only its status is counted."""
    return ServingError(grpc.StatusCode.CANCELLED, "The client has disconnected")
