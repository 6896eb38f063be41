"""The client of the model server: gRPC, its deadlines and its errors."""

import functools
import logging
import math
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from channel import channel_options, channel_target
from config import Config
from envelope import Envelope
from errors import DeadlineExceeded, ModelError, ModelUnavailable, Overloaded, ServiceError
from numpy.typing import NDArray
from serving_messages import (
    DT_FLOAT,
    DecodeError,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelServiceStub,
    ModelVersionStatus,
    PredictionServiceStub,
    PredictResponse,
    SignatureDefMap,
)
from tracing import Tracing

logger = logging.getLogger(__name__)

# What each refusal of the model server means for the one who sent the photo. NOT_FOUND is a model that is not loaded
# (yet); ABORTED and CANCELLED happen while a server goes down; RESOURCE_EXHAUSTED is a full queue. The rest means that
# the two services do not fit together, which no sender can mend.
ERRORS: dict[grpc.StatusCode, type[ServiceError]] = {
    grpc.StatusCode.CANCELLED: ModelUnavailable,
    grpc.StatusCode.UNKNOWN: ModelError,
    grpc.StatusCode.INVALID_ARGUMENT: ModelError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: ModelUnavailable,
    grpc.StatusCode.ALREADY_EXISTS: ModelError,
    grpc.StatusCode.PERMISSION_DENIED: ModelError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.FAILED_PRECONDITION: ModelError,
    grpc.StatusCode.ABORTED: ModelUnavailable,
    grpc.StatusCode.OUT_OF_RANGE: ModelError,
    grpc.StatusCode.UNIMPLEMENTED: ModelError,
    grpc.StatusCode.INTERNAL: ModelError,
    grpc.StatusCode.UNAVAILABLE: ModelUnavailable,
    grpc.StatusCode.DATA_LOSS: ModelError,
    grpc.StatusCode.UNAUTHENTICATED: ModelError,
}


PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True)
class Signature:
    """The names under which the model takes its one input and gives its outputs."""

    input_name: str
    output_name: str
    domain_output_name: str | None = None

    @property
    def outputs(self) -> list[str]:
        return [name for name in (self.output_name, self.domain_output_name) if name]


@dataclass(frozen=True)
class Prediction:
    """What the model said of one picture.

    ``probabilities`` are in the order of the labels, each in 0..1. ``domain_score``, 0..1, tells how much the picture
    is one of what the model knows; None where the model has no such output.
    """

    probabilities: dict[str, float]
    model_version: int
    domain_score: float | None = None

    @property
    def label(self) -> str:
        return max(self.probabilities, key=self.probabilities.__getitem__)


