"""Sends several items in one call: items that arrive while all calls are busy share the next call.

No item waits for others while a call is free. So a single photo is as fast as without batches. Under load several
photos share the fixed cost of a call.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Pending(Generic[Item, Answer]):
    """An item that waits, or that is part of a call."""

    item: Item
    answer: asyncio.Future[Answer]
    is_sent: bool = False


class Batcher(Generic[Item, Answer]):
    """Groups items into batches.

    Args:
        call: takes a batch and gives the answers in the same order. An exception in place of an answer is raised for
            that item only; an exception that it raises is raised for all of them.
        max_concurrent_batches: how many calls may run at the same time. The last one is a prefetch: it waits at its
            destination until another call ends. It starts when it is as large as the running ones are on average. If it
            started earlier, it would be too small.
        max_size: gives the most items in a batch that starts with this item.
        group: gives what all items of a batch have in common. An item of another group is sent in another batch.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Coroutine[Any, Any, Sequence[Answer | Exception]]],
        max_concurrent_batches: int,
        max_size: Callable[[Item], int],
        group: Callable[[Item], object],
    ) -> None:
        self._call = call
        self._group = group
        self._max_concurrent_batches = self._free = max_concurrent_batches
        self._in_flight = 0
        self._max_size, self._group = max_size, group
        self._waiting: deque[_Pending[Item, Answer]] = deque()

    async def submit(self, item: Item) -> Answer:
        """Return the answer to ``item``. A call is cancelled if the callers of all its items are cancelled."""
        pending: _Pending[Item, Answer] = _Pending(item, asyncio.get_running_loop().create_future())
        self._waiting.append(pending)
        self._dispatch()
        try:
            return await pending.answer
        except asyncio.CancelledError:
            if not pending.is_sent:
                self._waiting.remove(pending)
            raise
        finally:
            # The traceback of an exception holds this frame. With ``pending`` in it, the exception would refer to
            # itself and stay in memory until the garbage collector runs.
            del pending

    def _dispatch(self) -> None:
        while self._waiting and self._may_dispatch():
            batch = self._next_batch()
            call = asyncio.create_task(self._call([pending.item for pending in batch]))
            self._free -= 1
            self._in_flight += len(batch)
            # A callback, not code at the end of the task: a task that is cancelled before it starts never runs.
            call.add_done_callback(partial(self._end, batch))
            for pending in batch:
                pending.is_sent = True
                pending.answer.add_done_callback(partial(_cancel_if_none_waits, batch, call))

    def _may_dispatch(self) -> bool:
        if self._free == 1:
            return len(self._waiting) * (self._max_concurrent_batches - 1) >= self._in_flight
        return self._free > 0

    def _next_batch(self) -> list[_Pending[Item, Answer]]:
        first = self._waiting[0].item
        size, group = self._max_size(first), self._group(first)
        # Items of other groups keep their places. The first item is always sent, so no group waits for ever.
        same = (pending for pending in self._waiting if self._group(pending.item) is group)
        batch = list(islice(same, size))
        for pending in batch:
            self._waiting.remove(pending)
        return batch

    def _end(self, batch: Sequence[_Pending[Item, Answer]], call: asyncio.Task[Sequence[Answer | Exception]]) -> None:
        self._free += 1
        self._in_flight -= len(batch)
        for pending, answer in zip(batch, _answers(call, len(batch)), strict=True):
            if pending.answer.done():
                continue
            if isinstance(answer, BaseException):
                pending.answer.set_exception(answer)
            else:
                pending.answer.set_result(answer)
        self._dispatch()


def _cancel_if_none_waits(
    batch: Sequence[_Pending[Any, Any]], call: asyncio.Task[Any], _answer: asyncio.Future[Any]
) -> None:
    if all(pending.answer.cancelled() for pending in batch):
        call.cancel()


def _answers(call: asyncio.Task[Sequence[Answer | Exception]], count: int) -> Sequence[Answer | BaseException]:
    if call.cancelled():
        return [asyncio.CancelledError()] * count
    exception = call.exception()
    return call.result() if exception is None else [exception] * count
