"""The threads in which models compute, so that the event loop never waits for them."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from model_service.errors import ServingError, deadline_exceeded, forget_frames, unavailable

Result = TypeVar("Result")

# A client gives up at its deadline, which lies this much before ours at most: the time that its request travelled.
_EARLY_S = 0.1
# TensorFlow Serving's text where its queue, that of its batches, is full.
_FULL = "The batch scheduling queue to which this task was submitted is full"


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class _Pending:
    """A computation in the queue; `deadline` is on the clock of `time.monotonic`, None: there is none."""

    compute: Callable[[], Any]
    client: str
    is_long: bool
    deadline: float | None
    answer: asyncio.Future[Any]
    on_done: Callable[[], None]


class InferenceExecutor:
    """A fixed number of threads, and a queue of bounded length.

    What waits stands in the event loop and not before the threads: so a cancelled computation leaves nothing behind.
    Clients (connections) take turns: next is a computation of the client for which the fewest run. Where all threads
    run long computations, one more thread is there for short ones.
    """

    def __init__(self, count: int, max_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(count + 1, thread_name_prefix="inference")
        # With the one more in use: -1.
        self._free = count
        self._long = 0
        self._max_waiting = max_waiting
        self._queue: deque[_Pending] = deque()
        self._running_by_client: Counter[str] = Counter()
        self._callers = 0
        self._started: dict[object, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.rejected = 0
        self.expired = 0
        self.cancelled = 0

    async def submit(
        self,
        remaining: float | None,
        compute: Callable[[], Result],
        client: str = "",
        on_done: Callable[[], None] = _nothing,
        is_long: bool = False,
    ) -> Result:
        """Return what `compute` returns; cancelling the caller drops a computation that has not begun.

        `on_done` is called once, when no thread runs the computation any more nor will: that can be later than the end
        of the caller. Raises ServingError DEADLINE_EXCEEDED if `remaining` seconds (None: no limit) have passed before
        it begins, and at once UNAVAILABLE where the queue is full and no client has more in it than this one.
        """
        if self._free <= 0 and self.waiting >= self._max_waiting:
            self.rejected += 1
            if not self._evict_for(client):
                on_done()
                raise unavailable(_FULL)
        deadline = None if remaining is None else time.monotonic() + remaining
        pending = _Pending(compute, client, is_long, deadline, asyncio.get_running_loop().create_future(), on_done)
        self._callers += 1
        self._idle.clear()
        self._queue.append(pending)
        self._dispatch()
        try:
            answer: Result = await pending.answer
            return answer
        except asyncio.CancelledError:
            # gRPC cancels a call for either reason.
            if pending in self._queue:
                self._discard(pending)
            raise
        finally:
            self._callers -= 1
            if not self._callers:
                self._idle.set()

    def _evict_for(self, client: str) -> bool:
        """Reject the newest computation of the client that has most in the queue, if it has more than `client`."""
        waiting = Counter(pending.client for pending in self._queue)
        if not waiting:
            return False
        ((greediest, count),) = waiting.most_common(1)
        if count <= waiting[client] + 1:
            return False
        pending = next(pending for pending in reversed(self._queue) if pending.client == greediest)
        self._queue.remove(pending)
        pending.on_done()
        if not pending.answer.done():
            pending.answer.set_exception(unavailable(_FULL))
        return True

    def _discard(self, pending: _Pending) -> None:
        self._queue.remove(pending)
        pending.on_done()
        if _is_past(pending.deadline, _EARLY_S):
            self.expired += 1
        else:
            self.cancelled += 1

    def _dispatch(self) -> None:
        """Start what waits, as far as threads are free."""
        while self._queue:
            self._discard_expired()
            candidates = self._candidates()
            if not candidates:
                return
            # The first of these, where several clients have as few.
            pending = min(candidates, key=lambda pending: self._running_by_client[pending.client])
            self._queue.remove(pending)
            self._start(pending)

    def _discard_expired(self) -> None:
        for pending in [one for one in self._queue if one.answer.done() or _is_past(one.deadline)]:
            self._discard(pending)
            if not pending.answer.done():
                pending.answer.set_exception(deadline_exceeded("The deadline passed before the computation began"))

    def _candidates(self) -> Sequence[_Pending]:
        if self._free > 0:
            return self._queue
        return [pending for pending in self._queue if not pending.is_long] if self._long == self.computing else ()

    def _start(self, pending: _Pending) -> None:
        loop = asyncio.get_running_loop()
        token = object()

        def run() -> None:
            # One word to the loop at the end of all: each wakes it, and takes the interpreter from the other threads.
            try:
                result = pending.compute()
            except BaseException as exc:
                if isinstance(exc, ServingError):
                    forget_frames(exc)
                result = exc
            # A thread that outlasts the loop has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, result)

        def end(result: Any) -> None:
            # Now that the thread is free, not when the caller ended: it may have gone, and nothing can interrupt it.
            del self._started[token]
            self._free += 1
            self._long -= pending.is_long
            self._running_by_client[pending.client] -= 1
            if not self._running_by_client[pending.client]:
                del self._running_by_client[pending.client]
            pending.on_done()
            if not pending.answer.done():
                if isinstance(result, BaseException):
                    pending.answer.set_exception(result)
                else:
                    pending.answer.set_result(result)
            self._dispatch()

        self._free -= 1
        self._long += pending.is_long
        self._running_by_client[pending.client] += 1
        self._started[token] = time.monotonic()
        self._threads.submit(run)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a thread."""
        return len(self._queue)

    @property
    def computing(self) -> int:
        """How many calls compute, be it for callers that have gone: nothing can interrupt them."""
        return len(self._started)

    def longest(self) -> float:
        """Return for how many seconds the oldest of the calls that compute has done so; 0 where none does."""
        return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    async def wait_until_idle(self) -> None:
        """Return when no caller waits for a call any more."""
        await self._idle.wait()

    def close(self) -> None:
        """Let the threads end; calls that have not begun are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_past(deadline: float | None, early_s: float = 0.0) -> bool:
    return deadline is not None and time.monotonic() + early_s >= deadline
