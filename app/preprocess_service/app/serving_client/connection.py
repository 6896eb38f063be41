"""The channel to the model servers, made anew from time to time, and one more attempt where a server cancels a call."""

import asyncio
import time
from typing import Any

import grpc

from preprocess_service.app.serving_client.channel import channel_options, channel_target
from serving_common.tensorflow_protos import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# gRPC asks for the addresses behind a name again only when a connection ends. TensorFlow Serving does not end them, so
# that a server which joins later would get no calls. A new channel asks again. It shares the open connections of the
# old one.
RENEW_SECONDS = 20.0
# For as long the old channel goes on where the new one reaches no server, e.g. because the DNS does not answer.
READY_SECONDS = 5.0
# The old channel is closed so long after the last call on it could have ended: closing cancels a call.
CLOSE_SECONDS = 5.0
# Until the second attempt: as in gRPC's own retries, so that a server that stops has told its clients.
RETRY_SECONDS = 0.05

PREDICT = "/tensorflow.serving.PredictionService/Predict"


class Connection:
    """The methods of the model servers: ``predict``, ``metadata`` and ``status``. Use each at once, do not keep it.

    Args:
        host, port: the name with one or more addresses, and the port of all of them.
        max_message_bytes: largest message, in both directions.
        call_seconds: how long a call takes at most. After this time the old channel is closed.
    """

    def __init__(self, host: str, port: int, max_message_bytes: int, call_seconds: float) -> None:
        self._address = host, port
        self._options = channel_options(max_message_bytes)
        self._call_seconds = call_seconds
        self._channel: grpc.aio.Channel | None = None

    async def open(self) -> None:
        """Create the channel. It connects at the first call."""
        self._use(self._new_channel())
        self._renewing = asyncio.create_task(self._renew())

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        if self._channel is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            await self._channel.close()

    def _new_channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(channel_target(*self._address), self._options)

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        # As the stub's own, but for a request that is bytes already.
        self.predict = channel.unary_unary(PREDICT, response_deserializer=predict_pb2.PredictResponse.FromString)
        self.metadata = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata
        self.status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            superseded = channel = self._new_channel()
            try:
                async with asyncio.timeout(READY_SECONDS):
                    await channel.channel_ready()
                superseded = self._channel
                self._use(channel)
                await asyncio.sleep(self._call_seconds + CLOSE_SECONDS)
            except TimeoutError:
                pass
            finally:
                await superseded.close()


async def ask(method: Any, request: Any, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Any:
    """Call a method, and a second time if the server cancels the call; both within ``timeout`` seconds.

    A server that stops cancels calls that it has not begun. gRPC itself repeats only UNAVAILABLE. Raises AioRpcError.
    """
    end = time.monotonic() + timeout
    try:
        return await method(request, timeout=timeout, metadata=metadata)
    except grpc.aio.AioRpcError as exc:
        # If it is this side that cancels, that is a CancelledError.
        if exc.code() != grpc.StatusCode.CANCELLED or end - time.monotonic() <= RETRY_SECONDS:
            raise
    await asyncio.sleep(RETRY_SECONDS)
    return await method(request, timeout=max(0.001, end - time.monotonic()), metadata=metadata)
