"""Limits the memory of all messages together, from when they are read until they are computed.

Only the thread of the event loop may use this module.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from model_service.errors import ServingError, resource_exhausted

# How long a message waits for memory before it is rejected.
WAIT_S = 2.0
# A message that has been read for longer than this is stopped if another one waits for its memory.
SLOW_S = 0.2
# How often a waiting message looks for such a slow one.
_CHECK_S = 0.05
# How many messages may wait. The bytes of them that gRPC has already received are not counted as memory.
MAX_WAITING = 64

FULL = "The messages use all the memory that they may use (--max_total_message_bytes): try again later"
_SLOW = "The message arrived too slowly while others waited for its memory: try again"


@dataclass(eq=False)
class Reservation:
    """The memory of one message of `client` (a connection): `size` bytes, or a place for a message of unknown size.

    `since` is when the reading began, on the monotonic clock. `stop` cancels the reading.
    """

    memory: "MessageMemory"
    client: str
    size: int = 0
    since: float = field(default_factory=time.monotonic)
    stop: Callable[[], object] | None = None
    is_stopped: bool = False

    async def grow(self, size: int) -> None:
        """Change the reservation to `size` bytes and release its place. It waits for memory; see MessageMemory."""
        await self.memory.wait_for_room(self, size)

    @property
    def is_small(self) -> bool:
        """Whether it may use the memory and the thread that are kept for small messages."""
        return self.size <= self.memory.small

    def is_read(self) -> None:
        """Record that the whole message has been read: its client can no longer delay it."""
        self.stop = None
        self.memory.bodies.pop(self, None)

    def release(self) -> None:
        """Release everything. Further calls change nothing."""
        self.is_read()
        self.memory.free(self)


class MessageMemory:
    """At most `limit` bytes for all messages. A message has at most `largest` bytes on the wire, and four times that
    in memory.

    One part of `limit` is for messages of unknown size; each of them has a place of `largest` bytes. Another part is
    only for small messages. If several messages wait, the next is one of the client with the fewest places, then with
    the fewest waiting messages, then the newest one. So a client that stalls gains nothing from many calls. A message
    that has to wait for more than `WAIT_S` raises ServingError RESOURCE_EXHAUSTED. One that could never be stored
    raises it at once.
    """

    def __init__(self, limit: int, largest: int) -> None:
        self.most = 4 * largest
        self.small = largest // 4
        self._for_big = self.most + self.small
        self._for_all = self._for_big + self.small
        self._places = (limit - self._for_all) // largest
        self._readers: dict[Reservation, None] = {}
        self.bodies: dict[Reservation, None] = {}
        self._used = self._peak = 0
        self._waiting: dict[Reservation, tuple[Callable[[], bool], asyncio.Future[None]]] = {}

    async def start_reading(self, client: str) -> Reservation:
        """Return a reservation with a place, for a message of unknown size. It waits for a free place."""
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
        """Return an empty reservation for a message that arrives in parts; it grows with them."""
        reservation = Reservation(self, client)
        self.bodies[reservation] = None
        return reservation

    async def wait_for_room(self, reservation: Reservation, size: int) -> None:
        """See Reservation.grow."""
        if size > self.most:
            raise resource_exhausted(
                f"The message would take {size} bytes of memory, and one message may take {self.most} "
                "(--max_message_bytes): send less at a time, and numbers as tensor_content"
            )
        limit = self._for_all if size <= self.small else self._for_big

        def take_room() -> bool:
            if self._used - reservation.size + size > limit:
                return False
            self._set(reservation, size)
            self._readers.pop(reservation, None)
            return True

        before = reservation.size, len(self._readers)
        await self._wait(reservation, take_room, self.bodies)
        if size < before[0] or len(self._readers) < before[1]:
            self._serve()

    def free(self, reservation: Reservation) -> None:
        """Release the bytes and the place of a reservation."""
        self._set(reservation, 0)
        self._readers.pop(reservation, None)
        self._serve()

    def _set(self, reservation: Reservation, size: int) -> None:
        self._used += size - reservation.size
        self._peak = max(self._peak, self._used)
        reservation.size = size

    def note(self, size: int) -> None:
        """Record that a message of this size arrived, accepted or not; see `peak`."""
        self._peak = max(self._peak, size)

    def peak(self) -> int:
        """Return the most bytes that messages have used at a time since the last call of `peak`."""
        peak, self._peak = self._peak, self._used
        return peak

    async def _wait(self, reservation: Reservation, take: Callable[[], bool], holders: dict[Reservation, None]) -> None:
        """Wait until `take` succeeds. Meanwhile slow messages among `holders` are stopped to free their memory."""
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
                await asyncio.wait([done], timeout=_CHECK_S)
            done.result()
        finally:
            self._waiting.pop(reservation, None)

    def _refuse_one(self) -> None:
        """Reject the longest-waiting message of the client with the most waiting messages."""
        ((greediest, _),) = Counter(waiting.client for waiting in self._waiting).most_common(1)
        oldest = min((one for one in self._waiting if one.client == greediest), key=lambda one: one.since)
        _, done = self._waiting.pop(oldest)
        done.set_exception(resource_exhausted(FULL))

    def _serve(self) -> None:
        """Give the free memory to waiting messages."""
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
    """Return the error of a message that was stopped because it was slow."""
    return resource_exhausted(_SLOW)


def _stop_slowest(holders: dict[Reservation, None], own: Reservation) -> None:
    slow_since = time.monotonic() - SLOW_S
    for reservation in holders:
        if reservation.since < slow_since and not reservation.is_stopped and reservation is not own:
            reservation.is_stopped = True
            if reservation.stop:
                reservation.stop()
            return
