"""Tests the executor: the event loop never waits for a computation, and calls without a waiting client are dropped."""

import asyncio
import functools
import threading
import time
import unittest
from typing import Any

import grpc

from model_service import errors
from model_service.prediction import executor


class InferenceExecutorTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.executor = executor.InferenceExecutor(1, 2)
        self.addCleanup(self.executor.close)
        self.release = threading.Event()
        self.addCleanup(self.release.set)

    async def run_call(self, remaining: float | None, function: Any, *arguments: Any, client: str = "") -> Any:
        return await self.executor.submit(remaining, functools.partial(function, *arguments), client)

    async def test_the_event_loop_goes_on_while_a_call_computes(self) -> None:
        call = asyncio.create_task(self.run_call(None, self.release.wait))
        await asyncio.sleep(0.05)
        self.assertFalse(call.done())
        self.release.set()
        self.assertTrue(await call)

    async def test_a_call_that_waits_past_its_deadline_is_dropped(self) -> None:
        computed: list[str] = []
        busy = asyncio.create_task(self.run_call(None, self.release.wait))
        late = asyncio.create_task(self.run_call(0.01, computed.append, "late"))
        await asyncio.sleep(0.05)
        self.release.set()
        with self.assertRaises(errors.ServingError) as caught:
            await late
        await busy
        self.assertEqual(caught.exception.code, grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual((computed, self.executor.expired), ([], 1))

    async def test_a_call_that_comes_after_its_deadline_is_dropped(self) -> None:
        computed: list[str] = []
        with self.assertRaises(errors.ServingError) as caught:
            await self.run_call(0, computed.append, "late")
        self.assertEqual(caught.exception.code, grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual((computed, self.executor.expired), ([], 1))
        self.assertTrue(await self.run_call(None, lambda: True), "its thread is free for the next")

    async def test_a_call_that_is_given_up_at_its_deadline_counts_as_expired(self) -> None:
        """gRPC cancels the call a little before the server's deadline, because the message took time to arrive."""
        busy = asyncio.create_task(self.run_call(None, self.release.wait))
        await asyncio.sleep(0.01)
        for remaining, counts in ((60.0, (0, 1)), (0.05, (1, 1))):
            call = asyncio.create_task(self.run_call(remaining, time.sleep, 0))
            await asyncio.sleep(0.01)
            call.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await call
            self.assertEqual((self.executor.expired, self.executor.cancelled), counts)
        self.release.set()
        await busy

    async def test_a_call_whose_caller_has_gone_is_dropped(self) -> None:
        computed: list[str] = []
        busy = asyncio.create_task(self.run_call(None, self.release.wait))
        gone = asyncio.create_task(self.run_call(None, computed.append, "gone"))
        await asyncio.sleep(0.01)
        gone.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await gone
        self.release.set()
        await busy
        await self.run_call(None, time.sleep, 0)
        self.assertEqual((computed, self.executor.cancelled), ([], 1))

    async def test_a_call_whose_caller_has_gone_computes_on_once_it_has_begun(self) -> None:
        gone = asyncio.create_task(self.run_call(None, self.release.wait))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait_for(self.executor.wait_until_idle(), 5)
        self.assertEqual(self.executor.computing, 1)
        self.release.set()
        await self.run_call(None, time.sleep, 0)
        self.assertEqual(self.executor.computing, 0)

    async def test_a_call_that_finds_the_queue_full_is_refused_at_once(self) -> None:
        calls = [asyncio.create_task(self.run_call(None, self.release.wait)) for _ in range(3)]
        await asyncio.sleep(0.01)
        self.assertEqual((self.executor.computing, self.executor.waiting), (1, 2))
        with self.assertRaises(errors.ServingError) as caught:
            await self.run_call(None, time.sleep, 0)
        self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(
            caught.exception.message, "The batch scheduling queue to which this task was submitted is full"
        )
        self.assertEqual((self.executor.rejected, [call.done() for call in calls]), (1, [False] * 3))
        self.release.set()
        self.assertEqual(await asyncio.gather(*calls), [True] * 3)
        self.assertTrue(await self.run_call(None, lambda: True), "there is room again")

    async def test_calls_are_computed_in_the_order_in_which_they_came(self) -> None:
        computed: list[int] = []
        calls: list[asyncio.Task[Any]] = [asyncio.create_task(self.run_call(None, self.release.wait))]
        calls += [asyncio.create_task(self.run_call(None, computed.append, number)) for number in (1, 2)]
        await asyncio.sleep(0.01)
        self.release.set()
        await asyncio.gather(*calls)
        self.assertEqual(computed, [1, 2])

    async def test_clients_take_turns(self) -> None:
        self.executor = executor.InferenceExecutor(2, 9)
        self.addCleanup(self.executor.close)
        computed: list[str] = []
        first = threading.Event()
        held = [asyncio.create_task(self.run_call(None, event.wait, client="many")) for event in (first, self.release)]
        calls = [
            asyncio.create_task(self.run_call(None, computed.append, client, client=client))
            for client in ("many", "many", "few")
        ]
        await asyncio.sleep(0.01)
        first.set()
        await asyncio.gather(*calls)
        self.assertEqual(computed, ["few", "many", "many"])
        self.release.set()
        await asyncio.gather(*held)

    async def test_in_a_full_queue_the_client_with_most_makes_room(self) -> None:
        held = asyncio.create_task(self.run_call(None, self.release.wait, client="many"))
        many = [asyncio.create_task(self.run_call(None, int, client="many")) for _ in range(2)]
        await asyncio.sleep(0.01)
        few = asyncio.create_task(self.run_call(None, int, client="few"))
        await asyncio.sleep(0.01)
        self.assertEqual([call.done() for call in many], [False, True])
        with self.assertRaises(errors.ServingError) as caught:
            await many[1]
        self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
        with self.assertRaises(errors.ServingError):
            await self.run_call(None, int, client="few")
        self.assertEqual(self.executor.rejected, 2)
        self.release.set()
        await asyncio.gather(held, many[0], few)

    async def test_what_takes_long_leaves_a_thread_for_what_does_not(self) -> None:
        def submit(is_long: bool) -> Any:
            return asyncio.create_task(self.executor.submit(None, self.release.wait, is_long=is_long))

        calls = [submit(is_long) for is_long in (True, True, False, False)]
        await asyncio.sleep(0.01)
        self.assertEqual((self.executor.computing, self.executor.waiting), (2, 2))
        self.release.set()
        await asyncio.gather(*calls)

    async def test_what_is_given_up_makes_room_in_the_queue(self) -> None:
        calls = [asyncio.create_task(self.run_call(None, self.release.wait)) for _ in range(3)]
        await asyncio.sleep(0.01)
        calls[2].cancel()
        await asyncio.sleep(0.01)
        another = asyncio.create_task(self.run_call(None, lambda: "computed"))
        await asyncio.sleep(0.01)
        self.release.set()
        self.assertEqual(await another, "computed")

    async def test_a_queue_of_no_length_lets_compute_and_refuses_the_rest(self) -> None:
        self.executor = executor.InferenceExecutor(1, 0)
        self.addCleanup(self.executor.close)
        call = asyncio.create_task(self.run_call(None, self.release.wait))
        await asyncio.sleep(0.01)
        with self.assertRaises(errors.ServingError):
            await self.run_call(None, time.sleep, 0)
        self.release.set()
        self.assertTrue(await call)

    async def test_a_caller_that_goes_at_any_moment_leaves_its_thread_free(self) -> None:
        """Also between the queue and the thread: a thread that is lost there would be missed only by the next call."""
        for yields in range(30):
            call = asyncio.create_task(self.run_call(None, time.sleep, 0))
            for _ in range(yields % 6):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        self.assertEqual(await asyncio.wait_for(self.run_call(None, lambda: "computed"), 5), "computed")

    async def test_an_error_is_the_callers_and_frees_the_thread(self) -> None:
        for _ in range(3):
            with self.assertRaises(ZeroDivisionError):
                await self.run_call(None, divmod, 1, 0)
        self.assertEqual(await asyncio.wait_for(self.run_call(None, lambda: "computed"), 5), "computed")

    async def test_the_longest_call_is_the_one_that_has_computed_longest(self) -> None:
        self.assertEqual(self.executor.longest(), 0)
        gone = asyncio.create_task(self.run_call(None, self.release.wait))
        await asyncio.sleep(0.05)
        gone.cancel()
        first = self.executor.longest()
        self.assertGreater(first, 0.04)
        await asyncio.sleep(0.01)
        self.assertGreater(self.executor.longest(), first, "it computes on, whoever has gone")
        self.release.set()
        await self.run_call(None, time.sleep, 0)
        await asyncio.sleep(0.01)
        self.assertEqual(self.executor.longest(), 0)

    async def test_idle_means_that_no_call_runs_or_waits(self) -> None:
        calls = [asyncio.create_task(self.run_call(None, self.release.wait)) for _ in range(3)]
        await asyncio.sleep(0.01)
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(self.executor.wait_until_idle(), 0.05)
        self.release.set()
        await asyncio.wait_for(self.executor.wait_until_idle(), 5)
        self.assertTrue(all(call.done() for call in calls))


if __name__ == "__main__":
    unittest.main()
