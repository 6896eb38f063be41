"""Sends several items in one call: items that arrive while all calls are busy share the next call.

No item waits for others while a call is free. So a single photo is as fast as without batches. Under load several
photos share the fixed cost of a call.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
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
        max_concurrent_batches: how many calls may run at the same time.
        max_weight: the largest sum of weights in a batch. A heavier item is sent alone.
        weight: gives the weight of an item.
        group: what the items of a batch have in common: one that differs in it is for a batch of its own.
        prefetch: the last call only waits at its destination, to be there when another call ends. It starts when it is
            as large as the running ones are on average; earlier, it would leave later items out.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Coroutine[Any, Any, Sequence[Answer | Exception]]],
        max_concurrent_batches: int,
        max_weight: int,
        weight: Callable[[Item], int] = lambda _: 1,
        prefetch: bool = False,
        group: Callable[[Item], object] = lambda _: None,
    ) -> None:
        self._call = call
        self._group = group
        self._max_concurrent_batches = self._free = max_concurrent_batches
        self._in_flight = 0
        self._prefetch = prefetch
        self.max_weight = max_weight
        self._weight = weight
        self._waiting: deque[_Pending[Item, Answer]] = deque()

    async def submit(self, item: Item) -> Answer:
        """Return the answer to ``item``. A call is cancelled when the callers of all its items are."""
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
            # An exception that leaves here has this frame in its traceback; with ``pending`` it would refer to
            # itself, and stay in memory until the garbage collector runs.
            del pending

    def _dispatch(self) -> None:
        while self._waiting and self._may_dispatch():
            batch = self._next_batch()
            call = asyncio.create_task(self._call([pending.item for pending in batch]))
            self._free -= 1
            self._in_flight += len(batch)
            # Not at the end of the task itself, which one that is cancelled before it begins never comes to.
            call.add_done_callback(partial(self._end, batch))
            for pending in batch:
                pending.is_sent = True
                pending.answer.add_done_callback(partial(_cancel_if_none_waits, batch, call))

    def _may_dispatch(self) -> bool:
        if self._prefetch and self._free == 1:
            return len(self._waiting) * (self._max_concurrent_batches - 1) >= self._in_flight
        return self._free > 0

    def _next_batch(self) -> list[_Pending[Item, Answer]]:
        batch = [self._waiting.popleft()]
        weight, group = self._weight(batch[0].item), self._group(batch[0].item)
        while self._waiting and self._group(self._waiting[0].item) is group:
            weight += self._weight(self._waiting[0].item)
            if weight > self.max_weight:
                break
            batch.append(self._waiting.popleft())
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
