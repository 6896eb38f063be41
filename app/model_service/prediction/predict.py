"""The calls of both faces, without either: request message in, response message out, ServingError where refused.

The checks come in TensorFlow Serving's order and with its texts. One it doesn't have: the dtype and shape of every
input are compared with the signature before anything runs, so that the text can say what was expected.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from model_service.errors import failed_precondition, invalid_argument, resource_exhausted
from model_service.models import tensors
from model_service.models.saved_model import Signature
from model_service.models.servables import Servable, Servables
from model_service.models.tensors import Array, to_tensor
from model_service.prediction import validation
from model_service.prediction.request_log import Call, computing
from serving_common.tensorflow_protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

logger = logging.getLogger(__name__)


class PredictTask:
    """One PredictionService.Predict, for the threads that compute: on its own, or in one batch with others.

    No input may take more than `max_bytes` of memory.
    """

    def __init__(self, servables: Servables, request: predict_pb2.PredictRequest, max_bytes: int, call: Call) -> None:
        self._servables = servables
        self._request = request
        self._max_bytes = max_bytes
        self._call = call
        self.rows = max(1, call.batch_size or 1)
        spec = request.model_spec
        # What is asked of which model; whether the inputs fit together shows only when they are read.
        self.key: Hashable = (spec.name, spec.version.value, spec.version_label, spec.signature_name)

    def compute(self, tasks: Sequence["PredictTask"]) -> list[predict_pb2.PredictResponse | BaseException]:
        """Answer all of `tasks`: for each the response, or why there is none."""
        with computing([task._call for task in tasks]):
            return predict_all(self._servables, [task._request for task in tasks], self._max_bytes)


@dataclass(frozen=True)
class _Checked:
    """A request that can be computed."""

    servable: Servable
    signature: Signature
    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    max_bytes: int = 2**63

    @property
    def rows(self) -> int:
        return next((array.shape[0] for array in self.inputs.values() if array.ndim), 0)

    @property
    def kind(self) -> Hashable:
        """What is computed together has the same one; None: can only be computed on its own."""
        specs = [*self.signature.inputs.values(), *self.signature.outputs.values()]
        if any(spec.shape is None or spec.shape[:1] != (-1,) for spec in specs):
            return None
        if any(array.shape[0] != self.rows for array in self.inputs.values()):
            return None
        shapes = tuple((alias, array.shape[1:]) for alias, array in sorted(self.inputs.items()))
        return id(self.servable), self.signature.name, tuple(self.outputs), shapes


def predict(servables: Servables, request: predict_pb2.PredictRequest, max_bytes: int) -> predict_pb2.PredictResponse:
    """Answer PredictionService.Predict; no input may take more than `max_bytes` of memory. Raises ServingError."""
    (answer,) = predict_all(servables, [request], max_bytes)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def predict_all(
    servables: Servables, requests: Sequence[predict_pb2.PredictRequest], max_bytes: int
) -> list[predict_pb2.PredictResponse | BaseException]:
    """Answer each request as if it had come alone: with a response, or with the exception that says why not.

    What fits together is computed as one batch: the same signature and outputs of the same version, inputs of the
    same shape but for the first dimension, which the signature leaves open.
    """
    answers: dict[int, predict_pb2.PredictResponse | BaseException] = {}
    groups: dict[Hashable, dict[int, _Checked]] = {}
    with ExitStack() as uses:
        for number, request in enumerate(requests):
            try:
                checked = _checked(uses, servables, request, max_bytes)
            except Exception as exc:
                answers[number] = exc
            else:
                groups.setdefault(checked.kind or number, {})[number] = checked
        for group in groups.values():
            answers.update(zip(group, _answers(list(group.values())), strict=True))
    return [answers[number] for number in range(len(requests))]


def _checked(uses: ExitStack, servables: Servables, request: predict_pb2.PredictRequest, max_bytes: int) -> _Checked:
    """Check a request; the version that it asks for counts as used until `uses` ends. Raises ServingError."""
    validation.check_has_spec(request)
    servable = uses.enter_context(servables.use(request.model_spec))
    signature = servable.signature(request.model_spec.signature_name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{request.model_spec.signature_name}" not found.')
    validation.check_aliases(signature, request.inputs.keys())
    unread = validation.read_tensors(request.inputs, max_bytes)
    outputs = validation.requested_outputs(signature, request.output_filter)
    for alias, tensor in unread.items():
        validation.check_tensor(tensor.kind.dtype, tensor.shape, signature.inputs[alias])
    inputs = {alias: tensor.to_array() for alias, tensor in unread.items()}
    return _Checked(servable, signature, {**signature.defaults, **inputs}, outputs, max_bytes)


def _answers(group: Sequence[_Checked]) -> Sequence[predict_pb2.PredictResponse | BaseException]:
    """The responses to requests that are of the same kind."""
    if len(group) > 1:
        try:
            return _together(group)
        except Exception as exc:
            # It may be the fault of one of them.
            logger.warning("A batch of %d can't be computed (%s): now each on its own", len(group), exc)
    return [_alone(checked) for checked in group]


def _alone(checked: _Checked) -> predict_pb2.PredictResponse | BaseException:
    try:
        return _response(checked, _run(checked))
    except Exception as exc:
        return exc


def _together(group: Sequence[_Checked]) -> list[predict_pb2.PredictResponse]:
    first = group[0]
    inputs = {alias: np.concatenate([checked.inputs[alias] for checked in group]) for alias in first.inputs}
    results = _run(replace(first, inputs=inputs))
    ends = list(accumulate(checked.rows for checked in group))
    if any(array.shape[0] != ends[-1] for array in results.values()):
        raise failed_precondition("Batched output tensor has 0th dimension that is not the sum of the inputs'")
    parts = {alias: np.split(array, ends[:-1]) for alias, array in results.items()}
    return [
        _response(checked, {alias: parts[alias][number] for alias in parts}) for number, checked in enumerate(group)
    ]


def _run(checked: _Checked) -> dict[str, Array]:
    return checked.servable.engines[checked.signature.name].run(checked.inputs, checked.outputs)


def _response(checked: _Checked, results: Mapping[str, Array]) -> predict_pb2.PredictResponse:
    size = sum(array.nbytes for array in results.values())
    if size > checked.max_bytes:
        raise resource_exhausted(f"The outputs take {size} bytes, more than {checked.max_bytes} (--max_message_bytes)")
    response = predict_pb2.PredictResponse()
    response.model_spec.name = checked.servable.name
    response.model_spec.version.value = checked.servable.version
    response.model_spec.signature_name = checked.signature.name
    for alias, array in results.items():
        response.outputs[alias].CopyFrom(to_tensor(array, checked.signature.outputs[alias].dtype))
    return response


def size_of(request: predict_pb2.PredictRequest, most: int) -> int:
    """Return how many bytes the inputs take as arrays, at most `most`: those that take more are refused later."""
    try:
        return min(sum(map(tensors.size_of, request.inputs.values())), most)
    except ValueError:
        return 0


def batch_size(request: predict_pb2.PredictRequest) -> int | None:
    """Return the first dimension of the first input, which by custom counts the examples; None where it has none."""
    for alias in sorted(request.inputs)[:1]:
        for dimension in request.inputs[alias].tensor_shape.dim[:1]:
            size: int = dimension.size
            return size
    return None


def run(
    servable: Servable, signature: Signature, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Return the named outputs for `inputs`, the signature's defaults standing in for what is left out."""
    complete = {**signature.defaults, **inputs}
    for alias, spec in signature.inputs.items():
        validation.check_tensor(complete[alias].dtype, complete[alias].shape, spec)
    return _run(_Checked(servable, signature, complete, outputs))


def metadata(
    servables: Servables, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answer PredictionService.GetModelMetadata: every signature of the model, as it was exported."""
    validation.check_has_spec(request)
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid_argument(f"Metadata field {field} is not supported")
    servable = servables.find(request.model_spec)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.metadata["signature_def"].Pack(servable.model.signature_defs)
    return response


def status(
    servables: Servables, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """Answer ModelService.GetModelStatus: every version that was ever to be served, newest first."""
    validation.check_has_spec(request)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in servables.statuses(request.model_spec):
        entry = response.model_version_status.add(version=version.version, state=version.state)
        # OK without a text is how a message without content reads; but it has to be there.
        entry.status.SetInParent()
        # TensorFlow's error codes are gRPC's.
        entry.status.error_code = version.code.value[0]
        entry.status.error_message = version.message
    return response
