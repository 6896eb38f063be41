"""Admission control: limits the photos in flight, the bodies that are read, and the rate of rejections."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from preprocess_service.app.config import Limits
from preprocess_service.app.errors import Overloaded
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.server.incoming_bodies import IncomingBodies, IncomingBody

# The routes whose requests need a slot. Those of PREDICTIONS also exist below MODEL_PREFIX.
PREDICTIONS = ("/predict", "/predict/batch")
LIMITED_PATHS = (*PREDICTIONS, "/cat-dog_classification")
MODEL_PREFIX = "/models/{model}"
# How many bodies may be read at a time, per slot. A body takes no slot while it is read. The limit keeps slow bodies
# from taking all connections.
BODIES_PER_SLOT = 8
# Seconds for which a slot is reserved after a request's headers have arrived. The body usually follows at once. Without
# a reservation all requests that arrive in between would be admitted for the same slot.
RESERVATION_TTL = 0.2
# If a body arrives more slowly than this, its reservation may go to the next request after the grace time. The request
# is not rejected: it needs a slot only when its whole body has arrived.
RESERVATION_BYTES_PER_SECOND = 1e6
RESERVATION_GRACE_SECONDS = 0.002
# Rejections per second and slot that are sent without delay. At a load of ten times the capacity there are 35 per slot.
# Each takes 50 microseconds of one core, which is little beside the photos.
REJECTIONS_PER_SLOT = 40
# The largest burst of rejections without delay, in seconds of the rate above.
BURST_SECONDS = 0.5
# How many client addresses with the most rejections in a second the log names.
NAMED_CLIENTS = 5

logger = logging.getLogger("request")


class AdmissionController:
    """Limits how many photos are in flight.

    A photo is in flight from the end of its request's body to the answer. There is no queue: excess requests are
    rejected at once.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        # Read once: the default depends on the cores, which are read from the files of the control groups.
        self._per_request = limits.photos_per_request
        self.limit = limits.photos_in_flight
        self.in_flight = 0
        self.bodies = IncomingBodies(limits, BODIES_PER_SLOT * self.limit, self._overloaded)
        # A dict as an ordered set: the oldest reservation first.
        self._reserved: dict[IncomingBody, None] = {}
        self._metrics = metrics
        self._rejected: dict[tuple[int, str], Counter[str]] = {}
        # A token bucket: each rejection without delay takes one token.
        self._next_token_at = 0.0
        metrics.concurrency_limit.set(self.limit)
        metrics.concurrency.set_function(lambda: self.in_flight)
        metrics.buffered_bytes.set_function(lambda: self.bodies.buffered)

    def reserve(self) -> IncomingBody | None:
        """Reserve a slot for a request whose headers have arrived, but not its body.

        Returns:
            The request's body, for ``body``, or for ``release`` if the request ends before that. None: no slot is free.
        """
        now = time.monotonic()
        while self._reserved and (first := next(iter(self._reserved))).since < now - RESERVATION_TTL:
            del self._reserved[first]
        if self.in_flight + len(self._reserved) >= self.limit and not self._release_slow_reservation(now):
            return None
        body = IncomingBody(self.bodies)
        self._reserved[body] = None
        return body

    def release(self, body: IncomingBody) -> None:
        """End a reservation: the request takes its slot now, or has ended without one."""
        self._reserved.pop(body, None)

    @contextmanager
    def acquire(self, photos: int = 1) -> Iterator[None]:
        """Take a slot for each photo that one request has in flight, during this block.

        One free slot admits a whole batch. Under load, many slots are never free at once, because single photos take
        them. A batch takes at most a quarter of all slots.

        Args:
            photos: how many the request has.

        Raises:
            Overloaded: no slot is free.
        """
        if self.in_flight >= self.limit:
            raise self._overloaded()
        # The other photos of a batch wait until its first ones have ended (``Pipeline.classify``).
        taken = min(photos, self._per_request)
        self.in_flight += taken
        try:
            yield
        finally:
            self.in_flight -= taken

    @contextmanager
    def body(self, body: IncomingBody | None) -> Iterator[IncomingBody]:
        """Give the body of one request. Its bytes are reserved as they arrive, and released when this block ends.

        Args:
            body: the result of ``reserve``. None: the request has no reservation; it gets one now.

        Raises:
            Overloaded: no slot is free, or all bodies together have too many bytes.
        """
        body = body or self.reserve()
        if body is None:
            raise self._overloaded()
        try:
            yield body
        finally:
            self.bodies.release(body)

    @contextmanager
    def reading(self, body: IncomingBody) -> Iterator[None]:
        """Read a body during this block. The reservation of the request's slot ends with the block.

        Raises:
            RequestTimeout: the body arrived too slowly.
        """
        try:
            with self.bodies.read(body):
                yield
        finally:
            self.release(body)

    def record_rejection(self) -> float:
        """Count a request that is rejected at its headers.

        Returns:
            Seconds for which nothing should be read from its client. 0 while rejections are below their rate. Above
            it, this slows down clients that retry without a pause, so that rejections cost little.
        """
        now = time.monotonic()
        self._metrics.rejected.inc()
        self._next_token_at = max(now - BURST_SECONDS, self._next_token_at) + 1 / (REJECTIONS_PER_SLOT * self.limit)
        return max(0.0, self._next_token_at - now)

    def count_rejection(self, status: int, code: str, client: str | None) -> None:
        """Count a request for the log that was rejected before the app saw it; ``client`` is its address, if logged."""
        self._rejected.setdefault((status, code), Counter())[client or ""] += 1

    def log_rejections(self) -> None:
        """Write one log line per reason, for all requests that were rejected since the last call."""
        for (status, code), clients in self._rejected.items():
            count = clients.total()
            fields = {"status": status, "code": code, "requests": count}
            if "" not in clients:
                fields["clients"] = dict(clients.most_common(NAMED_CLIENTS))
            logger.info("%d requests rejected: %s", count, code, extra=fields)
        self._rejected.clear()

    def _release_slow_reservation(self, now: float) -> bool:
        """Release one reservation whose body arrives slowly; return whether there was one."""
        for body in self._reserved:
            age = now - body.since
            if age > RESERVATION_GRACE_SECONDS and body.received < age * RESERVATION_BYTES_PER_SECOND:
                self.release(body)
                return True
        return False

    def _overloaded(self) -> Overloaded:
        self._metrics.rejected.inc()
        return Overloaded()
