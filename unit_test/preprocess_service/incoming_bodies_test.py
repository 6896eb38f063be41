"""Tests the limits of request bodies: their number, their bytes, and that the slowest is rejected."""

import asyncio
import contextlib
import gc
import unittest
import weakref
from typing import Any
from unittest.mock import patch

from preprocess_service.app import errors
from preprocess_service.app.server import incoming_bodies
from unit_test.preprocess_service.app_server_test import settings


def make(count: int = 8, **limits: Any) -> Any:
    return incoming_bodies.IncomingBodies(settings(**limits).limits, count, errors.Overloaded)


class BodiesTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        # Only this module's clock is replaced, not the event loop's.
        self.now = self.enterContext(patch.object(incoming_bodies, "time")).monotonic
        self.now.return_value = 100.0

    async def read(self, it: Any, body: Any) -> None:
        """Read a body that never ends."""
        with it.read(body):
            await asyncio.sleep(60)

    async def start(self, it: Any, *sizes: int) -> tuple[list[Any], list[asyncio.Task[None]]]:
        started = [incoming_bodies.IncomingBody(it) for _ in sizes]
        tasks = [asyncio.create_task(self.read(it, body)) for body in started]
        await asyncio.sleep(0)
        for body, size in zip(started, sizes, strict=True):
            if size:
                body.receive(size)
                body.reserve(size)
        return started, tasks

    async def test_what_was_read_of_a_body_that_is_ended_is_free_without_a_collection_of_garbage(self) -> None:
        class Part:
            pass

        bodies, parts = make(), []
        body = incoming_bodies.IncomingBody(bodies)

        async def read() -> None:
            part = Part()
            parts.append(weakref.ref(part))
            await self.read(bodies, body)

        gc.disable()
        try:
            task = asyncio.create_task(read())
            await asyncio.sleep(0)
            body.reject("body_slowest")
            # Not assertRaises: it clears the frames of the traceback.
            with contextlib.suppress(errors.RequestTimeout):
                await task
            del task
            # The event loop still holds the callback that woke this task.
            await asyncio.sleep(0)
            self.assertIsNone(parts[0]())
        finally:
            gc.enable()

    async def ended(self, tasks: list[asyncio.Task[None]]) -> list[bool]:
        """Return which tasks were ended with 408, and cancel the others."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        self.assertEqual([isinstance(result, errors.RequestTimeout) for result in results], found)
        return found

    async def test_where_there_are_too_many_the_slowest_is_ended(self) -> None:
        it = make(3)
        (_, slow, _), tasks = await self.start(it, 20_000, 100, 20_000)
        self.now.return_value += 0.1
        slow.receive(100)
        _, more = await self.start(it, 0)
        self.assertEqual(await self.ended(tasks + more), [False, True, False, False])

    async def test_of_silent_ones_the_oldest_is_ended(self) -> None:
        it = make(2)
        _, first = await self.start(it, 0)
        self.now.return_value += 0.1
        _, more = await self.start(it, 0)
        self.now.return_value += 0.1
        _, last = await self.start(it, 0)
        self.assertEqual(await self.ended(first + more + last), [True, False, False])

    async def test_one_that_was_fast_and_stands_still_is_slow(self) -> None:
        it = make(2)
        (stalled,), first = await self.start(it, 1_000_000)
        self.now.return_value += 3
        _, second = await self.start(it, 2000)
        self.now.return_value += 0.1
        self.assertGreater(stalled.slowness(self.now.return_value), 0.003)
        _, third = await self.start(it, 0)
        self.assertEqual(await self.ended(first + second + third), [True, False, False])

    async def test_those_that_hold_much_and_stand_still_make_room_for_bytes(self) -> None:
        it = make(buffered_bytes=3000)
        _, stalled = await self.start(it, 1000, 1500)
        self.now.return_value += 1
        (small,), more = await self.start(it, 0)
        small.reserve(700)
        self.assertEqual(it.buffered, 1700)
        self.assertEqual(await self.ended(stalled + more), [False, True, False])

    async def test_one_that_is_itself_the_worst_is_refused(self) -> None:
        it = make(buffered_bytes=3000)
        (big, _), tasks = await self.start(it, 2000, 500)
        self.now.return_value += 1
        with self.assertRaises(errors.Overloaded):
            big.reserve(700)
        self.assertEqual(await self.ended(tasks), [False, False])

    async def test_what_is_at_work_makes_no_room(self) -> None:
        it = make(buffered_bytes=3000)
        done = incoming_bodies.IncomingBody(it)
        with it.read(done):
            done.reserve(2900)
        (late,), tasks = await self.start(it, 0)
        with self.assertRaises(errors.Overloaded):
            late.reserve(200)
        it.release(done)
        late.reserve(200)
        self.assertEqual(await self.ended(tasks), [False])

    async def test_after_a_while_those_below_the_least_rate_are_ended(self) -> None:
        it = make(body_grace_seconds=2, body_bytes_per_second=1000)
        _, tasks = await self.start(it, 2500, 3500, 0)
        self.now.return_value += 1.9
        it.reject_slow()
        self.now.return_value += 1.1
        it.reject_slow()
        self.assertEqual(await self.ended(tasks), [True, False, True])

    async def test_who_is_cancelled_for_another_reason_stays_so(self) -> None:
        it = make()
        _, (task,) = await self.start(it, 10)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertEqual(it.buffered, 10)


if __name__ == "__main__":
    unittest.main()
