"""The threads in which models compute, so that the event loop never waits for them."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from model_service.errors import ServingError, deadline_exceeded, forget_frames, invalid_argument, unavailable

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

# A client gives up at its deadline, which lies this much before ours at most: the time that its request travelled.
_EARLY_S = 0.1
# TensorFlow Serving's text where its queue, that of its batches, is full.
_FULL = "The batch scheduling queue to which this task was submitted is full"


def _nothing() -> None:
    """Do nothing."""


class Task(Protocol[Result_co]):
    """What a thread computes: on its own, or with others of the same key. Of `rows` a batch has only so many."""

    @property
    def key(self) -> Hashable:
        """Tasks with the same one may be computed together; None: with no other."""

    @property
    def rows(self) -> int:
        """How much of a batch it takes up."""

    def compute(self, tasks: Sequence[Self]) -> Sequence[Result_co | BaseException]:
        """Return what comes of each of `tasks`, of which this is the first."""


@dataclass(frozen=True)
class Batches:
    """How tasks of the same key are put together: up to `max_rows` of those that wait, at 1 none.

    A task of more rows is computed alone, and one of more than `max_task_rows` not at all (None: no limit). The first
    of a batch waits for the others for `wait_s` seconds, even where a thread is free.
    """

    max_rows: int = 1
    max_task_rows: int | None = None
    wait_s: float = 0.0


ONE_BY_ONE = Batches()


@dataclass(frozen=True)
class Alone(Generic[Result]):
    """A call as a task that is computed with no other."""

    call: Callable[[], Result]
    key: None = None
    rows: int = 1

    def compute(self, tasks: Sequence[Self]) -> list[Result | BaseException]:
        return [self.call()]


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A task in the queue; the times are those of `time.monotonic`, None: it has no deadline."""

    task: Task[Any]
    client: str
    is_long: bool
    arrived: float
    latest: float | None
    answer: asyncio.Future[Any]
    at_end: Callable[[], None]


