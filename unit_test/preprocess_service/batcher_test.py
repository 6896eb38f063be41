"""Tests the batcher: items that wait share a call, no item waits for others, and none is left over."""

import asyncio
import unittest
from collections.abc import Sequence
from typing import Any

from preprocess_service.app.inference import batcher


class Model:
    """Answers each item with its tenfold when it is released, and records the batches."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.cancelled: list[list[int]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def ask(self, questions: Sequence[int]) -> Sequence[int | Exception]:
        self.asked.append(list(questions))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(list(questions))
            raise
        if self.failure:
            raise self.failure
        return [ValueError(f"not {number}") if number < 0 else 10 * number for number in questions]


class BatcherTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.model = Model()

    async def submit(self, calls: int, size: int, *numbers: int) -> list[asyncio.Task[int]]:
        self.batcher: Any = batcher.Batcher(self.model.ask, calls, lambda _: size, lambda number: number > 100)
        return await self.more(*numbers)

    async def more(self, *numbers: int) -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(self.batcher.submit(number)) for number in numbers]
        await self.settle()
        return tasks

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def test_what_comes_while_all_calls_are_under_way_goes_together_in_order(self) -> None:
        tasks = await self.submit(2, 3, 1, 2, 3, 4, 5, 6, 7)
        self.assertEqual(self.model.asked, [[1], [2]])
        self.model.gate.set()
        self.assertEqual(await asyncio.gather(*tasks), [10, 20, 30, 40, 50, 60, 70])
        self.assertEqual(self.model.asked, [[1], [2], [3, 4, 5], [6, 7]])

    async def test_items_of_another_group_are_sent_apart(self) -> None:
        tasks = await self.submit(1, 4, 1, 2, 3, 101, 102, 4)
        self.model.gate.set()
        await asyncio.gather(*tasks)
        # An item of another group in between does not make the calls smaller.
        self.assertEqual(self.model.asked, [[1], [2, 3, 4], [101, 102]])

    async def test_the_call_ahead_waits_until_it_asks_as_many_as_the_others_or_one_of_them_ends(self) -> None:
        await self.submit(3, 4, 1, 2, 3, 4, 5, 6)
        self.assertEqual(self.model.asked, [[1], [2], [3]])
        await self.end_calls()
        await self.more(7)
        self.assertEqual(self.model.asked[3:], [[4, 5, 6], [7]])
        await self.more(8)
        self.assertEqual(self.model.asked[5:], [])
        await self.more(9)
        self.assertEqual(self.model.asked[5:], [[8, 9]])
        await self.end_calls()
        await self.more(10, 11, 12)
        self.assertEqual(self.model.asked[6:], [[10], [11], [12]])
        tasks = await self.more(13, 14, 15)
        await self.end_calls()
        tasks += await self.more(16, 17)
        self.assertEqual(self.model.asked[9:], [[13, 14, 15], [16]])
        await self.end_calls()
        self.assertEqual(self.model.asked[11:], [[17]])
        await self.end_calls()
        self.assertEqual(await asyncio.gather(*tasks), [130, 140, 150, 160, 170])

    async def end_calls(self) -> None:
        """End the calls that are running now, but none that begins afterwards."""
        self.model.gate.set()
        self.model.gate.clear()
        await self.settle()

    async def test_an_exception_among_the_answers_is_for_its_own_question(self) -> None:
        tasks = await self.submit(1, 3, 1, 2, -3, 4)
        self.model.gate.set()
        first, second, third, fourth = await asyncio.gather(*tasks, return_exceptions=True)
        self.assertEqual((first, second, str(third), fourth), (10, 20, "not -3", 40))

    async def test_a_call_that_fails_fails_for_all_of_it_and_the_next_begins(self) -> None:
        tasks = await self.submit(1, 2, 1)
        self.model.failure = ConnectionError("gone")
        tasks += await self.more(2, 3)
        self.model.gate.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        self.assertEqual([str(one) for one in found], ["gone"] * 3)
        self.model.failure = None
        self.assertEqual(await self.batcher.submit(4), 40)

    async def test_a_question_whose_caller_left_is_not_asked(self) -> None:
        tasks = await self.submit(1, 3, 1, 2, 3)
        tasks[1].cancel()
        await self.settle()
        self.model.gate.set()
        self.assertEqual([await tasks[0], await tasks[2]], [10, 30])
        self.assertEqual(self.model.asked, [[1], [3]])

    async def test_a_call_goes_on_while_anybody_waits_for_it_and_no_longer(self) -> None:
        first, *others = await self.submit(1, 2, 1, 2, 3, 4)
        first.cancel()
        await self.settle()
        self.assertEqual((self.model.cancelled, self.model.asked), ([[1]], [[1], [2, 3]]))
        others[0].cancel()
        await self.settle()
        self.assertEqual(self.model.cancelled, [[1]])
        others[1].cancel()
        await self.settle()
        self.assertEqual(self.model.cancelled, [[1], [2, 3]])
        self.model.gate.set()
        self.assertEqual(await others[2], 40)

    async def test_a_call_that_is_cancelled_before_it_begins_leaves_its_place(self) -> None:
        self.batcher = batcher.Batcher(self.model.ask, 1, lambda _: 1, bool)
        task = asyncio.create_task(self.batcher.submit(1))
        await asyncio.sleep(0)
        task.cancel()
        await self.settle()
        self.model.gate.set()
        async with asyncio.timeout(5):
            self.assertEqual(await self.batcher.submit(2), 20)


if __name__ == "__main__":
    unittest.main()
