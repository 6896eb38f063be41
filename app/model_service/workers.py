"""The threads in which models compute, so that the event loop never waits for them."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from cores import usable_cores
from failures import deadline_exceeded, unavailable

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# A client gives up at its deadline, which lies this much before ours at most: the time that its request travelled.
_EARLY_S = 0.1


# What the preprocess service on a machine of the same size has at work at once: so one alone is never refused.
_QUEUED_PER_CORE = 16


def queue_length(asked: int) -> int:
    """Return how many calls may wait where `asked` are asked for; 0 means 16 for each core."""
    return asked or _QUEUED_PER_CORE * usable_cores()


# Calls side by side, each with one thread, waste nothing on waiting for each other's parts; but each has buffers of its
# own, so on many cores a call gets several threads instead.
_MOST_STREAMS = 8


@dataclass(frozen=True)
class Threads:
    """How much of the machine to use: `compute` threads in all, shared by `streams` calls at a time.

    With `all_for_one`, a call that is the only one gets all of them.
    """

    compute: int
    streams: int
    all_for_one: bool = False

    @classmethod
    def sharing(cls, compute: int = 0, streams: int = 0) -> "Threads":
        """Fill in what is 0: a thread for each core, and as many calls as there are threads, up to 8."""
        compute = compute or usable_cores()
        chosen = streams or min(compute, _MOST_STREAMS)
        return cls(compute, chosen, all_for_one=not streams and chosen > 1)

    @property
    def callers(self) -> int:
        """How many calls to accept at once: one more than compute, so the next one is ready when one ends."""
        return self.streams + 1


class Workers:
    """A fixed number of threads, and a queue that is as short as it is meant to be.

    What waits stands in the event loop and not before the threads: so one that is given up leaves nothing behind.
    """

    def __init__(self, count: int, max_waiting: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._free = asyncio.Semaphore(count)
        self._max_waiting = max_waiting
        self._callers = 0
        self._began: dict[object, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.waiting = 0
        self.shed = 0
        self.expired = 0
        self.abandoned = 0

    async def run(
        self,
        remaining: float | None,
        call: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Return what `call` returns; cancelling the caller drops a call that has not begun.

        Raises ServingError DEADLINE_EXCEEDED if `remaining` seconds (None: no limit) have passed before it begins,
        and UNAVAILABLE at once where as many calls wait already as may.
        """
        latest = None if remaining is None else time.monotonic() + remaining
        self._callers += 1
        self._idle.clear()
        try:
            await self._wait_for_thread(latest)
            return await self._begin(partial(call, *args, **kwargs))
        finally:
            self._callers -= 1
            if not self._callers:
                self._idle.set()

    async def _wait_for_thread(self, latest: float | None) -> None:
        if self._free.locked() and self.waiting >= self._max_waiting:
            self.shed += 1
            # TensorFlow Serving's text where its queue, that of its batches, is full.
            raise unavailable("The batch scheduling queue to which this task was submitted is full")
        self.waiting += 1
        try:
            await self._free.acquire()
        except asyncio.CancelledError:
            # gRPC cancels a call for either reason.
            self._count_dropped(latest)
            raise
        finally:
            self.waiting -= 1
        if _is_past(latest):
            self._free.release()
            self._count_dropped(latest)
            raise deadline_exceeded("The deadline passed before the computation began")

    def _count_dropped(self, latest: float | None) -> None:
        if _is_past(latest, _EARLY_S):
            self.expired += 1
        else:
            self.abandoned += 1

    def _begin(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        token = object()

        def compute() -> None:
            # One word to the loop at the end of all: each wakes it, and takes the interpreter from the other threads.
            try:
                tell_loop(partial(answer.set_result, call()))
            except BaseException as exc:
                tell_loop(partial(answer.set_exception, exc))

        def tell_loop(tell: Callable[[], None]) -> None:
            # A thread that outlasts the loop has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end, tell)

        def end(tell: Callable[[], None]) -> None:
            # Now that the thread is free, not when the caller ended: it may have gone, and nothing can interrupt it.
            del self._began[token]
            self._free.release()
            if not answer.done():
                tell()

        self._began[token] = time.monotonic()
        self._threads.submit(compute)
        return answer

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
