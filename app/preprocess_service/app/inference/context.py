"""The context of one request: its id, its deadline, the pictures in it, and the time of each stage."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from preprocess_service.app.errors import DeadlineExceeded, ImageTooLarge, ServiceError
from preprocess_service.app.observability.tracing import NO_TRACE, Trace


class RequestContext:
    """What the stages of one request share.

    Args:
        request_id: the id that the client gets, and that the logs of both services have.
        seconds: the time from arrival to the deadline.
        arrived: when the request arrived, on ``time.monotonic``'s clock; now by default.
        trace: gets a span for each stage.
        timeout_error: the error if the deadline passes before the whole request has arrived.
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
        # Format, width and height in pixels of each picture that could be opened.
        self.images: list[tuple[str, int, int]] = []
        self._stages: list[tuple[str, float]] = []
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._claimed_pixels = 0
        self._first_looks = 0
        self._first_looks_ended: asyncio.Event | None = None
        self._first_looks_seconds = 0.0
        self._second_looks: RequestContext | None = None
        self._start = time.monotonic() if arrived is None else arrived
        self._deadline = self._start + seconds
        # The error if the deadline passes now.
        self._timeout_error = timeout_error

    def remaining(self) -> float:
        """Return the seconds until the deadline, more than 0.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left

    def cancel(self) -> None:
        """Move the deadline into the past, so that no further stage begins: nobody waits for the answer."""
        self._deadline = self._start

    def semaphore(self, resource: str, limit: int) -> asyncio.Semaphore:
        """Return the semaphore of a resource, for at most ``limit`` photos of this request at the same time.

        Each call with the same ``resource`` gives the same semaphore.
        """
        return self._semaphores.setdefault(resource, asyncio.Semaphore(limit))

    def claim_pixels(self, pixels: int, limit: int) -> None:
        """Count the pixels of a photo that is not small. A request may have one such photo of any size.

        Raises:
            ImageTooLarge: with an earlier photo, this request has more than ``limit`` such pixels.
        """
        if self._claimed_pixels and self._claimed_pixels + pixels > limit:
            raise ImageTooLarge("batch_pixels", megapixels=f"{limit / 1e6:g}")
        self._claimed_pixels += pixels

    @contextmanager
    def first_look(self) -> Iterator[None]:
        """Count this block as the first look at one photo of the request."""
        since = time.monotonic()
        self._first_looks += 1
        try:
            yield
        finally:
            self._first_looks -= 1
            # Each photo of a batch counts from the start of the batch, so that this is the time of all together.
            self._first_looks_seconds = max(self._first_looks_seconds, time.monotonic() - since)
            if not self._first_looks and self._first_looks_ended is not None:
                self._first_looks_ended.set()

    async def second_looks(self) -> "RequestContext":
        """Wait until all first looks have ended. Return the context of the second looks at this request's photos.

        A second look must not take the time of another photo's first one. All second looks together may take half of
        the time that is left. Their limits per request are the same as those of the first looks, and counted anew.

        Raises:
            DeadlineExceeded: the time is less than the first looks took.
        """
        while self._first_looks:
            self._first_looks_ended = self._first_looks_ended or asyncio.Event()
            self._first_looks_ended.clear()
            await self._first_looks_ended.wait()
        if self._second_looks is None:
            self._second_looks = RequestContext(self.request_id, self.remaining() / 2, trace=self._trace)
            if self._second_looks.remaining() < self._first_looks_seconds:
                self._second_looks.cancel()
        self._second_looks.remaining()
        return self._second_looks

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Cancel this block when the deadline passes.

        Raises:
            DeadlineExceeded: it passed; ``timeout_error`` if the request was still being read.
        """
        try:
            async with asyncio.timeout(self.remaining()):
                yield
        except TimeoutError as exc:
            raise self._timeout_error from exc

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Measure the stage ``read``. At the end of this block the whole request has arrived."""
        with self.stage("read"):
            yield
        self._timeout_error = DeadlineExceeded

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure this block as the stage ``name``. Several threads may do so at once, for the photos of a batch."""
        start = time.monotonic()
        try:
            with self._trace.stage(name):
                yield
        finally:
            self._stages.append((name, time.monotonic() - start))

    def record_stage(self, name: str, seconds: float) -> None:
        """Count ``seconds``, which end now, as the stage ``name``."""
        self._trace.record_stage(name, seconds)
        self._stages.append((name, seconds))

    def timings(self) -> dict[str, float]:
        """Return the seconds of each stage so far, in the order of the stages; for a batch, sums over its photos."""
        sums: dict[str, float] = {}
        for name, seconds in self._stages:
            sums[name] = sums.get(name, 0) + seconds
        return sums

    def total(self) -> float:
        """Return the seconds since the request arrived."""
        return time.monotonic() - self._start

    def server_timing(self) -> str:
        """Return the Server-Timing header: each stage and the total so far, in milliseconds."""
        timings = self.timings() | {"total": self.total()}
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in timings.items())
