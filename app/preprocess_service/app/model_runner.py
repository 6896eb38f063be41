"""The client of the model server: gRPC, its deadlines and its errors."""

import asyncio
import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import Span

from preprocess_service.app.config import Config
from preprocess_service.app.errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded, ServiceError
from preprocess_service.app.inference.batcher import Batcher
from preprocess_service.app.observability.tracing import Tracing
from preprocess_service.app.serving_client.connection import Connection, ask
from preprocess_service.app.serving_client.predict_request import PredictRequestTemplate
from preprocess_service.app.serving_client.predict_response import Prediction, read_predictions
from preprocess_service.app.serving_client.signature import Signature, from_config, from_metadata, model_error
from preprocess_service.app.utils import normalise
from serving_common.cpu_quota import usable_cores
from serving_common.tensorflow_protos import get_model_metadata_pb2, get_model_status_pb2

logger = logging.getLogger(__name__)

# What each refusal of the model server means for the one who sent the photo. NOT_FOUND is a model that is not loaded
# (yet); ABORTED and CANCELLED happen while a server goes down; RESOURCE_EXHAUSTED is a full queue. The rest means that
# the two services do not fit together, which no sender can mend.
ERRORS: dict[grpc.StatusCode, type[ServiceError]] = {
    **{status: ModelError for status in grpc.StatusCode if status != grpc.StatusCode.OK},
    grpc.StatusCode.CANCELLED: ModelUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: ModelUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.ABORTED: ModelUnavailable,
    grpc.StatusCode.UNAVAILABLE: ModelUnavailable,
}

# More than what stands around the pictures in a request takes.
_TEMPLATE_BYTES = 1024


@dataclass(frozen=True)
class _PredictItem:
    """A photo that waits for the model until ``deadline``, by ``time.monotonic``; ``stage`` is for its trace."""

    pixels: NDArray[np.uint8]
    deadline: float
    request_id: str
    stage: Span


