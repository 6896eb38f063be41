"""Processes that decode pictures: each picture within a time and a memory of its own, whatever its file is made to do.

The standard library's pool can't end a task, and Pebble's hands tasks and results as pickles through one pipe with
locks that all of its processes share: a process that was broken into could run code in this one, and each that is
ended stops the others for as long as that takes. Here each process has two pipes of its own, and what comes back is
read as JSON and pixels.
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
from preprocess_service.app.imaging.resize import Pixels
from preprocess_service.app.inference.context import RequestContext
from preprocess_service.app.inference.decoder_process import DecoderEnded, DecoderProcess
from preprocess_service.app.inference.memory_budget import MemoryBudget
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.recipe import Geometry
from preprocess_service.app.utils import Photo
from serving_common.cpu_quota import usable_cores

# What every picture gets without waiting: enough for the header of any, and for most small ones as a whole.
SMALL = DecodeCost(memory_bytes=16_000_000, pixels=2_000_000)
# Time of computing, not of waiting. The slowest pictures took 0.035 s for a megapixel on a machine of 2026.
BASE_SECONDS = 1.0
SECONDS_PER_MEGAPIXEL = 0.2
# How long a picture that nobody waits for any more may go on: most end by themselves before a process is worth ending.
GRACE_SECONDS = 0.2
# What the photos of one request may have together, beyond those that are small, in multiples of `limits.pixels`.
REQUEST_PIXELS = 2
_ERRORS: dict[str, type[ServiceError]] = {
    error.__name__: error
    for error in (DeadlineExceeded, ImageTooLarge, InvalidBase64, InvalidImage, Overloaded, UnsupportedMediaType)
}

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class DecoderPool:
    """One process more than there are cores, so that pictures that take long never have all of them.

    Each picture is first tried within ``SMALL``. One that needs more is tried again when there is memory for it, and a
    process that is not the last one. Of one request as many are decoded at a time as there are cores, and of those that
    need more one fewer: whatever a request holds, it leaves a process for others.
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
    ) -> Pixels:
        """Decode and resize a photo; cancelled, it ends the process that is at work on it.

        Args:
            on_start: called when a process is there for the photo.

        Returns:
            ``[height, width, 3]`` of ``geometry.dtype``.

        Raises:
            ServiceError: the picture is refused.
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
        return np.frombuffer(pixels, geometry.dtype).reshape(geometry.height, geometry.width, 3)

    async def close(self) -> None:
        """End all processes."""
        if self._starting is not None:
            self._starting.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        await asyncio.to_thread(lambda: [process.end() for process in self._idle])

    async def check(self, timeout: float) -> ServiceError | None:
        """Start all processes; answers what is wrong where one does not start within ``timeout`` seconds."""
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
        """Have one picture decoded within ``cost``; the result as ``decoder_worker.run`` gives it."""
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
            # The one that was at work last is the next: where there is little to do, the others stay out of memory.
            self._idle.appendleft(process)
            self._slots.release()

        def end_if_at_work() -> None:
            if not call.done():
                self._metrics.decoders_ended.labels("cancelled").inc()
                process.kill()

        def on_done(_: object) -> None:
            # A thread may outlast the loop.
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
        # Answered, not raised: a future that held the exception would be held by its traceback in turn, with the photo.
        result: dict[str, Any] = {}
        try:
            # It may have waited until nobody wants the answer any more.
            context.remaining()
            with context.stage("decode"):
                # Base64 is decoded there too: 20 MB of it would hold the GIL for a tenth of a second.
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
        """The result of a task whose process ended."""
        if exc.status is None:
            self._starting = None
            return {"error": [Overloaded.__name__, "decoders", {}]}
        is_late = exc.status == -getattr(signal, "SIGPROF", 0)
        self._metrics.decoders_ended.labels("time" if is_late else "crash").inc()
        # By itself, or by what the system does to a process that was broken into.
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


def _error(result: dict[str, Any]) -> ServiceError:
    try:
        name, message, values = result["error"]
        return _ERRORS[name](message, **values)
    except (LookupError, TypeError, ValueError):
        return InvalidImage("image_broken")
