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
from opentelemetry.trace import Span

from preprocess_service.app.config import Config
from preprocess_service.app.errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded, ServiceError
from preprocess_service.app.imaging.resize import Pixels
from preprocess_service.app.inference.batcher import Batcher
from preprocess_service.app.observability.tracing import Tracing
from preprocess_service.app.recipe import SIGNATURE, SIGNATURE_INPUT, Recipe
from preprocess_service.app.serving_client import signature as signatures
from preprocess_service.app.serving_client.connection import Connection, ask
from preprocess_service.app.serving_client.model_version import (
    AnotherVersion,
    ModelVersion,
    available_versions,
    not_there,
    read_recipe,
)
from preprocess_service.app.serving_client.predict_request import PredictRequestTemplate
from preprocess_service.app.serving_client.predict_response import Prediction, read_predictions
from preprocess_service.app.serving_client.signature import Signature, model_error
from serving_common.cpu_quota import usable_cores
from serving_common.tensorflow_protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2, types_pb2

logger = logging.getLogger(__name__)

# The error that the client gets for each status code of the model server. NOT_FOUND: the model is not loaded (yet).
# ABORTED and CANCELLED: the server is shutting down. RESOURCE_EXHAUSTED: its queue is full. All others mean that the
# two services do not fit together, which the client can't fix.
ERRORS: dict[grpc.StatusCode, type[ServiceError]] = {
    **{status: ModelError for status in grpc.StatusCode if status != grpc.StatusCode.OK},
    grpc.StatusCode.CANCELLED: ModelUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: ModelUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.ABORTED: ModelUnavailable,
    grpc.StatusCode.UNAVAILABLE: ModelUnavailable,
}

# An upper limit for the bytes of a request beyond its pictures.
_TEMPLATE_BYTES = 1024
# Versions whose answers are accepted: the one in use, and earlier ones whose answers may still arrive.
_APPROVED = 4


@dataclass(frozen=True)
class _PredictItem:
    """A photo that waits for the model until ``deadline`` (``time.monotonic``). ``stage`` is the span of its trace."""

    pixels: Pixels
    model: ModelVersion
    runner: "ModelRunner"
    deadline: float
    request_id: str
    stage: Span


