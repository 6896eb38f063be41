"""Models compute in a few threads: the event loop goes on, and what nobody waits for any more is not computed."""

import asyncio
import os
import threading
import time
import unittest

import grpc
from model_server_fixtures import failures, workers


class ThreadsTest(unittest.TestCase):
    def test_what_is_not_given_is_chosen_from_the_cores(self) -> None:
        cores = workers.usable_cores()
        self.assertEqual(workers.Threads.sharing(), workers.Threads(cores, max(1, cores // 4)))
        self.assertEqual(workers.Threads.sharing(16), workers.Threads(16, 4))
        self.assertEqual(workers.Threads.sharing(16, 2), workers.Threads(16, 2))

    @unittest.skipUnless(hasattr(os, "sched_setaffinity"), "only Linux confines a process to some cores")
    def test_cores_that_the_process_may_not_use_are_not_counted(self) -> None:
        allowed = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {min(allowed)})
        self.assertEqual(workers.usable_cores(), 1)


class WorkersTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.workers = workers.Workers(1)
        self.addCleanup(self.workers.close)
        self.release = threading.Event()
        self.addCleanup(self.release.set)

    async def test_the_event_loop_goes_on_while_a_call_computes(self) -> None:
        call = asyncio.create_task(self.workers.run(None, self.release.wait))
        await asyncio.sleep(0.05)
        self.assertFalse(call.done())
        self.release.set()
        self.assertTrue(await call)

    async def test_a_call_that_waits_past_its_deadline_is_dropped(self) -> None:
        computed: list[str] = []
        busy = asyncio.create_task(self.workers.run(None, self.release.wait))
        late = asyncio.create_task(self.workers.run(0.01, computed.append, "late"))
        await asyncio.sleep(0.05)
        self.release.set()
        with self.assertRaises(failures.ServingError) as caught:
            await late
        await busy
        self.assertEqual(caught.exception.code, grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual(computed, [])

    async def test_a_call_whose_caller_has_gone_is_dropped(self) -> None:
        computed: list[str] = []
        busy = asyncio.create_task(self.workers.run(None, self.release.wait))
        gone = asyncio.create_task(self.workers.run(None, computed.append, "gone"))
        await asyncio.sleep(0.01)
        gone.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await gone
        self.release.set()
        await busy
        await self.workers.run(None, time.sleep, 0)
        self.assertEqual(computed, [])

    async def test_a_call_whose_caller_has_gone_computes_on_once_it_has_begun(self) -> None:
        gone = asyncio.create_task(self.workers.run(None, self.release.wait))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait_for(self.workers.wait_until_idle(), 5)
        self.assertTrue(self.workers.is_computing)
        self.release.set()
        await self.workers.run(None, time.sleep, 0)
        self.assertFalse(self.workers.is_computing)

    async def test_idle_means_that_no_call_runs_or_waits(self) -> None:
        calls = [asyncio.create_task(self.workers.run(None, self.release.wait)) for _ in range(3)]
        await asyncio.sleep(0.01)
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(self.workers.wait_until_idle(), 0.05)
        self.release.set()
        await asyncio.wait_for(self.workers.wait_until_idle(), 5)
        self.assertTrue(all(call.done() for call in calls))


if __name__ == "__main__":
    unittest.main()
