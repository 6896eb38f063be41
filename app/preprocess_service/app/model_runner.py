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
# What a full batch weighs. It divides by each number of photos that a batch may have to a weight of which so many, and
# no more, fit into it.
_BATCH_WEIGHT = 1_000_000
# Versions of which the answers are read: the one in use, and those before it of which some are still on their way.
_APPROVED = 4


@dataclass(frozen=True)
class _PredictItem:
    """A photo that waits for the model until ``deadline``, by ``time.monotonic``; ``stage`` is for its trace."""

    pixels: Pixels
    model: ModelVersion
    deadline: float
    request_id: str
    stage: Span


class ModelRunner:
    """Sends photos to the model server and makes predictions of its answers.

    Nothing is connected before ``open``, which needs a running event loop. One channel serves all requests; gRPC
    connects when the first one is sent, and again by itself after the model server was away. Photos that come while
    ``model_server.max_concurrent_batches`` are under way share the next call, those of one version with each other.
    """

    def __init__(self, config: Config, tracing: Tracing | None = None) -> None:
        self._config = config
        self._tracing = tracing or Tracing()
        self._approved: dict[int, ModelVersion] = {}
        server = config.model_server
        self._connection = Connection(
            server.host, server.port, server.max_message_bytes, config.limits.deadline_seconds
        )
        max_batches = server.max_concurrent_batches or usable_cores() + 1
        self._batcher = Batcher(
            self._predict_batch, max_batches, lambda item: self._batch_size(item.model), lambda item: item.model
        )
        self._batch_size = functools.lru_cache(maxsize=2 * _APPROVED)(self._largest_batch)
        self._template = functools.lru_cache(maxsize=2 * server.batch_size)(self._make_template)

    async def open(self) -> None:
        """Create the channel."""
        await self._connection.open()

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._connection.close()

    async def predict(self, pixels: Pixels, model: ModelVersion, timeout: float, request_id: str = "") -> Prediction:
        """Ask the model what is in one picture.

        Args:
            pixels: ``[height, width, 3]``, as ``model.geometry`` has it (``imaging.resize``).
            model: the version that they were made for.
            timeout: seconds until the answer must be here.
            request_id: told to the model server as metadata, so that both logs can be read together.

        Raises:
            ModelUnavailable, Overloaded, DeadlineExceeded, ModelError: see ``ERRORS``; ModelError also where the
                answer is not one probability for each label.
            AnotherVersion: one answered that wants other pixels or may not be used yet, or ``model`` is gone.
        """
        deadline = time.monotonic() + timeout
        try:
            # It may wait for a call that has a later deadline.
            async with asyncio.timeout(timeout):
                item = _PredictItem(pixels, model, deadline, request_id, self._tracing.current_stage())
                return await self._batcher.submit(item)
        except TimeoutError as exc:
            raise DeadlineExceeded from exc

    async def _predict_batch(self, items: Sequence[_PredictItem]) -> Sequence[Prediction | Exception]:
        """Ask for all of ``items``, of one version, in one call, which may take as long as the last of them waits."""
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
            # What the numbers mean is the answering version's to say.
            other = self._approved.get(answered)
            if other is None or model.is_pinned or not other.takes_the_same(model):
                raise AnotherVersion(answered)
            model = other
        return read_predictions(response, model.signature, model.recipe, len(items))

    async def available(self, timeout: float) -> list[int]:
        """The versions that the model server reports AVAILABLE, newest first.

        Raises:
            ModelUnavailable: there is none, or the model server can't be reached in ``timeout`` seconds.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._config.experiment_id
        response = await self._call(self._connection.status, request, timeout)
        return available_versions(response.model_version_status, self._config.experiment_id)

    async def load(self, version: int, timeout: float) -> ModelVersion:
        """Ask for a version's signatures and its recipe.

        Raises:
            ModelError: it can't be used; the message says why.
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
        """Let answers of this version be read, whichever version they were asked of."""
        self._approved.pop(model.version, None)
        self._approved[model.version] = model
        if len(self._approved) > _APPROVED:
            del self._approved[next(iter(self._approved))]

    def disapprove(self, version: int) -> None:
        """Let no answer of this version be read as another's."""
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
                raise self._error(exc, name) from exc
        if answer is None:
            # What gRPC gives for bytes that are no message of this kind; its own log has the reason.
            raise model_error("model_unreadable")
        return answer

    def _error(self, exc: grpc.aio.AioRpcError, call: str) -> Exception:
        code, details = exc.code(), exc.details() or ""
        if code == grpc.StatusCode.NOT_FOUND:
            # A version that is named may be gone by now; which are there is the status's to say.
            return not_there(self._config.experiment_id, details) if call == "GetModelStatus" else AnotherVersion()
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            # A message over the limit of one side: no lack of anything that a later attempt would find.
            return ModelError("model_message")
        if ERRORS[code] is ModelError:
            return ModelError("model_refused", code=code.name)
        return ERRORS[code]()
