"""Request bodies that are coming in: bounded in number and in bytes together. The slowest makes room for the others."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from preprocess_service.app.config import Limits
from preprocess_service.app.errors import Overloaded, RequestTimeout

# Over how many seconds it is measured how fast a body comes in: this period and the one before it.
PERIOD = 0.5
# Bytes that a body is taken to have on its way: so that the first moments of a fast one don't look slow.
ON_THE_WAY = 1000

# Bodies come in parts of the heap, and a part in use keeps all that is freed below it: after so many bytes of them the
# heap is trimmed.
BURST_BYTES = 16_000_000


class IncomingBody:
    """The body of one request. It counts bytes as they come in, and reserves memory until the request is answered."""

    def __init__(self, bodies: "IncomingBodies") -> None:
        self.since = time.monotonic()
        self.received = 0
        self.reserved = 0
        self._bodies = bodies
        self._task: asyncio.Task[object] | None = None
        # The message to reject it with. Not the exception: its traceback has this object, and what was read.
        self._rejection: str | None = None
        # In which period bytes came last, how many came in it, and how many in the one before.
        self._period = 0
        self._bytes_now = self._bytes_before = 0

    def receive(self, size: int) -> None:
        """Count ``size`` further bytes that came in: how fast it comes is measured by them."""
        period = int(time.monotonic() / PERIOD)
        if period != self._period:
            self._bytes_before = self._bytes_now if period == self._period + 1 else 0
            self._period, self._bytes_now = period, 0
        self._bytes_now += size
        self.received += size

    def reserve(self, size: int) -> None:
        """Take ``size`` further bytes of memory, for what came in or what is unpacked of it.

        Raises:
            Overloaded: all bodies together would take more than ``limits.buffered_bytes``, and no other is slower.
        """
        self._bodies.reserve(self, size)
        self.reserved += size

    def slowness(self, now: float) -> float:
        """Seconds that it has taken, for each byte that came in recently."""
        periods_ago = int(now / PERIOD) - self._period
        recent = {0: self._bytes_now + self._bytes_before, 1: self._bytes_now}.get(periods_ago, 0)
        return (now - self.since) / (recent + ON_THE_WAY)

    def reject(self, message: str) -> None:
        """Stop to read it; its sender is told why."""
        self._rejection = message
        self._bodies.release(self)
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The task that runs this block reads the body.

        Raises:
            RequestTimeout: it was ended.
        """
        self._task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if self._rejection is None or self._task is None:
                raise
            self._task.uncancel()
            raise RequestTimeout(self._rejection) from None
        finally:
            self._task = None


class IncomingBodies:
    """All of them.

    Args:
        max_reading: of bodies that are read at the same time, at most.
        overloaded: makes the error that is raised where there is no room.
    """

    def __init__(self, limits: Limits, max_reading: int, overloaded: Callable[[], Overloaded]) -> None:
        self.buffered = 0
        self._overloaded = overloaded
        self._limits = limits
        self._max_reading = max_reading
        self._reading: set[IncomingBody] = set()
        self._had_burst = False

    @contextmanager
    def read(self, body: IncomingBody) -> Iterator[None]:
        """Read one during this block. Where there are too many, the slowest of the others is ended.

        Raises:
            RequestTimeout: this one was ended.
        """
        if len(self._reading) >= self._max_reading:
            now = time.monotonic()
            max(self._reading, key=lambda other: other.slowness(now)).reject("body_slowest")
        self._reading.add(body)
        try:
            with body.reading():
                yield
        finally:
            self._reading.discard(body)

    def reserve(self, body: IncomingBody, size: int) -> None:
        """Find room for bytes of ``body``: those that are large and come slowly are ended first.

        Raises:
            Overloaded: there is none.
        """
        while self.buffered + size > self._limits.buffered_bytes:
            now = time.monotonic()
            # The first one, where they are equal.
            worst = max([body, *self._reading], key=lambda other: other.reserved * other.slowness(now))
            if worst is body:
                raise self._overloaded()
            worst.reject("body_slowest")
        self.buffered += size
        self._had_burst |= self.buffered > BURST_BYTES

    def release(self, body: IncomingBody) -> None:
        """Its bytes are free, or will be in a moment."""
        self.buffered -= body.reserved
        body.reserved = 0
        self._reading.discard(body)

    def is_burst_over(self) -> bool:
        """Whether bodies took more than ``BURST_BYTES`` since the last call that said so, and take less now."""
        if not self._had_burst or self.buffered > BURST_BYTES:
            return False
        self._had_burst = False
        return True

    def reject_slow(self) -> None:
        """End those that came in more slowly than ``limits.body_bytes_per_second``; asked about once a second."""
        now = time.monotonic()
        for body in list(self._reading):
            age = now - body.since
            if age > self._limits.body_grace_seconds and body.received < age * self._limits.body_bytes_per_second:
                body.reject("request_timeout")
