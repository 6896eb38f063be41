"""The threads in which models compute, so that the event loop is never blocked."""

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

# A client's deadline is earlier than ours, by at most the time that its request travelled: 0.1 s.
_EARLY_S = 0.1
# TensorFlow Serving's text when its batching queue is full.
_FULL = "The batch scheduling queue to which this task was submitted is full"


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class _Pending:
    """A call in the queue. `deadline` is on the clock of `time.monotonic`; None means no deadline."""

    compute: Callable[[], Any]
    client: str
    is_long: bool
    deadline: float | None
    answer: asyncio.Future[Any]
    on_done: Callable[[], None]


class InferenceExecutor:
    """A fixed number of threads, and a queue with a limited length.

    The queue is in the event loop and not in the thread pool, so a cancelled call leaves nothing behind. Clients
    (connections) take turns: the next call is one of the client with the fewest running calls. If all threads run long
    calls, one additional thread runs short ones.
    """

    def __init__(self, count: int, max_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(count + 1, thread_name_prefix="inference")
        # It is -1 while the additional thread runs.
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
        """Return the result of `compute`. If the caller is cancelled before `compute` begins, it is never called.

        `client` is the connection. `is_long` excludes the call from the additional thread. `on_done` is called once,
        when no thread runs `compute` or will run it; that may be after the caller has ended. Raises ServingError
        DEADLINE_EXCEEDED if `compute` has not begun within `remaining` seconds (None: no limit). Raises UNAVAILABLE at
        once if the queue is full, unless another client has more calls in it: then that client's newest call is
        rejected.
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
            # gRPC cancels a call in both cases: the client disconnected, or its deadline has passed.
            if pending in self._queue:
                self._discard(pending)
            raise
        finally:
            self._callers -= 1
            if not self._callers:
                self._idle.set()

    def _evict_for(self, client: str) -> bool:
        """Reject the newest waiting call of the client with the most waiting calls, if it has more than `client`."""
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
        """Start waiting calls while threads are free."""
        while self._queue:
            self._discard_expired()
            candidates = self._candidates()
            if not candidates:
                return
            # If several clients have the same number of running calls, their first call in the queue is next.
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
            # One callback for the result and the end: each wakes the event loop and takes the GIL from other threads.
            try:
                result = pending.compute()
            except BaseException as exc:
                if isinstance(exc, ServingError):
                    forget_frames(exc)
                result = exc
            # If the event loop has been closed, nobody waits for the result.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, result)

        def end(result: Any) -> None:
            # Here and not when the caller ends: nothing can interrupt the thread, so it may run longer than the caller
            # waits.
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
        """How many calls wait for a thread."""
        return len(self._queue)

    @property
    def computing(self) -> int:
        """How many calls are computed, also for clients that have disconnected: nothing can interrupt them."""
        return len(self._started)

    def longest(self) -> float:
        """Return for how many seconds the longest-running call has been computed; 0 if there is none."""
        return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    async def wait_until_idle(self) -> None:
        """Return when no caller waits for a result."""
        await self._idle.wait()

    def close(self) -> None:
        """Let the threads end after their running calls. Calls that have not begun are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_past(deadline: float | None, early_s: float = 0.0) -> bool:
    return deadline is not None and time.monotonic() + early_s >= deadline
