"""Limits the request bodies that are being read: their number and their bytes. At a limit the slowest is rejected."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from preprocess_service.app.config import Limits
from preprocess_service.app.errors import Overloaded, RequestTimeout

# Seconds. A body's rate is measured over the current period and the one before it.
PERIOD = 0.5
# Bytes that are added to each body's count, so that a fast body does not look slow in its first moments.
ON_THE_WAY = 1000

# If bodies had more bytes than this, the heap is trimmed afterwards. Bodies lie in the heap, and a block in use keeps
# malloc from returning the freed memory below it.
BURST_BYTES = 16_000_000


class IncomingBody:
    """The body of one request. It counts bytes as they come in, and reserves memory until the request is answered."""

    def __init__(self, bodies: "IncomingBodies") -> None:
        self.since = time.monotonic()
        self.received = 0
        self.reserved = 0
        self._bodies = bodies
        self._task: asyncio.Task[object] | None = None
        # The message of the rejection. Not the exception: its traceback would keep this object and what was read.
        self._rejection: str | None = None
        # The period in which bytes arrived last, the bytes in it, and the bytes in the period before it.
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
        """Return the body's age in seconds, divided by the bytes that arrived recently."""
        periods_ago = int(now / PERIOD) - self._period
        recent = {0: self._bytes_now + self._bytes_before, 1: self._bytes_now}.get(periods_ago, 0)
        return (now - self.since) / (recent + ON_THE_WAY)

    def reject(self, message: str) -> None:
        """Stop reading the body. Its client gets the error 408 with ``message``, a key of ``MESSAGES``."""
        self._rejection = message
        self._bodies.release(self)
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let ``reject`` cancel the current task during this block.

        Raises:
            RequestTimeout: the body was rejected.
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
    """All request bodies and their limits.

    Args:
        max_reading: the most bodies that are read at the same time.
        overloaded: makes the error that is raised at the limit of bytes.
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
        """Read a body during this block. At the limit the slowest of the other bodies is rejected.

        Raises:
            RequestTimeout: this body was rejected.
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
        """Count ``size`` further bytes of ``body``. At the limit, large slow bodies are rejected first.

        Raises:
            Overloaded: ``body`` itself is the first to be rejected.
        """
        while self.buffered + size > self._limits.buffered_bytes:
            now = time.monotonic()
            # If several are equal, max returns the first one, which is ``body``.
            worst = max([body, *self._reading], key=lambda other: other.reserved * other.slowness(now))
            if worst is body:
                raise self._overloaded()
            worst.reject("body_slowest")
        self.buffered += size
        self._had_burst |= self.buffered > BURST_BYTES

    def release(self, body: IncomingBody) -> None:
        """Give back the bytes of a body: they are free now, or will be in a moment."""
        self.buffered -= body.reserved
        body.reserved = 0
        self._reading.discard(body)

    def is_burst_over(self) -> bool:
        """Return whether a burst has ended: bodies took more than ``BURST_BYTES`` and take less now.

        It is True once per burst.
        """
        if not self._had_burst or self.buffered > BURST_BYTES:
            return False
        self._had_burst = False
        return True

    def reject_slow(self) -> None:
        """Reject bodies slower than ``limits.body_bytes_per_second``. It is called about once a second."""
        now = time.monotonic()
        for body in list(self._reading):
            age = now - body.since
            if age > self._limits.body_grace_seconds and body.received < age * self._limits.body_bytes_per_second:
                body.reject("request_timeout")
