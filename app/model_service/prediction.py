"""The calls of both faces, without either: request message in, response message out, ServingError where refused.

The checks come in TensorFlow Serving's order and with its texts. One it doesn't have: the dtype and shape of every
input are compared with the signature before anything runs, so that the text can say what was expected.
"""

from collections.abc import Mapping, Sequence

from failures import failed_precondition, invalid_argument
from saved_model import Signature, TensorSpec
from servables import Servable, Servables
from tensorflow_messages import get_model_metadata_pb2, get_model_status_pb2, predict_pb2, tensor_pb2
from tensors import KINDS, Array, to_array, to_tensor


def predict(servables: Servables, request: predict_pb2.PredictRequest, max_bytes: int) -> predict_pb2.PredictResponse:
    """Answer PredictionService.Predict; no input may take more than `max_bytes` of memory."""
    _check_has_spec(request)
    with servables.use(request.model_spec) as servable:
        return _predict(servable, request, max_bytes)


def _predict(servable: Servable, request: predict_pb2.PredictRequest, max_bytes: int) -> predict_pb2.PredictResponse:
    signature = servable.signature(request.model_spec.signature_name)
    if signature is None:
        raise failed_precondition(f'Serving signature key "{request.model_spec.signature_name}" not found.')
    _check_aliases(signature, request.inputs.keys())
    inputs = _arrays(request.inputs, max_bytes)
    outputs = _requested_outputs(signature, request.output_filter)
    results = run(servable, signature, inputs, outputs)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = signature.name
    for alias, array in results.items():
        response.outputs[alias].CopyFrom(to_tensor(array, signature.outputs[alias].dtype))
    return response


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
        _check_tensor(complete[alias], spec)
    return servable.engines[signature.name].run(complete, outputs)


def metadata(
    servables: Servables, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answer PredictionService.GetModelMetadata: every signature of the model, as it was exported."""
    _check_has_spec(request)
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
    _check_has_spec(request)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in servables.statuses(request.model_spec):
        entry = response.model_version_status.add(version=version.version, state=version.state)
        # OK without a text is how a message without content reads; but it has to be there.
        entry.status.SetInParent()
        # TensorFlow's error codes are gRPC's.
        entry.status.error_code = version.code.value[0]
        entry.status.error_message = version.message
    return response


def _check_has_spec(
    request: predict_pb2.PredictRequest
    | get_model_metadata_pb2.GetModelMetadataRequest
    | get_model_status_pb2.GetModelStatusRequest,
) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _check_aliases(signature: Signature, sent: Sequence[str]) -> None:
    """Raise ServingError unless the inputs sent are the signature's, all but those that have a default."""
    extra = sorted(set(sent) - signature.inputs.keys())
    missing = sorted(signature.inputs.keys() - set(sent) - signature.defaults.keys())
    if len(sent) > len(signature.inputs) or len(sent) < len(signature.inputs) - len(signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(signature.inputs)} "
            f"len({_names(sent)}) != len({_names(signature.inputs)}). "
            f"Sent extra: {_names(extra)}. Missing but required: {_names(missing)}."
        )
    if missing:
        feed = signature.inputs[missing[0]].name
        raise invalid_argument(
            f"Signature input alias: {missing[0]}(feed name: {feed}) not found in request and no default value "
            f"provided. Inputs expected to be in the request {_names(sent)}, or default input alias set: "
            f"{','.join(sorted(signature.defaults))}"
        )
    if extra:
        raise invalid_argument(
            f"input tensor alias not found in signature: {extra[0]}. "
            f"Inputs expected to be in the set {_names(signature.inputs)}."
        )


def _arrays(tensors: Mapping[str, tensor_pb2.TensorProto], max_bytes: int) -> dict[str, Array]:
    arrays = {}
    for alias in sorted(tensors):
        try:
            arrays[alias] = to_array(tensors[alias], max_bytes)
        except ValueError as exc:
            raise invalid_argument(f"tensor parsing error: {alias}") from exc
    return arrays


def _requested_outputs(signature: Signature, output_filter: Sequence[str]) -> list[str]:
    wanted: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {_names(signature.outputs)}."
            )
        if alias in wanted:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        wanted.append(alias)
    return wanted or list(signature.outputs)


def _check_tensor(array: Array, spec: TensorSpec) -> None:
    expected = KINDS[spec.dtype]
    if array.dtype != expected.dtype:
        sent = next(kind.name for kind in KINDS.values() if kind.dtype == array.dtype)
        raise invalid_argument(f"Expects input {spec.alias} to be {expected.name} but {sent} is provided")
    if not spec.accepts(array.shape):
        raise invalid_argument(
            f"Expects input {spec.alias} to have shape {_shape(spec.shape)} but {_shape(array.shape)} is provided"
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return f"[{','.join('?' if size < 0 else str(size) for size in shape or ())}]"


def _names(names: Sequence[str] | Mapping[str, object]) -> str:
    return f"{{{','.join(sorted(names))}}}"
