"""Tests the memory that messages share: a message without room waits for it, fairly and not for long."""

import asyncio
import functools
import gc
import threading
import unittest
import weakref
from typing import Any
from unittest import mock

import grpc
import numpy as np

from model_service import errors
from model_service.models import saved_model
from model_service.prediction import executor, message_memory, request_log, validation
from model_service.prediction import predict as prediction
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import predict_request, served

LARGEST = 1000
# Two messages can be read at a time. 4500 bytes are for messages that have been read, 250 of them for small ones.
LIMIT = int(6.5 * LARGEST)
SHORT_S = 0.02


class MessageMemoryTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.memory = message_memory.MessageMemory(LIMIT, LARGEST)

    async def read(self, client: str, size: int) -> Any:
        """Return the reservation of a message that has arrived."""
        reservation = await self.memory.start_reading(client)
        reservation.is_read()
        await reservation.grow(size)
        return reservation

    async def assert_refused(self, waiting: Any) -> None:
        with self.assertRaises(errors.ServingError) as caught:
            await waiting
        self.assertEqual(caught.exception.code, grpc.StatusCode.RESOURCE_EXHAUSTED)

    async def test_what_finds_no_room_waits_for_it(self) -> None:
        first = await self.read("a", 4000)
        second = asyncio.create_task(self.read("b", 1000))
        await asyncio.sleep(SHORT_S)
        self.assertFalse(second.done())
        first.release()
        self.assertEqual((await second).size, 1000)

    async def test_it_waits_for_a_while_only(self) -> None:
        await self.read("a", 4000)
        with mock.patch.object(message_memory, "WAIT_S", SHORT_S):
            await self.assert_refused(self.read("b", 1000))
        self.assertEqual((await self.read("c", 250)).size, 250, "what waited has left its place")

    async def test_what_would_never_find_room_is_refused_at_once(self) -> None:
        await self.assert_refused(asyncio.wait_for(self.read("a", 4 * LARGEST + 1), SHORT_S))

    async def test_some_is_kept_for_small_messages(self) -> None:
        await self.read("a", 4000)
        with mock.patch.object(message_memory, "WAIT_S", SHORT_S):
            await self.assert_refused(self.read("a", 251))
        for _ in range(2):
            self.assertEqual((await self.read("a", 250)).size, 250)

    async def test_what_is_released_twice_was_taken_once(self) -> None:
        first = await self.read("a", 4000)
        first.release()
        first.release()
        await self.read("a", 4000)
        with mock.patch.object(message_memory, "WAIT_S", SHORT_S):
            await self.assert_refused(self.read("b", 4000))

    async def test_a_message_that_comes_slowly_makes_room_for_others(self) -> None:
        stopped = []
        for number in range(2):
            reservation = await self.memory.start_reading("a")

            def stop(number: int = number, reservation: Any = reservation) -> None:
                stopped.append(number)
                reservation.release()

            reservation.stop = stop
        with mock.patch.object(message_memory, "SLOW_S", SHORT_S):
            await asyncio.wait_for(self.read("b", 100), 1)
        self.assertEqual(stopped, [0])

    async def test_clients_with_fewer_calls_go_first_and_then_the_newest(self) -> None:
        holders = [await self.memory.start_reading("a") for _ in range(2)]
        order: list[str] = []

        async def wait(client: str, name: str) -> None:
            reservation = await self.memory.start_reading(client)
            order.append(name)
            reservation.release()

        waiting = []
        for client, name in (("b", "b"), ("a", "a1"), ("a", "a2"), ("c", "c1"), ("c", "c2")):
            waiting.append(asyncio.create_task(wait(client, name)))
            await asyncio.sleep(0.001)
        holders[0].release()
        await asyncio.wait(waiting, timeout=1)
        self.assertEqual(order[:3], ["b", "c2", "c1"])

    async def test_where_too_many_wait_the_greediest_is_refused(self) -> None:
        async def come_and_go(client: str) -> None:
            (await self.memory.start_reading(client)).release()

        holders = [await self.memory.start_reading("a") for _ in range(2)]
        with mock.patch.object(message_memory, "MAX_WAITING", 3):
            waiting = [asyncio.create_task(come_and_go(client)) for client in ("b", "a", "a", "a")]
            await asyncio.sleep(SHORT_S)
        self.assertEqual([task.done() for task in waiting], [False, True, False, False])
        await self.assert_refused(waiting[1])
        for holder in holders:
            holder.release()
        await asyncio.gather(waiting[0], *waiting[2:])

    async def test_who_leaves_while_it_waits_leaves_nothing(self) -> None:
        for yields in range(12):
            holders = [await self.memory.start_reading("a") for _ in range(2)]
            task = asyncio.create_task(self.memory.start_reading("b"))
            for _ in range(yields):
                await asyncio.sleep(0)
            for holder in holders:
                holder.release()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
        for _ in range(2):
            await asyncio.wait_for(self.memory.start_reading("c"), 1)


