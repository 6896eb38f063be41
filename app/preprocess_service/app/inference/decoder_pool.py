"""Decodes pictures in processes. Each picture has a limit of time and of memory, even if its file is hostile.

Existing pools do not fit. The standard library's pool can't end a task. Pebble's pool sends tasks and results as
pickles through one pipe, with locks that all its processes share. A compromised process could then run code in this
one. When one process is ended, the others stop until it has ended. Here each process has its own two pipes, and its
results are read as JSON and pixels.
"""

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from preprocess_service.app.config import Config
from preprocess_service.app.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidBase64,
    InvalidImage,
    Overloaded,
    ServiceError,
    UnsupportedMediaType,
)
from preprocess_service.app.imaging.decode_cost import DecodeCost
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.decoder_process import DecoderEnded, DecoderProcess
from preprocess_service.app.inference.memory_budget import MemoryBudget
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.recipe import Geometry
from preprocess_service.app.utils import Photo, Prepared
from serving_common.cpu_quota import usable_cores

# Each picture may use this much without waiting for memory. It is enough for any header and for most small pictures.
SMALL = DecodeCost(memory_bytes=16_000_000, pixels=2_000_000)
# CPU time, not time of waiting. On a machine of 2026 the slowest pictures took 0.035 s per megapixel.
BASE_SECONDS = 1.0
SECONDS_PER_MEGAPIXEL = 0.2
# Seconds that a picture may go on after its request was cancelled. Most end within this time and keep their process.
GRACE_SECONDS = 0.2
# The most pixels of all photos of one request that are not small, in multiples of `limits.pixels`.
REQUEST_PIXELS = 2
_ERRORS: dict[str, type[ServiceError]] = {
    error.__name__: error
    for error in (DeadlineExceeded, ImageTooLarge, InvalidBase64, InvalidImage, Overloaded, UnsupportedMediaType)
}

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class DecoderPool:
    """A pool with one process more than there are cores, so that large pictures never occupy all processes.

    Each picture is first decoded within the limits ``SMALL``. If it needs more, it is decoded again as a large picture:
    it waits for memory, and one process always stays free of large pictures. With n cores, one request uses at most n
    processes, and n - 1 for its large pictures (at least 1). So each request leaves a process for others.
    """

    def __init__(self, config: Config, metrics: Metrics) -> None:
        limits = config.limits
        self._cores = limits.decode_threads or usable_cores()
        self._task = {"max_pixels": limits.pixels, "max_memory": limits.decode_bytes}
        self._max_seconds = limits.deadline_seconds
        self._request_pixels = REQUEST_PIXELS * limits.pixels
        self._processes = [DecoderProcess() for _ in range(self._cores + 1)]
        self._idle = deque(self._processes)
        self._slots = asyncio.Semaphore(len(self._processes))
        self._large = asyncio.Semaphore(self._cores)
        self._memory = MemoryBudget(limits.decode_bytes)
        self._threads = ThreadPoolExecutor(len(self._processes), "decoder")
        self._starting: asyncio.Task[bool] | None = None
        self._metrics = metrics

    async def decode(
        self, photo: Photo, context: RequestContext, geometry: Geometry, on_start: Callable[[], None]
    ) -> Prepared:
        """Decode and resize a photo. If it is cancelled, the process that works on the photo is ended.

        Args:
            on_start: called when a process is free for the photo.

        Returns:
            Pixels ``[height, width, 3]`` of ``geometry.dtype``, RGB, 0 to 255, and the upright photo's size.

        Raises:
            ServiceError: the picture is rejected.
        """
        async with context.semaphore("decoders", self._cores):
            result, pixels = await self._run(photo, context, geometry, SMALL, on_start)
        if cost := _needs(result, self._memory.size):
            context.claim_pixels(cost.pixels, self._request_pixels)
            async with (
                context.semaphore("large decoders", max(1, self._cores - 1)),
                self._large,
                self._memory.reserve(cost.memory_bytes),
            ):
                result, pixels = await self._run(photo, context, geometry, cost, bool)
        context.images += _header(result)
        if len(pixels) == 0:
            raise _error(result)
        array = np.frombuffer(pixels, geometry.dtype).reshape(geometry.height, geometry.width, 3)
        return Prepared(array, _size(result))

    async def close(self) -> None:
        """End all processes."""
        if self._starting is not None:
            self._starting.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        # A copy: meanwhile calls that end return their processes.
        await asyncio.to_thread(lambda idle: [process.end() for process in idle], list(self._idle))

    async def check(self, timeout: float) -> ServiceError | None:
        """Start all processes; return an error if one does not start within ``timeout`` seconds, else None."""
        starting = self._starting
        if starting is None or (starting.done() and not starting.result()):
            starting = self._starting = asyncio.create_task(self._start_all())
        # Meanwhile a process may end, so that the next check starts them again.
        await asyncio.wait([starting], timeout=timeout)
        return None if starting.done() and starting.result() else Overloaded("decoders")

    async def _start_all(self) -> bool:
        calls = [self._call(DecoderProcess.start, bool) for _ in self._processes]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return not any(isinstance(result, BaseException) for result in results)

    async def _run(
        self,
        photo: Photo,
        context: RequestContext,
        geometry: Geometry,
        cost: DecodeCost,
        on_start: Callable[[], object],
    ) -> tuple[dict[str, Any], bytes]:
        """Decode one picture within ``cost``; return the result of ``decoder_worker.run``."""
        task = self._task | self._limits(cost) | {"geometry": geometry.model_dump()}
        size = geometry.height * geometry.width * 3 * np.dtype(geometry.dtype).itemsize
        return await self._call(lambda process: self._decode(process, photo, context, task, size), on_start)

    async def _call(self, function: Callable[[DecoderProcess], Result], on_start: Callable[[], object]) -> Result:
        """Wait for an idle process and call ``function`` with it, in a thread."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        process = self._idle.popleft()
        on_start()
        call = self._threads.submit(function, process)

        def release() -> None:
            # The process that worked last is used first. So under little load the others are never started.
            self._idle.appendleft(process)
            self._slots.release()

        def end_if_at_work() -> None:
            if not call.done():
                self._metrics.decoders_ended.labels("cancelled").inc()
                process.kill()

        def on_done(_: object) -> None:
            # A thread may run longer than the event loop.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(release)

        call.add_done_callback(on_done)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            loop.call_later(GRACE_SECONDS, end_if_at_work)
            raise

    def _limits(self, cost: DecodeCost) -> dict[str, float]:
        seconds = min(BASE_SECONDS + SECONDS_PER_MEGAPIXEL * cost.pixels / 1e6, self._max_seconds)
        return {"memory": cost.memory_bytes, "pixels": cost.pixels, "seconds": seconds}

    def _decode(
        self, process: DecoderProcess, photo: Photo, context: RequestContext, task: dict[str, Any], size: int
    ) -> tuple[dict[str, Any], bytes]:
        # Errors are returned, not raised: a future with an exception and the exception's traceback would refer to each
        # other, and would keep the photo in memory.
        result: dict[str, Any] = {}
        try:
            # The deadline may have passed while the photo waited.
            context.remaining()
            with context.stage("decode"):
                # The process decodes base64 too: here 20 MB of it would hold the GIL for 0.1 s.
                is_base64 = isinstance(photo, str)
                data = photo.encode("ascii", "replace") if isinstance(photo, str) else photo
                result, pixels = process.decode(task | {"is_base64": is_base64}, data, size)
                if "error" in result:
                    raise _error(result)
        except ServiceError as exc:
            return {"header": result.get("header"), "error": [type(exc).__name__, exc.message, exc.values]}, b""
        except DecoderEnded as exc:
            return self._explain(exc, context), b""
        return result, pixels

    def _explain(self, exc: DecoderEnded, context: RequestContext) -> dict[str, Any]:
        """Return the result of a task whose process ended."""
        if exc.status is None:
            self._starting = None
            return {"error": [Overloaded.__name__, "decoders", {}]}
        is_late = exc.status == -getattr(signal, "SIGPROF", 0)
        self._metrics.decoders_ended.labels("time" if is_late else "crash").inc()
        # It crashed, or the system ended it, for example because it was compromised and tried to write a file.
        if not is_late:
            fields = {"request_id": context.request_id, "status": exc.status}
            logger.warning("a decoder ended at a picture: status %d", exc.status, extra=fields)
        return {"error": ["ImageTooLarge", "image_seconds", {}] if is_late else ["InvalidImage", "image_broken", {}]}


def _needs(result: dict[str, Any], max_memory: int) -> DecodeCost | None:
    match result.get("needs"):
        case {"memory_bytes": int(memory), "pixels": int(pixels)} if 0 <= memory <= max_memory and pixels >= 0:
            return DecodeCost(memory, pixels)
    return None


def _header(result: dict[str, Any]) -> list[tuple[str, int, int]]:
    match result.get("header"):
        case [str(name), int(width), int(height)]:
            return [(name[:8], width, height)]
    return []


def _size(result: dict[str, Any]) -> tuple[int, int]:
    match result.get("size"):
        case [int(width), int(height)] if width > 0 and height > 0:
            return width, height
    raise InvalidImage("image_broken")


def _error(result: dict[str, Any]) -> ServiceError:
    try:
        name, message, values = result["error"]
        return _ERRORS[name](message, **values)
    except (LookupError, TypeError, ValueError):
        return InvalidImage("image_broken")