class ModelRunner:
    """Sends photos to the model server and turns its answers into predictions.

    ``open`` creates the channel; it needs a running event loop. One channel serves all requests. gRPC connects when
    the first request is sent, and reconnects by itself when the model server is available again. While
    ``model_server.max_concurrent_batches`` calls are in flight, new photos wait and share the next call. One call has
    photos for one version only.

    Args:
        config: its first model is the runner's.
        other: the runner of another model of the same server. Both share the channel and the calls in flight; only
            the other one opens and closes the channel.
    """

    def __init__(self, config: Config, tracing: Tracing | None = None, other: "ModelRunner | None" = None) -> None:
        self._config = config
        self._tracing = tracing or Tracing()
        self._approved: dict[int, ModelVersion] = {}
        server = config.model_server
        self._connection: Connection
        self._batcher: Batcher[_PredictItem, Prediction]
        if other:
            self._connection, self._batcher = other._connection, other._batcher
        else:
            self._connection = Connection(
                server.host, server.port, server.max_message_bytes, config.limits.deadline_seconds
            )
            self._batcher = Batcher(
                lambda items: items[0].runner._predict_batch(items),
                server.max_concurrent_batches or usable_cores() + 1,
                lambda item: item.runner._batch_size(item.model),
                lambda item: item.model,
            )
        self._batch_size = functools.lru_cache(maxsize=2 * _APPROVED)(self._largest_batch)
        self._template = functools.lru_cache(maxsize=2 * server.batch_size)(self._make_template)

    def for_model(self, name: str) -> "ModelRunner":
        """Return the runner of another model of the same server."""
        return ModelRunner(self._config.of_model(name), self._tracing, self)

    async def open(self) -> None:
        """Create the channel."""
        await self._connection.open()

    async def close(self) -> None:
        """Close the channel. Calls in flight are cancelled."""
        await self._connection.close()

    async def predict(self, pixels: Pixels, model: ModelVersion, timeout: float, request_id: str = "") -> Prediction:
        """Return the model's prediction for one photo.

        Args:
            pixels: ``[height, width, 3]``, the size and dtype of ``model.geometry`` (``imaging.resize``).
            model: the version that the pixels were prepared for.
            timeout: seconds within which the answer must arrive.
            request_id: sent to the model server as metadata, so that both logs have it.

        Raises:
            ModelUnavailable, Overloaded, DeadlineExceeded, ModelError: see ``ERRORS``. ModelError also if the answer
                is not one probability for each label.
            AnotherVersion: a version answered that needs other pixels or is not approved yet, or ``model`` is gone.
        """
        deadline = time.monotonic() + timeout
        try:
            # The photo may share a call that has a later deadline.
            async with asyncio.timeout(timeout):
                item = _PredictItem(pixels, model, self, deadline, request_id, self._tracing.current_stage())
                return await self._batcher.submit(item)
        except TimeoutError as exc:
            raise DeadlineExceeded from exc

    async def _predict_batch(self, items: Sequence[_PredictItem]) -> Sequence[Prediction | Exception]:
        """Send all ``items``, of one version, in one call. Its deadline is the latest deadline of the items."""
        model = items[0].model
        deadline = max(item.deadline for item in items)
        inputs = [model.to_input(item.pixels) for item in items]
        version = model.version if model.is_pinned else None
        request = self._template(model.signature, (len(inputs), *inputs[0].shape), version).render(inputs)
        ids = ",".join(item.request_id for item in items if item.request_id)
        stages = [item.stage for item in items]
        response = await self._call(self._connection.predict, request, deadline - time.monotonic(), ids, stages)
        answered = int(response.model_spec.version.value)
        if answered != model.version:
            # The labels of the version that answered apply.
            other = self._approved.get(answered)
            if other is None or model.is_pinned or not other.takes_the_same(model):
                raise AnotherVersion(answered)
            model = other
        return read_predictions(response, model.signature, model.recipe, len(items))

    async def available(self, timeout: float) -> list[int]:
        """Return the versions that the model server reports as AVAILABLE, newest first.

        Raises:
            ModelUnavailable: there is none, or the model server can't be reached within ``timeout`` seconds.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._config.experiment_id
        response = await self._call(self._connection.status, request, timeout)
        return available_versions(response.model_version_status, self._config.experiment_id)

    async def load(self, version: int, timeout: float) -> ModelVersion:
        """Fetch a version's signatures and its recipe.

        Raises:
            ModelError: the version can't be used; the message says why.
            ServiceError: as in ``predict``.
        """
        end = time.monotonic() + timeout
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._config.experiment_id
        request.model_spec.version.value = version
        definitions = signatures.read_definitions(
            await self._call(self._connection.metadata, request, end - time.monotonic())
        )
        recipe = self._config.recipe
        if SIGNATURE in definitions:
            recipe = await self._fetch_recipe(version, end - time.monotonic())
        if recipe is None:
            raise model_error("model_no_recipe", name=self._config.experiment_id, version=version)
        return ModelVersion(version, signatures.choose_signature(definitions, recipe, self._config), recipe)

    def approve(self, model: ModelVersion) -> None:
        """Accept answers of this version, also for requests that were made for another version."""
        self._approved.pop(model.version, None)
        self._approved[model.version] = model
        if len(self._approved) > _APPROVED:
            del self._approved[next(iter(self._approved))]

    def disapprove(self, version: int) -> None:
        """Stop accepting answers of this version for requests that were made for another version."""
        self._approved.pop(version, None)

    async def _fetch_recipe(self, version: int, timeout: float) -> Recipe:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._config.experiment_id
        request.model_spec.signature_name = SIGNATURE
        request.model_spec.version.value = version
        tensor = request.inputs[SIGNATURE_INPUT]
        tensor.dtype, tensor.tensor_content = types_pb2.DT_INT32, np.zeros(1, np.int32).tobytes()
        tensor.tensor_shape.dim.add(size=1)
        response = await self._call(self._connection.predict, request.SerializeToString(), timeout)
        return await asyncio.to_thread(read_recipe, response, version)

    def _largest_batch(self, model: ModelVersion) -> int:
        server, geometry = self._config.model_server, model.geometry
        if not model.signature.accepts_batches:
            return 1
        picture_bytes = 3 * geometry.height * geometry.width * model.signature.dtype.itemsize
        return max(1, min(server.batch_size, (server.max_message_bytes - _TEMPLATE_BYTES) // picture_bytes))

    def _make_template(
        self, signature: Signature, shape: tuple[int, ...], version: int | None
    ) -> PredictRequestTemplate:
        return PredictRequestTemplate(self._config.experiment_id, signature, shape, version)

    async def _call(
        self, method: Any, request: Any, timeout: float, request_ids: str = "", stages: Sequence[Span] = ()
    ) -> Any:
        # gRPC treats a timeout of 0 as no timeout.
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
                raise self._error(exc, name) from exc
        if answer is None:
            # gRPC returns None if it can't parse the message. Its own log has the reason.
            raise model_error("model_unreadable")
        return answer

    def _error(self, exc: grpc.aio.AioRpcError, call: str) -> Exception:
        code, details = exc.code(), exc.details() or ""
        if code == grpc.StatusCode.NOT_FOUND:
            # The requested version may be gone. Only GetModelStatus says which versions exist.
            return not_there(self._config.experiment_id, details) if call == "GetModelStatus" else AnotherVersion()
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            # The message is over the limit of one side. A retry would fail in the same way.
            return ModelError("model_message")
        if ERRORS[code] is ModelError:
            return ModelError("model_refused", code=code.name)
        return ERRORS[code]()