class Workers:
    """A fixed number of threads, and a queue that is as short as it is meant to be.

    What waits stands in the event loop and not before the threads: so one that is given up leaves nothing behind.
    Clients (connections) take turns: next is a task of the one for which the fewest are computed. Where all threads
    compute what takes long, one more is there for what doesn't.
    """

    def __init__(self, count: int, max_waiting: int, batches: Batches = ONE_BY_ONE) -> None:
        self._threads = ThreadPoolExecutor(count + 1, thread_name_prefix="worker")
        # With the one more in use: -1.
        self._free = count
        self._long = 0
        self._max_waiting = max_waiting
        self._batches = batches
        self._queue: deque[_Waiting] = deque()
        self._computing_for: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._callers = 0
        self._began: dict[object, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.shed = 0
        self.expired = 0
        self.abandoned = 0

    async def submit(
        self,
        remaining: float | None,
        task: Task[Result],
        client: str = "",
        at_end: Callable[[], None] = _nothing,
        is_long: bool = False,
    ) -> Result:
        """Return what comes of `task`; cancelling the caller drops one that has not begun.

        `at_end` is called once, when no thread computes the task any more nor will: that can be later than the end of
        the caller. Raises ServingError DEADLINE_EXCEEDED if `remaining` seconds (None: no limit) have passed before it
        begins, and at once UNAVAILABLE where as many wait already as may, INVALID_ARGUMENT where it is too large for a
        batch. Of those that wait, one makes room for a client for which fewer wait.
        """
        most = self._batches.max_task_rows
        try:
            if most is not None and task.key is not None and task.rows > most:
                raise invalid_argument(f"Task size {task.rows} is larger than maximum input batch size {most}")
            if self._free <= 0 and self.waiting >= self._max_waiting:
                self.shed += 1
                if not self._make_room_for(client):
                    raise unavailable(_FULL)
        except ServingError:
            at_end()
            raise
        now = time.monotonic()
        latest = None if remaining is None else now + remaining
        place = _Waiting(task, client, is_long, now, latest, asyncio.get_running_loop().create_future(), at_end)
        self._callers += 1
        self._idle.clear()
        self._queue.append(place)
        self._begin_what_can()
        try:
            answer: Result = await place.answer
            return answer
        except asyncio.CancelledError:
            # gRPC cancels a call for either reason.
            if place in self._queue:
                self._drop(place)
                self._count_dropped(latest)
            raise
        finally:
            self._callers -= 1
            if not self._callers:
                self._idle.set()

    def _make_room_for(self, client: str) -> bool:
        """Refuse the newest task of the client for which most wait, if they are more than those of `client`."""
        waiting = Counter(place.client for place in self._queue)
        if not waiting:
            return False
        ((greediest, count),) = waiting.most_common(1)
        if count <= waiting[client] + 1:
            return False
        place = next(place for place in reversed(self._queue) if place.client == greediest)
        self._drop(place)
        if not place.answer.done():
            place.answer.set_exception(unavailable(_FULL))
        return True

    def _drop(self, place: _Waiting) -> None:
        self._queue.remove(place)
        place.at_end()

    def _count_dropped(self, latest: float | None) -> None:
        if _is_past(latest, _EARLY_S):
            self.expired += 1
        else:
            self.abandoned += 1

    def _begin_what_can(self) -> None:
        while self._queue:
            self._drop_lost()
            together = self._first_batch(self._that_may_begin())
            if not together:
                return
            for place in together:
                self._queue.remove(place)
            self._begin(together)

    def _drop_lost(self) -> None:
        for place in [place for place in self._queue if place.answer.done() or _is_past(place.latest)]:
            self._drop(place)
            self._count_dropped(place.latest)
            if not place.answer.done():
                place.answer.set_exception(deadline_exceeded("The deadline passed before the computation began"))

    def _that_may_begin(self) -> Sequence[_Waiting]:
        if self._free > 0:
            return self._queue
        return [place for place in self._queue if not place.is_long] if self._long == self.computing else ()

    def _first_batch(self, waiting: Sequence[_Waiting]) -> list[_Waiting]:
        """Return the first that waits and those that go with it; none where it is to wait for others still."""
        if not waiting:
            return []
        # The first of these, where several clients have as few.
        first = min(waiting, key=lambda place: self._computing_for[place.client])
        together, rows = [first], first.task.rows
        if first.task.key is None or rows >= self._batches.max_rows:
            return together
        for place in waiting:
            if (
                place is not first
                and place.task.key == first.task.key
                and rows + place.task.rows <= self._batches.max_rows
            ):
                together.append(place)
                rows += place.task.rows
        waits_s = first.arrived + self._batches.wait_s - time.monotonic()
        if rows < self._batches.max_rows and waits_s > 0:
            if self._timer:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(waits_s, self._begin_what_can)
            return []
        return together

    def _begin(self, places: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        token = object()
        tasks = [place.task for place in places]
        is_long = any(place.is_long for place in places)

        def compute() -> None:
            # One word to the loop at the end of all: each wakes it, and takes the interpreter from the other threads.
            try:
                results = tasks[0].compute(tasks)
            except BaseException as exc:
                results = [exc] * len(tasks)
            for result in results:
                if isinstance(result, ServingError):
                    forget_frames(result)
            # A thread that outlasts the loop has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, results)

        def end(results: Sequence[Any]) -> None:
            # Now that the thread is free, not when the caller ended: it may have gone, and nothing can interrupt it.
            del self._began[token]
            self._free += 1
            self._long -= is_long
            for place, result in zip(places, results, strict=True):
                self._computing_for[place.client] -= 1
                if not self._computing_for[place.client]:
                    del self._computing_for[place.client]
                place.at_end()
                if place.answer.done():
                    continue
                if isinstance(result, BaseException):
                    place.answer.set_exception(result)
                else:
                    place.answer.set_result(result)
            self._begin_what_can()

        self._free -= 1
        self._long += is_long
        self._computing_for.update(place.client for place in places)
        self._began[token] = time.monotonic()
        self._threads.submit(compute)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a thread."""
        return len(self._queue)

    @property
    def computing(self) -> int:
        """How many calls compute, be it for callers that have gone: nothing can interrupt them."""
        return len(self._began)

    def longest(self) -> float:
        """Return for how many seconds the oldest of the calls that compute has done so; 0 where none does."""
        return max((time.monotonic() - began for began in self._began.values()), default=0.0)

    async def wait_until_idle(self) -> None:
        """Return when no caller waits for a call any more."""
        await self._idle.wait()

    def close(self) -> None:
        """Let the threads end; calls that have not begun are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_past(latest: float | None, early_s: float = 0.0) -> bool:
    return latest is not None and time.monotonic() + early_s >= latest
