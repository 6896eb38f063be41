"""The gRPC API: PredictionService, ModelService and grpc.health.v1 on one port."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health_pb2

from model_service.api.grpc_messages import Receiver, ends_with_status, parse, serialize
from model_service.api.health_service import HealthService
from model_service.errors import StartError, invalid_argument
from model_service.listeners import Listeners
from model_service.prediction import examples
from model_service.prediction import predict as prediction
from model_service.prediction.message_memory import Reservation
from model_service.prediction.validation import specs_of
from model_service.prediction.wire_format import memory_of, read_examples
from model_service.server_context import ServerContext
from serving_common import tensorflow_protos as protos

logger = logging.getLogger(__name__)

# From NOT_SERVING until no more calls are accepted, in seconds. Clients that watch the health choose another server
# meanwhile. gRPC cancels calls that arrive later. This is longer than the pauses of a container with a CPU quota.
_LEAVE_S = 0.5
# How often the health service is updated, in seconds; TensorFlow Serving's manager has the same interval.
_UPDATE_S = 0.1

# Limits for connections, and for concurrent calls on one connection. gRPC clients queue further calls themselves.
MAX_CONNECTIONS = 1024
MAX_STREAMS = 100
# How much of a message may arrive before its call reads it: enough for one photo.
UNREAD_BYTES = 256 << 10
# Metadata of one call: the ids of 32 requests in one batch, and a few other entries.
MAX_METADATA_BYTES = 16 << 10


class PredictionService:
    """`tensorflow.serving.PredictionService`."""

    def __init__(self, server_context: ServerContext, receiver: Receiver) -> None:
        self._server_context = server_context
        self._receiver = receiver

    def handlers(self) -> dict[str, Any]:
        """Return a gRPC handler for each method."""
        answers = {"Predict": self.predict} | {api: partial(self.infer, api) for api in examples.METHODS}
        metadata = self._receiver.small(protos.get_model_metadata_pb2.GetModelMetadataRequest, self.get_model_metadata)
        return {"GetModelMetadata": metadata} | {
            api: grpc.stream_unary_rpc_method_handler(ends_with_status(answer, api), response_serializer=serialize)
            for api, answer in answers.items()
        }

    async def predict(self, _requests: Any, context: Any) -> Any:
        """Run one signature of a model."""
        servables, options = self._server_context.servables, self._server_context.options
        message, reservation = await self._receiver.receive(context)
        try:
            await reservation.grow(memory_of(message))
            request = parse(protos.predict_pb2.PredictRequest, message)
            size = reservation.size - len(message) + prediction.size_of(request, options.max_bytes)
            del message
            await reservation.grow(size)
        except BaseException:
            reservation.release()
            raise
        call = partial(prediction.predict, servables, request, options)
        return await self._answer("Predict", request, prediction.batch_size(request), call, reservation, context)

    async def infer(self, api: str, _requests: Any, context: Any) -> Any:
        """Run one or several signatures of a model on examples."""
        request_class, _ = examples.METHODS[api]
        message, reservation = await self._receiver.receive(context)
        try:
            sent = read_examples(message, request_class.DESCRIPTOR.name)
            del message
            await reservation.grow(sent.memory)
            request = parse(request_class, sent.head)
        except BaseException:
            reservation.release()
            raise
        servables, options = self._server_context.servables, self._server_context.options
        call = partial(examples.answer, api, servables, request, sent, options)
        return await self._answer(api, request, len(sent.parts), call, reservation, context)

    async def _answer(
        self, api: str, request: Any, rows: int | None, call: Callable[[], Any], reservation: Reservation, context: Any
    ) -> Any:
        server_context = self._server_context
        name = next((spec.name for spec in specs_of(request)), "")
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        label = server_context.servables.label(name)
        with (
            server_context.monitoring.request(label, api, "GRPC"),
            server_context.request_logger.record("GRPC", name, metadata, api) as record,
        ):
            record.batch_size = rows
            # From here on the executor's thread releases it: the computation may take longer than the client waits.
            response = await server_context.executor.submit(
                context.time_remaining(),
                partial(record.compute, call),
                reservation.client,
                reservation.release,
                not reservation.is_small,
            )
            record.version = specs_of(response)[0].version.value
            return response

    async def get_model_metadata(self, request: Any, _context: Any) -> Any:
        """Describe a model's signatures."""
        return prediction.metadata(self._server_context.servables, request)


