"""Puts questions together: while as many calls as may are under way, those that come gather for the next one.

None waits for others to come where a call would be worked on at once: it begins with what there is. So a photo alone
is as fast as ever, and only under load is what a call costs, whatever it asks, paid for once for several photos.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Place(Generic[Question, Answer]):
    """A question that waits, or that is part of a call."""

    question: Question
    answer: asyncio.Future[Answer]
    is_asked: bool = False


class Batcher(Generic[Question, Answer]):
    """Asks several questions in one call.

    Args:
        ask: gives the answers, in the order of the questions; an exception in place of an answer is for the one
            who asked that question, one that is raised for each of them.
        calls: under way at the same time, at most.
        size: of a batch, at most: what its questions cost together. One that costs more is asked alone.
        cost: of a question.
        ahead: the last of the calls would only wait where it goes, to be there when another ends. So it begins when it
            has as many questions as the others have in the mean; sooner, it would keep out those that still come.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[Question]], Coroutine[Any, Any, Sequence[Answer | Exception]]],
        calls: int,
        size: int,
        cost: Callable[[Question], int] = lambda _: 1,
        ahead: bool = False,
    ) -> None:
        self._ask = ask
        self._calls = self._free = calls
        self._asked = 0
        self._ahead = ahead
        self.size = size
        self._cost = cost
        self._waiting: deque[_Place[Question, Answer]] = deque()

    async def submit(self, question: Question) -> Answer:
        """The answer to ``question``. It is dropped when its caller is cancelled, a call when all of them are."""
        place: _Place[Question, Answer] = _Place(question, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        self._begin()
        try:
            return await place.answer
        except asyncio.CancelledError:
            if not place.is_asked:
                self._waiting.remove(place)
            raise
        finally:
            # An exception that leaves here has this frame in its traceback; with the place it would have itself, and
            # all that hangs on it would stay in memory until some collection of garbage.
            del place

    def _begin(self) -> None:
        while self._waiting and self._may_begin():
            places = self._next_batch()
            call = asyncio.create_task(self._ask([place.question for place in places]))
            self._free -= 1
            self._asked += len(places)
            # Not at the end of the task itself, which one that is cancelled before it begins never comes to.
            call.add_done_callback(partial(self._end, places))
            for place in places:
                place.is_asked = True
                place.answer.add_done_callback(partial(_cancel_if_none_waits, places, call))

    def _may_begin(self) -> bool:
        if self._ahead and self._free == 1:
            return len(self._waiting) * (self._calls - 1) >= self._asked
        return self._free > 0

    def _next_batch(self) -> list[_Place[Question, Answer]]:
        places = [self._waiting.popleft()]
        cost = self._cost(places[0].question)
        while self._waiting and (cost := cost + self._cost(self._waiting[0].question)) <= self.size:
            places.append(self._waiting.popleft())
        return places

    def _end(
        self, places: Sequence[_Place[Question, Answer]], call: asyncio.Task[Sequence[Answer | Exception]]
    ) -> None:
        self._free += 1
        self._asked -= len(places)
        for place, answer in zip(places, _answers(call, len(places)), strict=True):
            if place.answer.done():
                continue
            if isinstance(answer, BaseException):
                place.answer.set_exception(answer)
            else:
                place.answer.set_result(answer)
        self._begin()


def _cancel_if_none_waits(
    places: Sequence[_Place[Any, Any]], call: asyncio.Task[Any], _answer: asyncio.Future[Any]
) -> None:
    if all(place.answer.cancelled() for place in places):
        call.cancel()


def _answers(call: asyncio.Task[Sequence[Answer | Exception]], count: int) -> Sequence[Answer | BaseException]:
    if call.cancelled():
        return [asyncio.CancelledError()] * count
    exception = call.exception()
    return call.result() if exception is None else [exception] * count