class ModelRunner:
    """Sends photos to the model server and makes predictions of its answers.

    Nothing is connected before ``open``, which needs a running event loop. One channel serves all requests; gRPC
    connects when the first one is sent, and again by itself after the model server was away. Photos that come while
    ``model_server.max_concurrent_batches`` are under way share the next call.
    """

    def __init__(self, config: Config, tracing: Tracing | None = None) -> None:
        self._config = config
        self._tracing = tracing or Tracing()
        self._signature: Signature | None = None
        self._version: int | None = None
        server = config.model_server
        self._connection = Connection(
            server.host, server.port, server.max_message_bytes, config.limits.deadline_seconds
        )
        max_batches = server.max_concurrent_batches or usable_cores() + 1
        self._batcher = Batcher(self._predict_batch, max_batches, server.batch_size)
        self._template = functools.lru_cache(maxsize=2 * server.batch_size)(self._make_template)

    async def open(self) -> None:
        """Create the channel."""
        await self._connection.open()

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._connection.close()

    async def predict(self, pixels: NDArray[np.uint8], timeout: float, request_id: str = "") -> Prediction:
        """Ask the model what is in one picture.

        Args:
            pixels: uint8 ``[height, width, 3]``, as the model was trained on (``utils.to_pixels``).
            timeout: seconds until the answer must be here.
            request_id: told to the model server as metadata, so that both logs can be read together.

        Raises:
            ModelUnavailable, Overloaded, DeadlineExceeded, ModelError: see ``ERRORS``; ModelError also where the
                answer is not one probability for each label.
        """
        deadline = time.monotonic() + timeout
        try:
            # It may wait for a call that has a later deadline.
            async with asyncio.timeout(timeout):
                item = _PredictItem(pixels, deadline, request_id, self._tracing.current_stage())
                return await self._batcher.submit(item)
        except TimeoutError as exc:
            raise DeadlineExceeded from exc

    async def _predict_batch(self, items: Sequence[_PredictItem]) -> Sequence[Prediction | Exception]:
        """Ask for all of ``items`` in one call, which may take as long as the last of them waits."""
        deadline = max(item.deadline for item in items)
        stages = [item.stage for item in items]
        known = self._signature
        signature = known or await self._fetch_signature(deadline - time.monotonic(), stages)
        try:
            return await self._predict_by(signature, items, deadline)
        except ModelError:
            self._signature = None
            if known is None:
                raise
            # A model without this signature, or with other names, may serve under the same name by now.
            signature = await self._fetch_signature(deadline - time.monotonic(), stages)
            if signature == known:
                raise
        return await self._predict_by(signature, items, deadline)

    async def _predict_by(
        self, signature: Signature, items: Sequence[_PredictItem], deadline: float
    ) -> Sequence[Prediction | Exception]:
        request = self._request(signature, [item.pixels for item in items])
        ids = ",".join(item.request_id for item in items if item.request_id)
        stages = [item.stage for item in items]
        response = await self._call(self._connection.predict, request, deadline - time.monotonic(), ids, stages)
        predictions = read_predictions(response, signature, self._config.labels, len(items))
        version = int(response.model_spec.version.value)
        is_another = self._version not in (None, version)
        if is_another or any(isinstance(prediction, ModelError) for prediction in predictions):
            # It may have a better signature than the last one, or mean something else by the same names.
            self._signature = None
        self._version = version
        return predictions

    async def model_version(self, timeout: float) -> int:
        """The newest version that the model server reports AVAILABLE.

        Raises:
            ModelUnavailable: there is none, or the model server can't be reached in ``timeout`` seconds.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._config.experiment_id
        response = await self._call(self._connection.status, request, timeout)
        available = [
            s.version
            for s in response.model_version_status
            if s.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
        ]
        if not available:
            raise ModelUnavailable
        return int(max(available))

    async def signature(self, timeout: float) -> Signature:
        """The model's input and output name, asked of the model server unless the settings name them."""
        return self._signature or await self._fetch_signature(timeout)

    async def _fetch_signature(self, timeout: float, stages: Sequence[Span] = ()) -> Signature:
        signature = from_config(self._config)
        if signature is None:
            request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
            request.model_spec.name = self._config.experiment_id
            response = await self._call(self._connection.metadata, request, timeout, stages=stages)
            signature = from_metadata(response, self._config)
        self._batcher.max_size = self._batch_size(signature)
        self._signature = signature
        return signature

    def _batch_size(self, signature: Signature) -> int:
        server, picture = self._config.model_server, self._config.picture
        if not signature.accepts_batches:
            return 1
        picture_bytes = 3 * picture.height * picture.width * signature.dtype.itemsize
        return max(1, min(server.batch_size, (server.max_message_bytes - _TEMPLATE_BYTES) // picture_bytes))

    def _request(self, signature: Signature, pictures: Sequence[NDArray[np.uint8]]) -> bytes:
        template = self._template(signature, (len(pictures), *pictures[0].shape))
        if signature.accepts_uint8:
            return template.render(pictures)
        return template.render([normalise(pixels, self._config.picture) for pixels in pictures])

    def _make_template(self, signature: Signature, shape: tuple[int, ...]) -> PredictRequestTemplate:
        return PredictRequestTemplate(self._config.experiment_id, signature, shape)

    async def _call(
        self, method: Any, request: Any, timeout: float, request_ids: str = "", stages: Sequence[Span] = ()
    ) -> Any:
        # gRPC takes a timeout of 0 for none at all.
        if timeout <= 0:
            raise DeadlineExceeded
        sent = (("x-request-id", request_ids),) if request_ids else ()
        name = "Predict" if isinstance(request, bytes) else type(request).__name__.removesuffix("Request")
        with self._tracing.client_call(name, stages) as metadata:
            try:
                answer = await ask(method, request, timeout, sent + metadata)
            except grpc.aio.AioRpcError as exc:
                fields = {"request_id": request_ids}
                logger.warning("model server: %s: %s", exc.code().name, exc.details(), extra=fields)
                if exc.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (exc.details() or ""):
                    # A message over the limit of one side: no lack of anything that a later attempt would find.
                    raise ModelError from exc
                raise ERRORS[exc.code()] from exc
        if answer is None:
            # What gRPC gives for bytes that are no message of this kind; its own log has the reason.
            raise model_error("the answer can't be read")
        return answer
