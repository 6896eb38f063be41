"""One request on its way: its id, how long it may still take, what it is about, and how long each stage took."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from preprocess_service.app.errors import DeadlineExceeded, ImageTooLarge, ServiceError
from preprocess_service.app.observability.tracing import NO_TRACE, Trace


class RequestContext:
    """What the stages of one request share.

    Args:
        request_id: the id that the sender, both logs and the model server know it by.
        seconds: from when it arrived to when the answer must be out.
        arrived: when that was, on ``time.monotonic``'s clock; now by default.
        trace: gets a span for each stage.
        timeout_error: what it means that the deadline passes before the whole request is there.
    """

    def __init__(
        self,
        request_id: str,
        seconds: float,
        arrived: float | None = None,
        trace: Trace = NO_TRACE,
        timeout_error: type[ServiceError] = DeadlineExceeded,
    ) -> None:
        self.request_id = request_id
        self._trace = trace
        self.bytes = 0
        # Format, width and height of each picture that could be opened.
        self.images: list[tuple[str, int, int]] = []
        self._stages: list[tuple[str, float]] = []
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._claimed_pixels = 0
        self._start = time.monotonic() if arrived is None else arrived
        self._deadline = self._start + seconds
        # What it means that the deadline passes now.
        self._timeout_error = timeout_error

    def remaining(self) -> float:
        """Seconds that are left, more than 0.

        Raises:
            DeadlineExceeded: none is.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left

    def cancel(self) -> None:
        """Let no further stage begin: nobody wants the answer any more."""
        self._deadline = self._start

    def semaphore(self, resource: str, limit: int) -> asyncio.Semaphore:
        """How many of this request's photos may use a resource at the same time; the same one for each call."""
        return self._semaphores.setdefault(resource, asyncio.Semaphore(limit))

    def claim_pixels(self, pixels: int, limit: int) -> None:
        """Count pixels that take time and memory to decode.

        Raises:
            ImageTooLarge: those of all photos of this request, of several, are more than ``limit``.
        """
        if self._claimed_pixels and self._claimed_pixels + pixels > limit:
            raise ImageTooLarge("batch_pixels", megapixels=f"{limit / 1e6:g}")
        self._claimed_pixels += pixels

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Cancel what runs in this block when the deadline passes.

        Raises:
            DeadlineExceeded: it passed; ``timeout_error`` where that was while the request was read.
        """
        try:
            async with asyncio.timeout(self.remaining()):
                yield
        except TimeoutError as exc:
            raise self._timeout_error from exc

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The stage ``read``: at the end of this block the whole request is there."""
        with self.stage("read"):
            yield
        self._timeout_error = DeadlineExceeded

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of this block for ``name``; several threads may do so at once, for the photos of a batch."""
        start = time.monotonic()
        try:
            with self._trace.stage(name):
                yield
        finally:
            self._stages.append((name, time.monotonic() - start))

    def record_stage(self, name: str, seconds: float) -> None:
        """Count these seconds, which end now, as the stage ``name``."""
        self._trace.record_stage(name, seconds)
        self._stages.append((name, seconds))

    def timings(self) -> dict[str, float]:
        """Seconds of each stage so far, in the order of the stages; those of a batch are added up."""
        sums: dict[str, float] = {}
        for name, seconds in self._stages:
            sums[name] = sums.get(name, 0) + seconds
        return sums

    def total(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self._start

    def server_timing(self) -> str:
        """The Server-Timing header: every stage and the total so far, in milliseconds."""
        timings = self.timings() | {"total": self.total()}
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in timings.items())