class ModelService:
    """`tensorflow.serving.ModelService`."""

    def __init__(self, server_context: ServerContext, receiver: Receiver) -> None:
        self._servables = server_context.servables
        self._models = server_context.models
        self._receiver = receiver

    def handlers(self) -> dict[str, Any]:
        """Return a gRPC handler for each method."""
        status = self._receiver.small(protos.get_model_status_pb2.GetModelStatusRequest, self.get_model_status)
        reload = self._receiver.small(
            protos.model_management_pb2.ReloadConfigRequest, self.handle_reload_config_request
        )
        return {"GetModelStatus": status, "HandleReloadConfigRequest": reload}

    async def get_model_status(self, request: Any, _context: Any) -> Any:
        """Report the versions of a model and their states."""
        return prediction.status(self._servables, request)

    async def handle_reload_config_request(self, request: Any, _context: Any) -> Any:
        """Replace the list of models, and answer when each new one has a version."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        await asyncio.wrap_future(self._models.reload(request.config))
        response = protos.model_management_pb2.ReloadConfigResponse()
        # An empty status means OK, but the field must be present.
        response.status.SetInParent()
        return response


class GrpcServer:
    """All services, on a port, on a Unix socket or on both."""

    def __init__(self, server_context: ServerContext, with_health: bool, listeners: Listeners) -> None:
        """The arguments of `listeners` take the place of those here."""
        options: dict[str, int | str] = {
            # Otherwise a second server could start on the same port and would get half of the calls.
            "grpc.so_reuseport": 0,
            "grpc.max_receive_message_length": server_context.options.max_bytes,
            "grpc.max_send_message_length": server_context.options.max_bytes,
            # Otherwise each call could send megabytes before its handler reads them.
            "grpc.http2.bdp_probe": 0,
            "grpc.http2.lookahead_bytes": UNREAD_BYTES,
            "grpc.max_metadata_size": MAX_METADATA_BYTES,
            "grpc.absolute_max_metadata_size": MAX_METADATA_BYTES,
            "grpc.max_concurrent_streams": MAX_STREAMS,
            "grpc.max_allowed_incoming_connections": MAX_CONNECTIONS,
            # Clients may ping every second, also while they only watch the health. gRPC's default is one ping in
            # 5 minutes and closes the connection of a client that pings more often.
            "grpc.http2.min_ping_interval_without_data_ms": 1000,
            "grpc.keepalive_permit_without_calls": 1,
            # A client resolves a host name again only when a connection ends. So each connection is closed
            # regularly, after its calls have ended, and a new server gets its share of the load.
            "grpc.max_connection_age_ms": 30_000,
            "grpc.max_connection_age_grace_ms": 30_000,
        }
        self._server = grpc.aio.server(options=list({**options, **listeners.arguments}.items()))
        receiver = Receiver(server_context.messages)
        services = {
            "tensorflow.serving.PredictionService": PredictionService(server_context, receiver).handlers(),
            "tensorflow.serving.ModelService": ModelService(server_context, receiver).handlers(),
        }
        self._listeners = listeners
        self._health = HealthService()
        if with_health:
            request = health_pb2.HealthCheckRequest
            services["grpc.health.v1.Health"] = {
                "Check": receiver.small(request, self._health.check),
                "Watch": receiver.stream(request, self._health.watch),
            }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items()]
        )
        self._readiness = server_context.readiness
        self._updating: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen; raises StartError if an address is taken."""
        credentials = self._listeners.credentials
        secure = partial(self._server.add_secure_port, server_credentials=credentials)
        for address in self._listeners.addresses:
            try:
                (secure if credentials else self._server.add_insecure_port)(address)
            except RuntimeError as exc:
                raise StartError(
                    f"Failed to BuildAndStart gRPC server: {address} is taken; choose another --port or "
                    "--grpc_socket_path."
                ) from exc
            logger.info("Running gRPC ModelServer at %s ...", unquote(address).replace("unix:", "UNIX socket "))
        await self._server.start()
        self._updating = asyncio.create_task(self._update_health())

    async def _update_health(self) -> None:
        """Update grpc.health.v1 regularly: its watchers expect a message at each change."""
        reported = health_pb2.HealthCheckResponse.SERVING
        while True:
            failing = self._readiness.failing()
            states = health_pb2.HealthCheckResponse
            state = states.NOT_SERVING if failing else states.SERVING
            if state != reported:
                logger.log(logging.WARNING if failing else logging.INFO, "Health: %s", failing or "serving again")
                self._health.set(state)
                reported = state
            await asyncio.sleep(_UPDATE_S)

    async def announce_end(self) -> None:
        """Report NOT_SERVING from now on, and wait until clients that watch the health have chosen other servers."""
        if self._updating:
            self._updating.cancel()
        self._health.set(health_pb2.HealthCheckResponse.NOT_SERVING)
        if self._health.is_watched:
            await asyncio.sleep(_LEAVE_S)

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls; cancel those that still run after `grace_s` seconds. A later call may shorten this."""
        await self._server.stop(grace_s)