class RefusedRequestsTest(unittest.IsolatedAsyncioTestCase):
    async def test_a_refused_request_is_gone_without_a_collection_of_garbage(self) -> None:
        spec = saved_model.TensorSpec("x", "x:0", tensorflow_protos.types_pb2.DT_FLOAT, (-1, 2))
        servables = served(None, saved_model.Signature("serving_default", {"x": spec}, {"y": spec}))
        threads = executor.InferenceExecutor(1, 1)
        self.addCleanup(threads.close)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for dtype in (np.int32, np.uint8):
            request = predict_request({"x": np.zeros((1, 2), dtype)}, "M")
            predict = functools.partial(prediction.predict, servables, request, validation.Options(1000))
            seen = weakref.ref(predict)
            record = request_log.RequestRecord("GRPC", "M", {})
            try:
                await threads.submit(None, functools.partial(record.compute, predict))
            except errors.ServingError as exc:
                errors.forget_frames(exc)
            del predict, request
            # The thread releases it a moment later.
            await asyncio.sleep(SHORT_S)
            self.assertIsNone(seen())

    async def test_a_request_that_fails_when_its_client_has_gone_is_gone_too(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)

        class Failing:
            infer_requests = 1

            def run(self, inputs: Any, outputs: Any) -> Any:
                goes_on.wait()
                raise errors.invalid_argument("what the graph says")

        spec = saved_model.TensorSpec("x", "x:0", tensorflow_protos.types_pb2.DT_FLOAT, (-1, 2))
        servables = served(Failing(), saved_model.Signature("serving_default", {"x": spec}, {"y": spec}))
        threads = executor.InferenceExecutor(1, 1)
        self.addCleanup(threads.close)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        request = predict_request({"x": np.zeros((1, 2), np.float32)}, "M")
        predict = functools.partial(prediction.predict, servables, request, validation.Options(1000))
        seen = weakref.ref(predict)
        record = request_log.RequestRecord("GRPC", "M", {})
        call = asyncio.create_task(threads.submit(None, functools.partial(record.compute, predict)))
        await asyncio.sleep(SHORT_S)
        call.cancel()
        await asyncio.wait([call])
        del predict, request, call
        goes_on.set()
        await asyncio.sleep(5 * SHORT_S)
        self.assertIsNone(seen())

    async def test_what_is_reserved_is_released_when_no_thread_computes_any_more(self) -> None:
        threads = executor.InferenceExecutor(1, 1)
        self.addCleanup(threads.close)
        ended: list[str] = []

        def submit(name: str, *, call: Any = lambda: None) -> Any:
            return asyncio.create_task(threads.submit(None, call, name, lambda: ended.append(name)))

        loop, blocked = asyncio.get_running_loop(), asyncio.Event()
        computing = submit("computing", call=lambda: asyncio.run_coroutine_threadsafe(blocked.wait(), loop).result())
        waiting = submit("waiting")
        await asyncio.sleep(SHORT_S)
        with self.assertRaises(errors.ServingError):
            await submit("refused")
        computing.cancel()
        waiting.cancel()
        await asyncio.sleep(SHORT_S)
        self.assertEqual(ended, ["refused", "waiting"])
        blocked.set()
        await asyncio.sleep(5 * SHORT_S)
        self.assertEqual(ended, ["refused", "waiting", "computing"])


if __name__ == "__main__":
    unittest.main()
