"""The end of the gRPC server: clients that watch the health leave it before it refuses calls."""

import asyncio
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_service.api import grpc_server
from model_service.listeners import Listeners
from model_service.prediction.message_memory import MessageMemory
from tools.chaos.stage import free_port

States: Any = health_pb2.HealthCheckResponse
ASKED = health_pb2.HealthCheckRequest()


class EndTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        place: Any = SimpleNamespace(
            options=SimpleNamespace(max_bytes=1 << 20),
            messages=MessageMemory(1 << 24, 1 << 20),
            models=None,
            servables=None,
            readiness=SimpleNamespace(failing=lambda: ""),
        )
        address = f"127.0.0.1:{free_port()}"
        self.server = grpc_server.GrpcServer(place, with_health=True, listeners=Listeners([address], None, {}))
        await self.server.open()
        self.addAsyncCleanup(self.server.stop, 0)
        channel = grpc.aio.insecure_channel(address)
        self.addAsyncCleanup(channel.close)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def test_while_its_watchers_leave_calls_are_still_answered(self) -> None:
        watch = self.health.Watch(ASKED)
        self.assertEqual((await watch.read()).status, States.SERVING)
        with mock.patch.object(grpc_server, "_LEAVE_S", 3600):
            ending = asyncio.create_task(self.server.announce_end())
            self.assertEqual((await watch.read()).status, States.NOT_SERVING)
            self.assertEqual((await self.health.Check(ASKED, timeout=60)).status, States.NOT_SERVING)
            self.assertFalse(ending.done())
            ending.cancel()
        watch.cancel()

    async def test_without_watchers_it_ends_at_once(self) -> None:
        with mock.patch.object(grpc_server, "_LEAVE_S", 3600):
            async with asyncio.timeout(60):
                await self.server.announce_end()


if __name__ == "__main__":
    unittest.main()
