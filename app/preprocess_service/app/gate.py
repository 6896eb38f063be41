"""Who is let in: places for photos at work, room for bodies that come in, and what it may cost to refuse the rest."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from config import Limits
from errors import Overloaded
from metrics import Metrics
from processors import usable_cores

# Told of every part of a body that comes in; raises Overloaded where there is no room for it.
Hold = Callable[[int], None]

# The routes whose requests need a place.
PATHS = ("/predict", "/cat-dog_classification", "/predict/batch")
# Enough that no core ever waits for work, few enough that the last in line is still answered within a fraction of a
# second: at 50 photos a second and core, 16 of them are 0.3 s.
PLACES_PER_CORE = 16
# Bodies may come in slowly, and hold no place meanwhile. Bounded too, so that slow ones never take all connections.
BODIES_PER_PLACE = 8
# How long a request that was let in counts as if it had its place already. Its body is usually here at once; without
# this, all heads that come in between would be let in for the same place.
COMING_SECONDS = 0.2
# So many batches leave no place to others.
BATCHES_AT_A_TIME = 4
# Refusals a second that are given at once. At ten times the load that can be carried there are 35 for each place; each
# takes 50 microseconds of one core, which the photos can spare.
REFUSALS_PER_PLACE = 40
# How much of a second's worth of them may come in one go.
BURST_SECONDS = 0.5

logger = logging.getLogger("request")


def places_for(limits: Limits) -> int:
    """How many photos may be at work at the same time."""
    return limits.in_flight or PLACES_PER_CORE * usable_cores()


def batch_share(limits: Limits) -> int:
    """How many of these may be of one request."""
    return max(1, places_for(limits) // BATCHES_AT_A_TIME)


class Gate:
    """Counts what is at work. A request has a place from when its body is there to when its answer is; there is no
    queue behind the places: whoever waits in a queue that is too long waits for nothing."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self.places = places_for(limits)
        self.taken = 0
        self.buffered = 0
        self._coming: OrderedDict[int, float] = OrderedDict()
        self._last_ticket = 0
        self._bodies = 0
        self._room = limits.buffered_bytes
        self._metrics = metrics
        self._refused = 0
        self._pace = 0.0
        metrics.places.set(self.places)
        metrics.places_taken.set_function(lambda: self.taken)
        metrics.buffered_bytes.set_function(lambda: self.buffered)

    def let_in(self) -> int | None:
        """Let in a request whose head is there, and whose body is not.

        Returns:
            Its ticket, to be handed in with ``came``; None where there is no place for it.
        """
        now = time.monotonic()
        while self._coming and next(iter(self._coming.values())) < now - COMING_SECONDS:
            self._coming.popitem(last=False)
        if self.taken + len(self._coming) >= self.places or self._bodies >= BODIES_PER_PLACE * self.places:
            return None
        self._last_ticket += 1
        self._coming[self._last_ticket] = now
        return self._last_ticket

    def came(self, ticket: int | None) -> None:
        """Keep no place any longer for a request that was let in: it takes it now, or has come to nothing."""
        self._coming.pop(ticket or 0, None)

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
        taken = min(photos, batch_share(self._limits))
        self.taken += taken
        try:
            yield
        finally:
            self.taken -= taken

    @contextmanager
    def body(self) -> Iterator[Hold]:
        """Room for one body, part by part as it comes in, until this block ends.

        Raises:
            Overloaded: the bodies of all requests together would take more than ``limits.buffered_bytes``.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self.buffered + size > self._room:
                raise self._overloaded()
            self.buffered += size
            held += size

        try:
            yield hold
        finally:
            self.buffered -= held

    @contextmanager
    def reading(self, ticket: int | None) -> Iterator[None]:
        """Count one body that comes in during this block; the request's place is kept no longer than that."""
        self._bodies += 1
        try:
            yield
        finally:
            self._bodies -= 1
            self.came(ticket)

    def refuse(self) -> float:
        """Count a request that was refused at its head.

        Returns:
            Seconds for which its sender need not be listened to: 0 while there are few of them; else as many as it
            takes to bring those who ask again without a pause down to what refusing may cost.
        """
        now = time.monotonic()
        self._metrics.shed.inc()
        self._refused += 1
        self._pace = max(now - BURST_SECONDS, self._pace) + 1 / (REFUSALS_PER_PLACE * self.places)
        return max(0.0, self._pace - now)

    def report(self) -> None:
        """Write one line for all that were refused at their heads since the last one."""
        if self._refused:
            fields = {"status": 503, "code": "overloaded", "requests": self._refused}
            logger.info("%d requests refused at their heads", self._refused, extra={"fields": fields})
            self._refused = 0

    def _overloaded(self) -> Overloaded:
        self._metrics.shed.inc()
        return Overloaded()
