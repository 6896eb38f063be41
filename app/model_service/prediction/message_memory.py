"""How much memory messages may take together, from the moment that they are read until they are computed.

Everything here belongs to the event loop's thread.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from model_service.errors import ServingError, resource_exhausted

# How long a message waits for room before it is refused.
WAIT_S = 2.0
# A message that has taken longer than this to come makes room where others wait.
SLOW_S = 0.2
# How often those that wait look for a slow one.
_LOOK_S = 0.05
# How many may wait to be read; what has come of them already is not counted.
MAX_WAITING = 64

FULL = "The messages at work take all memory that there is for them (--max_total_message_bytes): try again later"
_SLOW = "The message came slowly, and others wait for its room: try again"


@dataclass(eq=False)
class Reservation:
    """What one message of a client (a connection) may take: `size` bytes, and before that perhaps a place to be read.

    `stop` ends the reading.
    """

    memory: "MessageMemory"
    client: str
    size: int = 0
    since: float = field(default_factory=time.monotonic)
    stop: Callable[[], object] | None = None
    is_stopped: bool = False

    async def grow(self, size: int) -> None:
        """Take `size` bytes in all, waiting for room; see MessageMemory. A place to be read is given up."""
        await self.memory.wait_for_room(self, size)

    @property
    def is_small(self) -> bool:
        """Whether it is of those that some memory is kept for, and a thread: they don't take long."""
        return self.size <= self.memory.small

    def is_read(self) -> None:
        """Say that the message is there: its client can no longer hold it up."""
        self.stop = None
        self.memory.bodies.pop(self, None)

    def release(self) -> None:
        """Give everything back; more than once does no harm."""
        self.is_read()
        self.memory.free(self)


class MessageMemory:
    """`limit` bytes for all messages, none of which is `largest` as it comes, nor takes more than four times that.

    Some of it is for messages whose size shows only when they are there, which have a place each; some only for small
    ones. Whoever waits goes before those whose clients have more places or more that waits, and then before those that
    came earlier: so who stalls gains nothing by many calls. What finds no room within `WAIT_S` seconds raises
    ServingError RESOURCE_EXHAUSTED; what would never find any does so at once.
    """

    def __init__(self, limit: int, largest: int) -> None:
        self.most = 4 * largest
        self.small = largest // 4
        self._for_big = self.most + self.small
        self._for_all = self._for_big + self.small
        self._places = (limit - self._for_all) // largest
        self._readers: dict[Reservation, None] = {}
        self.bodies: dict[Reservation, None] = {}
        self._taken = self._peak = 0
        self._waiting: dict[Reservation, tuple[Callable[[], bool], asyncio.Future[None]]] = {}

    async def start_reading(self, client: str) -> Reservation:
        """Return a reservation with a place, for a message of unknown size."""
        reservation = Reservation(self, client)

        def take_place() -> bool:
            if len(self._readers) >= self._places:
                return False
            reservation.since = time.monotonic()
            self._readers[reservation] = None
            return True

        try:
            await self._wait(reservation, take_place, self._readers)
        except BaseException:
            reservation.release()
            raise
        return reservation

    def start_body(self, client: str) -> Reservation:
        """Return a reservation for a message that comes in parts, for which it grows."""
        reservation = Reservation(self, client)
        self.bodies[reservation] = None
        return reservation

    async def wait_for_room(self, reservation: Reservation, size: int) -> None:
        """See Reservation.grow."""
        if size > self.most:
            raise resource_exhausted(
                f"The message would take {size} bytes of memory, more than the {self.most} that one may take "
                "(--max_message_bytes): send less at a time, and numbers as tensor_content"
            )
        limit = self._for_all if size <= self.small else self._for_big

        def take_room() -> bool:
            if self._taken - reservation.size + size > limit:
                return False
            self._set(reservation, size)
            self._readers.pop(reservation, None)
            return True

        before = reservation.size, len(self._readers)
        await self._wait(reservation, take_room, self.bodies)
        if size < before[0] or len(self._readers) < before[1]:
            self._serve()

    def free(self, reservation: Reservation) -> None:
        """Take back all that a reservation has."""
        self._set(reservation, 0)
        self._readers.pop(reservation, None)
        self._serve()

    def _set(self, reservation: Reservation, size: int) -> None:
        self._taken += size - reservation.size
        self._peak = max(self._peak, self._taken)
        reservation.size = size

    def note(self, size: int) -> None:
        """Take down that a message of this size came, whether it is refused or not; see `peak`."""
        self._peak = max(self._peak, size)

    def peak(self) -> int:
        """Return the most bytes that messages took at a time, once read, since it was last asked for."""
        peak, self._peak = self._peak, self._taken
        return peak

    async def _wait(self, reservation: Reservation, take: Callable[[], bool], holders: dict[Reservation, None]) -> None:
        """Wait until `take` succeeds; the slowest of `holders` makes room."""
        if take():
            return
        latest = time.monotonic() + WAIT_S
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reservation] = (take, done)
        if len(self._waiting) > MAX_WAITING:
            self._refuse_one()
        try:
            while not done.done():
                if reservation.is_stopped or time.monotonic() > latest:
                    raise resource_exhausted(FULL)
                _stop_slowest(holders, reservation)
                await asyncio.wait([done], timeout=_LOOK_S)
            done.result()
        finally:
            self._waiting.pop(reservation, None)

    def _refuse_one(self) -> None:
        """Refuse the one that has waited for the longest of the client that waits most often."""
        ((greediest, _),) = Counter(waiting.client for waiting in self._waiting).most_common(1)
        oldest = min((one for one in self._waiting if one.client == greediest), key=lambda one: one.since)
        _, done = self._waiting.pop(oldest)
        done.set_exception(resource_exhausted(FULL))

    def _serve(self) -> None:
        """Give those that wait what has become free."""
        while self._waiting and self._serve_one():
            pass

    def _serve_one(self) -> bool:
        places = Counter(reader.client for reader in self._readers)
        calls = Counter(waiting.client for waiting in self._waiting)
        for reservation in sorted(self._waiting, key=lambda one: (places[one.client], calls[one.client], -one.since)):
            take, done = self._waiting[reservation]
            if take():
                del self._waiting[reservation]
                done.set_result(None)
                return True
        return False


def slow() -> ServingError:
    """Return the error of a message that was stopped."""
    return resource_exhausted(_SLOW)


def _stop_slowest(holders: dict[Reservation, None], own: Reservation) -> None:
    slow_since = time.monotonic() - SLOW_S
    for reservation in holders:
        if reservation.since < slow_since and not reservation.is_stopped and reservation is not own:
            reservation.is_stopped = True
            if reservation.stop:
                reservation.stop()
            return
