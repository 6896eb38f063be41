"""Admission control: how many photos are in flight, which bodies are read, and how fast the rest is rejected."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from preprocess_service.app.config import Limits
from preprocess_service.app.errors import Overloaded
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.server.incoming_bodies import IncomingBodies, IncomingBody

# The routes whose requests need a slot.
LIMITED_PATHS = ("/predict", "/cat-dog_classification", "/predict/batch")
# Bodies may come in slowly, and take no slot meanwhile. Bounded too, so that slow ones never take all connections.
BODIES_PER_SLOT = 8
# How long a slot is reserved for a request whose headers are here. Its body usually follows at once; without this, all
# requests that come in between would be admitted for the same slot.
RESERVATION_TTL = 0.2
# A request whose body comes more slowly than this, after a first moment, loses its reservation to the next one. It is
# not rejected: whether there is a slot is decided when all of its body is here.
RESERVATION_BYTES_PER_SECOND = 1e6
RESERVATION_GRACE_SECONDS = 0.002
# Rejections a second that are sent at once. At ten times the load that can be carried there are 35 for each slot; each
# takes 50 microseconds of one core, which the photos can spare.
REJECTIONS_PER_SLOT = 40
# How much of a second's worth of them may come in one go.
BURST_SECONDS = 0.5
# Of the addresses whose requests were rejected in a second, how many are named in the log.
NAMED_CLIENTS = 5

logger = logging.getLogger("request")


class AdmissionController:
    """Limits how many photos are in flight: from when their request's body is here to when its answer is.

    There is no queue: excess requests are rejected at once.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        # Once: it reads the files of the control groups.
        self._per_request = limits.photos_per_request
        self.limit = limits.photos_in_flight
        self.in_flight = 0
        self.bodies = IncomingBodies(limits, BODIES_PER_SLOT * self.limit, self._overloaded)
        # In the order in which they came. A set has none.
        self._reserved: dict[IncomingBody, None] = {}
        self._metrics = metrics
        self._rejected: dict[tuple[int, str], Counter[str]] = {}
        # A token bucket: one token for each rejection that is sent at once.
        self._next_token_at = 0.0
        metrics.concurrency_limit.set(self.limit)
        metrics.concurrency.set_function(lambda: self.in_flight)
        metrics.buffered_bytes.set_function(lambda: self.bodies.buffered)

    def reserve(self) -> IncomingBody | None:
        """Reserve a slot for a request whose headers are here, and whose body is not.

        Returns:
            Its body, to be handed to ``body``, or to ``release`` if it comes to nothing; None where there is no slot.
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
        """End a reservation: the request takes its slot now, or has come to nothing."""
        self._reserved.pop(body, None)

    @contextmanager
    def acquire(self, photos: int = 1) -> Iterator[None]:
        """Take a slot for each photo that one request has in flight. One free slot admits a whole batch, since it
        can't wait for many at once among senders of single photos; it takes a quarter of all slots at most.

        Raises:
            Overloaded: there is no free slot.
        """
        if self.in_flight >= self.limit:
            raise self._overloaded()
        # The rest of a batch waits for its own photos, not among those of others (``Pipeline.classify``).
        taken = min(photos, self._per_request)
        self.in_flight += taken
        try:
            yield
        finally:
            self.in_flight -= taken

    @contextmanager
    def body(self, body: IncomingBody | None) -> Iterator[IncomingBody]:
        """Room for the body of one request, part by part as it comes in, until this block ends.

        Args:
            body: what ``reserve`` gave; None for a request without a reservation: it is made now.

        Raises:
            Overloaded: there is no slot, or no room for its bytes.
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
        """Read a body during this block; the request's slot is reserved no longer than that.

        Raises:
            RequestTimeout: it came too slowly.
        """
        try:
            with self.bodies.read(body):
                yield
        finally:
            self.release(body)

    def record_rejection(self) -> float:
        """Count a request that is rejected at its headers.

        Returns:
            Seconds for which its sender need not be listened to: 0 while there are few of them; else as many as it
            takes to slow clients that retry without a pause down to what rejections may cost.
        """
        now = time.monotonic()
        self._metrics.rejected.inc()
        self._next_token_at = max(now - BURST_SECONDS, self._next_token_at) + 1 / (REJECTIONS_PER_SLOT * self.limit)
        return max(0.0, self._next_token_at - now)

    def count_rejection(self, status: int, code: str, client: str | None) -> None:
        """Remember for the log that a request was rejected before the app saw it."""
        self._rejected.setdefault((status, code), Counter())[client or ""] += 1

    def log_rejections(self) -> None:
        """Write one line for all requests that were rejected for the same reason since the last call."""
        for (status, code), clients in self._rejected.items():
            count = clients.total()
            fields = {"status": status, "code": code, "requests": count}
            if "" not in clients:
                fields["clients"] = dict(clients.most_common(NAMED_CLIENTS))
            logger.info("%d requests rejected: %s", count, code, extra=fields)
        self._rejected.clear()

    def _release_slow_reservation(self, now: float) -> bool:
        """Release the reservation of a request whose body comes slowly; return whether there was one."""
        for body in self._reserved:
            age = now - body.since
            if age > RESERVATION_GRACE_SECONDS and body.received < age * RESERVATION_BYTES_PER_SECOND:
                self.release(body)
                return True
        return False

    def _overloaded(self) -> Overloaded:
        self._metrics.rejected.inc()
        return Overloaded()
