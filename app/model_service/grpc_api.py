"""The gRPC face: PredictionService, ModelService and grpc.health.v1 on one port."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import prediction
from backend import Backend
from failures import ServingError, StartError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from servables import Servables
from tensorflow_messages import model_service_pb2_grpc, prediction_service_pb2_grpc

logger = logging.getLogger(__name__)

# The whole server, both services by their full names, and by the short ones that TensorFlow Serving registers.
HEALTH_SERVICES = (
    "",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "PredictionService",
    "ModelService",
)

# How far the health service may lag behind the truth: as long as TensorFlow Serving's manager takes between two looks.
_FOLLOW_S = 0.1

# TensorFlow Serving cuts its texts here: they travel in a header, and gRPC drops headers of more than 8 KiB.
_MAX_TEXT = 1024
_TRUNCATED = "...TRUNCATED"

Method = Callable[[Any, Any, Any], Awaitable[Any]]


def _status_of_errors(method: Method) -> Method:
    """Make a ServingError the status of the call, and anything unexpected INTERNAL, with the details in the log."""

    @functools.wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except ServingError as exc:
            await context.abort(exc.code, _cut(exc.message))
        except Exception:
            logger.exception("%s failed", method.__name__)
            await context.abort(grpc.StatusCode.INTERNAL, "Internal error; the server's log has the details")

    return call


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + _TRUNCATED


async def _unimplemented(_self: Any, _request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The embedded model server doesn't offer this method")


class PredictionService:
    """`tensorflow.serving.PredictionService`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @_status_of_errors
    async def Predict(self, request: Any, context: Any) -> Any:
        """Run one signature of a model."""
        backend = self._backend
        name = request.model_spec.name
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        with backend.monitoring.request(name, "Predict", "GRPC"), backend.calls.call("GRPC", name, metadata) as call:
            call.batch_size = prediction.batch_size(request)
            task = prediction.PredictTask(backend.servables, request, backend.max_bytes, call)
            response = await backend.workers.submit(context.time_remaining(), task)
            call.version = response.model_spec.version.value
            return response

    @_status_of_errors
    async def GetModelMetadata(self, request: Any, _context: Any) -> Any:
        """Describe a model's signatures."""
        return prediction.metadata(self._backend.servables, request)

    Classify = Regress = MultiInference = _unimplemented


class ModelService:
    """`tensorflow.serving.ModelService`."""

    def __init__(self, servables: Servables) -> None:
        self._servables = servables

    @_status_of_errors
    async def GetModelStatus(self, request: Any, _context: Any) -> Any:
        """Report the versions of a model and their states."""
        return prediction.status(self._servables, request)

    HandleReloadConfigRequest = _unimplemented


class GrpcServer:
    """One port with all services on it."""

    def __init__(self, backend: Backend, with_health: bool) -> None:
        self._server = grpc.aio.server(
            options=[
                # Otherwise a second server on the same port would start and take half of the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", backend.max_bytes),
                ("grpc.max_send_message_length", backend.max_bytes),
                # Clients may look as often as this whether the server is still there, also while they only watch its
                # health; gRPC's own limit, one ping in 5 minutes, ends the connection of those that want to know.
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
                ("grpc.keepalive_permit_without_calls", 1),
                # A client looks anew for the addresses behind a name only when a connection ends: so each ends now and
                # then, in order and after its calls, and a server that has joined gets its share.
                ("grpc.max_connection_age_ms", 30_000),
                ("grpc.max_connection_age_grace_ms", 30_000),
            ]
        )
        predictions, models = PredictionService(backend), ModelService(backend.servables)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        self._readiness = backend.readiness
        self._following: asyncio.Task[None] | None = None
        self._health = health.aio.HealthServicer()
        if with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def open(self, address: str) -> None:
        """Listen on `host:port`; raises StartError where that is taken."""
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as exc:
            raise StartError(f"gRPC can't listen on {address}: the port is taken; choose another --port.") from exc
        await self._server.start()
        await self._report(health_pb2.HealthCheckResponse.SERVING)
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Keep grpc.health.v1 at what is true: its watchers want to be told, so it can't be worked out when asked."""
        reported = health_pb2.HealthCheckResponse.SERVING
        while True:
            failing = self._readiness.failing()
            states = health_pb2.HealthCheckResponse
            state = states.NOT_SERVING if failing else states.SERVING
            if state != reported:
                logger.log(logging.WARNING if failing else logging.INFO, "Health: %s", failing or "serving again")
                await self._report(state)
                reported = state
            await asyncio.sleep(_FOLLOW_S)

    async def _report(self, state: int) -> None:
        for service in HEALTH_SERVICES:
            await self._health.set(service, state)

    async def announce_end(self) -> None:
        """Report NOT_SERVING from now on, so that load balancers turn away."""
        if self._following:
            self._following.cancel()
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; cut off what is still open after `grace_s` seconds. A later call may shorten it."""
        await self._server.stop(grace_s)
