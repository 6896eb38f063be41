"""`grpc.health.v1.Health`: one state for the whole server, under all names of its services.

The package grpcio-health-checking holds a lock while it writes to a watcher. There, one watcher that does not read its
answer would delay the state of all others.
"""

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2

from model_service.errors import not_found, resource_exhausted

# "" is the whole server. Then both services: by their full names, and by the short ones that TensorFlow Serving uses.
HEALTH_SERVICES = (
    "",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "PredictionService",
    "ModelService",
)
# A connection, and so a watch, ends within a minute. Then the client connects again.
MAX_WATCHES = 256

States = health_pb2.HealthCheckResponse


class HealthService:
    """Returns the current state, and sends each change to the watchers."""

    def __init__(self) -> None:
        self._state = States.SERVING
        self._changed = asyncio.Event()
        self._watches = 0

    @property
    def is_watched(self) -> bool:
        """Whether a client is told about each change."""
        return self._watches > 0

    def set(self, state: int) -> None:
        """Change the state and notify the watchers."""
        self._state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def check(self, request: Any, _context: Any) -> Any:
        """Answer Health.Check."""
        if request.service not in HEALTH_SERVICES:
            raise not_found(f"There is no service {request.service}")
        return States(status=self._state)

    async def watch(self, request: Any, context: Any) -> None:
        """Answer Health.Watch until the client disconnects; raises ServingError RESOURCE_EXHAUSTED at MAX_WATCHES."""
        if self._watches >= MAX_WATCHES:
            raise resource_exhausted(f"The limit of {MAX_WATCHES} health watches is reached: try again later")
        self._watches += 1
        try:
            told = None
            while True:
                changed = self._changed
                state = self._state if request.service in HEALTH_SERVICES else States.SERVICE_UNKNOWN
                if state != told:
                    await context.write(States(status=state))
                    told = state
                await changed.wait()
        finally:
            self._watches -= 1
