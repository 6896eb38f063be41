"""The threads in which models compute, so that the event loop never waits for them."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from failures import deadline_exceeded

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Return how many cores this process may run on: in a container fewer than the machine has, perhaps."""
    confined = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(confined(0)) if confined else os.cpu_count() or 1


@dataclass(frozen=True)
class Threads:
    """How much of the machine to use: `compute` threads in all, shared by `streams` calls at a time."""

    compute: int
    streams: int

    @classmethod
    def sharing(cls, compute: int = 0, streams: int = 0) -> "Threads":
        """Fill in what is 0: a thread for each core, and four of them, as many as a small network uses, for a call."""
        compute = compute or usable_cores()
        return cls(compute, streams or max(1, compute // 4))

    @property
    def callers(self) -> int:
        """How many calls to accept at once: one more than compute, so the next one is ready when one ends."""
        return self.streams + 1


class Workers:
    """A fixed number of threads; what they can't take yet waits, and is dropped if its caller has gone."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._running = 0
        self._computing: set[object] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(
        self,
        remaining: float | None,
        call: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Return what `call` returns; cancelling the caller drops a call that has not begun.

        Raises ServingError DEADLINE_EXCEEDED if `remaining` seconds (None: no limit) have passed before it begins.
        """
        latest = None if remaining is None else time.monotonic() + remaining

        def begin() -> Result:
            if latest is not None and time.monotonic() > latest:
                raise deadline_exceeded("The deadline passed before the computation began")
            token = object()
            self._computing.add(token)
            try:
                return call(*args, **kwargs)
            finally:
                self._computing.discard(token)

        self._running += 1
        self._idle.clear()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, begin)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    @property
    def is_computing(self) -> bool:
        """Whether a thread computes, be it for a caller that has gone: nothing can interrupt it."""
        return bool(self._computing)

    async def wait_until_idle(self) -> None:
        """Return when no caller waits for a call any more."""
        await self._idle.wait()

    def close(self) -> None:
        """Let the threads end; calls that have not begun are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
