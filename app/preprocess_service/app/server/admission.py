"""Who is let in: places for photos at work, room for bodies that come in, and what it may cost to refuse the rest."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from preprocess_service.app.config import Limits
from preprocess_service.app.errors import Overloaded
from preprocess_service.app.observability.metrics import Metrics
from preprocess_service.app.server.incoming_bodies import IncomingBodies, IncomingBody

# The routes whose requests need a place.
PATHS = ("/predict", "/cat-dog_classification", "/predict/batch")
# Bodies may come in slowly, and hold no place meanwhile. Bounded too, so that slow ones never take all connections.
BODIES_PER_PLACE = 8
# How long a request that was let in counts as if it had its place already. Its body is usually here at once; without
# this, all heads that come in between would be let in for the same place.
COMING_SECONDS = 0.2
# One whose body comes more slowly than this, after a first moment, gives its place to the next one. It is not refused:
# whether there is a place is decided when all of it is there.
COMING_BYTES_PER_SECOND = 1e6
COMING_GRACE_SECONDS = 0.002
# Refusals a second that are given at once. At ten times the load that can be carried there are 35 for each place; each
# takes 50 microseconds of one core, which the photos can spare.
REFUSALS_PER_PLACE = 40
# How much of a second's worth of them may come in one go.
BURST_SECONDS = 0.5
# Of the addresses that requests were refused to in a second, how many are named in the log.
NAMED_CLIENTS = 5

logger = logging.getLogger("request")


class Gate:
    """Counts what is at work. A request has a place from when its body is there to when its answer is; there is no
    queue behind the places: whoever waits in a queue that is too long waits for nothing."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self.places = limits.photos_in_flight
        self.taken = 0
        self.bodies = IncomingBodies(limits, BODIES_PER_PLACE * self.places, self._overloaded)
        # In the order in which they came. A set has none.
        self._reserved: dict[IncomingBody, None] = {}
        self._metrics = metrics
        self._refused: dict[tuple[int, str], Counter[str]] = {}
        self._pace = 0.0
        metrics.places.set(self.places)
        metrics.places_taken.set_function(lambda: self.taken)
        metrics.buffered_bytes.set_function(lambda: self.bodies.buffered)

    def reserve(self) -> IncomingBody | None:
        """Reserve a place for a request whose head is there, and whose body is not.

        Returns:
            Its body, to be handed to ``body``, or to ``release`` if it comes to nothing; None where there is no place.
        """
        now = time.monotonic()
        while self._reserved and (first := next(iter(self._reserved))).since < now - COMING_SECONDS:
            del self._reserved[first]
        if self.taken + len(self._reserved) >= self.places and not self._take_from_a_slow_one(now):
            return None
        body = IncomingBody(self.bodies)
        self._reserved[body] = None
        return body

    def release(self, body: IncomingBody) -> None:
        """Reserve no place any longer for a request: it takes it now, or has come to nothing."""
        self._reserved.pop(body, None)

    @contextmanager
    def enter(self, photos: int = 1) -> Iterator[None]:
        """Hold a place for each photo that one request has under way. One free place lets in a whole batch, since it
        can't wait for many at once among senders of single photos; it takes a quarter of all places at most.

        Raises:
            Overloaded: all are taken.
        """
        if self.taken >= self.places:
            raise self._overloaded()
        # The rest of a batch waits for its own photos, not among those of others (``Pipeline.classify``).
        taken = min(photos, self._limits.photos_per_request)
        self.taken += taken
        try:
            yield
        finally:
            self.taken -= taken

    @contextmanager
    def body(self, body: IncomingBody | None) -> Iterator[IncomingBody]:
        """Room for the body of one request, part by part as it comes in, until this block ends.

        Args:
            body: what ``reserve`` gave; None for a request that was not asked about at its head. It is now.

        Raises:
            Overloaded: there is no place, or no room for its bytes.
        """
        body = body or self.reserve()
        if body is None:
            raise self._overloaded()
        try:
            yield body
        finally:
            self.bodies.forget(body)

    @contextmanager
    def reading(self, body: IncomingBody) -> Iterator[None]:
        """Read a body during this block; the request's place is reserved no longer than that.

        Raises:
            RequestTimeout: it came too slowly.
        """
        try:
            with self.bodies.read(body):
                yield
        finally:
            self.release(body)

    def refuse(self) -> float:
        """Count a request that was refused at its head.

        Returns:
            Seconds for which its sender need not be listened to: 0 while there are few of them; else as many as it
            takes to bring those who ask again without a pause down to what refusing may cost.
        """
        now = time.monotonic()
        self._metrics.shed.inc()
        self._pace = max(now - BURST_SECONDS, self._pace) + 1 / (REFUSALS_PER_PLACE * self.places)
        return max(0.0, self._pace - now)

    def note_refusal(self, status: int, code: str, client: str | None) -> None:
        """Remember for the log that a request was refused before the app saw it."""
        self._refused.setdefault((status, code), Counter())[client or ""] += 1

    def report(self) -> None:
        """Write one line for all that were refused for the same reason since the last one."""
        for (status, code), clients in self._refused.items():
            count = clients.total()
            fields = {"status": status, "code": code, "requests": count}
            if "" not in clients:
                fields["clients"] = dict(clients.most_common(NAMED_CLIENTS))
            logger.info("%d requests refused: %s", count, code, extra=fields)
        self._refused.clear()

    def _take_from_a_slow_one(self, now: float) -> bool:
        """Release the place that is reserved for a request whose body comes slowly; whether there was any."""
        for body in self._reserved:
            age = now - body.since
            if age > COMING_GRACE_SECONDS and body.received < age * COMING_BYTES_PER_SECOND:
                self.release(body)
                return True
        return False

    def _overloaded(self) -> Overloaded:
        self._metrics.shed.inc()
        return Overloaded()
