"""Tests the memory limit of pictures that are decoded at the same time: each that waits gets its turn."""

import asyncio
import unittest
from contextlib import AsyncExitStack

from preprocess_service.app.inference import memory_budget


class MemoryBudgetTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.budget = memory_budget.MemoryBudget(10)
        self.begun: list[str] = []

    async def take(self, name: str, size: int) -> None:
        async with self.budget.reserve(size):
            self.begun.append(name)

    async def start(self, name: str, size: int) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.take(name, size))
        await asyncio.sleep(0)
        return task

    async def test_tasks_that_are_cancelled_in_the_same_moment_give_all_back_and_fail_of_nothing_else(self) -> None:
        async def work() -> None:
            async with self.budget.reserve(8):
                await asyncio.sleep(60)

        for holder_first in (True, False):
            with self.subTest(holder_first=holder_first):
                tasks = [asyncio.create_task(work()) for _ in range(3)]
                await asyncio.sleep(0)
                for task in tasks if holder_first else reversed(tasks):
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                self.assertEqual([type(result) for result in results], [asyncio.CancelledError] * 3)
                async with asyncio.timeout(10), self.budget.reserve(10):
                    pass

    async def test_what_fits_goes_on_at_once_and_the_rest_waits_for_it(self) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.budget.reserve(3))
            await stack.enter_async_context(self.budget.reserve(4))
            waiting = await self.start("six", 6)
            self.assertEqual(self.begun, [])
        await waiting
        self.assertEqual(self.begun, ["six"])

    async def test_nobody_overtakes_the_one_that_waits(self) -> None:
        async with self.budget.reserve(5):
            large, small = await self.start("large", 10), await self.start("small", 1)
            self.assertEqual(self.begun, [])
        await asyncio.gather(large, small)
        self.assertEqual(self.begun, ["large", "small"])

    async def test_one_that_leaves_the_queue_lets_the_next_one_go_on(self) -> None:
        async with self.budget.reserve(5):
            large, small = await self.start("large", 10), await self.start("small", 1)
            large.cancel()
            await small
        self.assertEqual(self.begun, ["small"])

    async def test_one_that_is_cancelled_just_as_its_turn_comes_gives_it_back(self) -> None:
        async with self.budget.reserve(5):
            large = await self.start("large", 10)
        large.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await large
        await asyncio.wait_for(self.take("all", 10), 10)

    async def test_a_picture_that_fails_gives_its_memory_back(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            async with self.budget.reserve(10):
                raise ZeroDivisionError
        await asyncio.wait_for(self.take("all", 10), 10)


if __name__ == "__main__":
    unittest.main()