class ModelRunner:
    """Sends tensors to the model server and makes predictions of its answers.

    Nothing is connected before ``open``, which needs a running event loop. One channel serves all requests; gRPC
    connects when the first one is sent, and again by itself after the model server was away.
    """

    def __init__(self, config: Config, tracing: Tracing | None = None) -> None:
        self._config = config
        self._tracing = tracing or Tracing()
        self._channel: grpc.aio.Channel | None = None
        self._signature: Signature | None = None
        self._envelope = functools.lru_cache(maxsize=8)(self._make_envelope)

    async def open(self) -> None:
        """Create the channel and its stubs."""
        server = self._config.model_server
        options = channel_options(server.max_message_bytes)
        self._channel = grpc.aio.insecure_channel(channel_target(server.host, server.port), options)
        self._predictions = PredictionServiceStub(self._channel)
        # As the stub's own, but for a request that is bytes already.
        self._predict = self._channel.unary_unary(PREDICT, response_deserializer=PredictResponse.FromString)
        self._models = ModelServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        if self._channel is not None:
            await self._channel.close()

    async def predict(self, tensor: NDArray[np.float32], timeout: float, request_id: str = "") -> Prediction:
        """Ask the model what is in one picture.

        Args:
            tensor: float32 ``[height, width, 3]``, as the model was trained on (``utils.to_tensor``).
            timeout: seconds until the answer must be here.
            request_id: told to the model server as metadata, so that both logs can be read together.

        Raises:
            ModelUnavailable, Overloaded, DeadlineExceeded, ModelError: see ``ERRORS``; ModelError also where the
                answer is not one probability for each label.
        """
        signature = self._signature or await self._ask_signature(timeout)
        request = self._envelope(signature, tensor.shape).around(tensor)
        del tensor  # which is in the request now; see Pipeline.classify
        try:
            response = await self._call(self._predict, request, timeout, request_id)
            return self._read_response(response, signature)
        except ModelError:
            # Another model may serve under the same name by now; ask anew next time.
            self._signature = None
            raise

    async def model_version(self, timeout: float) -> int:
        """The newest version that the model server reports AVAILABLE.

        Raises:
            ModelUnavailable: there is none, or the model server can't be reached in ``timeout`` seconds.
        """
        request = GetModelStatusRequest()
        request.model_spec.name = self._config.experiment_id
        response = await self._call(self._models.GetModelStatus, request, timeout)
        available = [s.version for s in response.model_version_status if s.state == ModelVersionStatus.AVAILABLE]
        if not available:
            raise ModelUnavailable
        return int(max(available))

    async def signature(self, timeout: float) -> Signature:
        """The model's input and output name, asked of the model server unless the settings name them."""
        return self._signature or await self._ask_signature(timeout)

    async def _ask_signature(self, timeout: float) -> Signature:
        input_name, output_name = self._config.model_input_name, self._config.model_output_name
        if input_name is None or output_name is None:
            request = GetModelMetadataRequest(metadata_field=["signature_def"])
            request.model_spec.name = self._config.experiment_id
            response = await self._call(self._predictions.GetModelMetadata, request, timeout)
            signatures = SignatureDefMap()
            try:
                response.metadata["signature_def"].Unpack(signatures)
            except DecodeError as exc:
                raise _model_error("the signatures can't be read: %s", exc) from exc
            definition = signatures.signature_def.get(self._config.signature_name)
            if definition is None:
                raise _model_error("the model has no signature %r", self._config.signature_name)
            input_name = input_name or _only(definition.inputs, "input")
            others = [name for name in definition.outputs if name != self._config.domain_output_name]
            output_name = output_name or _only(others, "output")
        self._signature = Signature(input_name, output_name, self._config.domain_output_name)
        return self._signature

    def _make_envelope(self, signature: Signature, shape: tuple[int, ...]) -> Envelope:
        config = self._config
        return Envelope(config.experiment_id, config.signature_name, signature.input_name, signature.outputs, shape)

    def _read_response(self, response: PredictResponse, signature: Signature) -> Prediction:
        labels = self._config.labels
        values = _read_floats(response, signature.output_name, len(labels))
        if not all(0 <= value <= 1 for value in values) or not math.isclose(sum(values), 1, abs_tol=1e-3):
            raise _model_error("the answer is no distribution of probabilities: %s", values)
        domain_score = None
        if signature.domain_output_name:
            (domain_score,) = _read_floats(response, signature.domain_output_name, 1)
            if not 0 <= domain_score <= 1:
                raise _model_error("%s is not in 0..1: %s", signature.domain_output_name, domain_score)
        version = int(response.model_spec.version.value)
        return Prediction(dict(zip(labels, values, strict=True)), version, domain_score)

    async def _call(self, method: Any, request: Any, timeout: float, request_id: str = "") -> Any:
        # gRPC takes a timeout of 0 for none at all.
        if timeout <= 0:
            raise DeadlineExceeded
        sent = (("x-request-id", request_id),) if request_id else ()
        name = "Predict" if isinstance(request, bytes) else type(request).__name__.removesuffix("Request")
        with self._tracing.call(name) as metadata:
            try:
                answer = await method(request, timeout=timeout, metadata=sent + metadata)
            except grpc.aio.AioRpcError as exc:
                fields = {"request_id": request_id}
                logger.warning("model server: %s: %s", exc.code().name, exc.details(), extra={"fields": fields})
                if exc.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (exc.details() or ""):
                    # A message over the limit of one side: no lack of anything that a later attempt would find.
                    raise ModelError from exc
                raise ERRORS[exc.code()] from exc
        if answer is None:
            # What gRPC gives for bytes that are no message of this kind; its own log has the reason.
            raise _model_error("the answer can't be read")
        return answer


def _read_floats(response: PredictResponse, name: str, count: int) -> list[float]:
    output = response.outputs[name]
    if len(output.tensor_content) % 4:
        raise _model_error("%s has %d bytes, no whole number of float32", name, len(output.tensor_content))
    # TensorFlow Serving answers in float_val, or in tensor_content where it was told to.
    values: list[float] = np.frombuffer(output.tensor_content, "<f4").tolist() or list(output.float_val)
    if output.dtype != DT_FLOAT or len(values) != count:
        raise _model_error("%s has %d values, not %d", name, len(values), count)
    return values


def _only(tensors: Any, kind: str) -> str:
    if len(tensors) != 1:
        names = ", ".join(sorted(tensors)) or "none"
        raise _model_error("the model has %d %ss (%s); name one in config.yaml", len(tensors), kind, names)
    return str(next(iter(tensors)))


def _model_error(reason: str, *values: object) -> ModelError:
    """A ModelError whose reason goes to the log; the sender can't do anything with it."""
    logger.error("model server: " + reason, *values)
    return ModelError()
