"""The methods of both APIs, independent of gRPC and HTTP: request message in, response message out, or a ServingError.

The checks have TensorFlow Serving's order and texts. One check is additional: the dtype of every input is compared with
the signature before the computation, so that the error can say what was expected.
"""

from collections.abc import Mapping, Sequence

from model_service.errors import failed_precondition, invalid_argument, resource_exhausted
from model_service.models import tensors
from model_service.models.saved_model import Signature
from model_service.models.servables import Servable, Servables
from model_service.models.tensors import Array, to_tensor
from model_service.prediction import validation
from serving_common.tensorflow_protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2


def predict(
    servables: Servables, request: predict_pb2.PredictRequest, options: validation.Options
) -> predict_pb2.PredictResponse:
    """Answer PredictionService.Predict. Raises ServingError."""
    validation.check_has_spec(request)
    with servables.use(request.model_spec) as servable:
        signature = servable.signature(request.model_spec.signature_name)
        if signature is None:
            raise failed_precondition(f'Serving signature key "{request.model_spec.signature_name}" not found.')
        validation.check_method(servable.model, signature, options)
        validation.check_aliases(signature, request.inputs.keys())
        unread = validation.read_tensors(request.inputs, options.max_bytes)
        outputs = validation.requested_outputs(signature, request.output_filter)
        for alias, tensor in unread.items():
            validation.check_dtype(tensor.kind.dtype, signature.inputs[alias])
        inputs = validation.to_arrays(unread)
        results = servable.engines[signature.name].run({**signature.defaults, **inputs}, outputs)
        return _response(servable, signature, results, options)


def _response(
    servable: Servable, signature: Signature, results: Mapping[str, Array], options: validation.Options
) -> predict_pb2.PredictResponse:
    check_size(results, options.max_bytes)
    response = predict_pb2.PredictResponse(model_spec=servable.spec(signature.name))
    for alias, array in results.items():
        response.outputs[alias].CopyFrom(to_tensor(array, signature.outputs[alias].dtype, options.as_content))
    return response


def check_size(results: Mapping[str, Array], max_bytes: int) -> None:
    """Raise ServingError where the outputs take more than `max_bytes`; one long string may stand in them many times."""
    size = sum(map(tensors.bytes_of, results.values()))
    if size > max_bytes:
        raise resource_exhausted(f"The outputs take {size} bytes, more than {max_bytes} (--max_message_bytes)")


def size_of(request: predict_pb2.PredictRequest, most: int) -> int:
    """Return the size of all inputs as arrays, in bytes, at most `most`: larger requests are rejected later."""
    try:
        return min(sum(map(tensors.size_of, request.inputs.values())), most)
    except ValueError:
        return 0


def batch_size(request: predict_pb2.PredictRequest) -> int | None:
    """Return the first dimension of the first input, usually the number of examples; None if it has no dimension."""
    for alias in sorted(request.inputs)[:1]:
        for dimension in request.inputs[alias].tensor_shape.dim[:1]:
            size: int = dimension.size
            return size
    return None


def run(
    servable: Servable, signature: Signature, inputs: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Return `outputs` as arrays, by alias. The signature's defaults replace missing inputs. Raises ServingError."""
    complete = {**signature.defaults, **inputs}
    for alias, spec in signature.inputs.items():
        validation.check_dtype(complete[alias].dtype, spec)
    return servable.engines[signature.name].run(complete, outputs)


def metadata(
    servables: Servables, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answer PredictionService.GetModelMetadata with all signatures of the model, as they were exported."""
    validation.check_has_spec(request)
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid_argument(f"Metadata field {field} is not supported")
    servable = servables.find(request.model_spec)
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=servable.spec())
    response.metadata["signature_def"].Pack(servable.model.signature_defs)
    return response


def status(
    servables: Servables, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """Answer ModelService.GetModelStatus with every version that is or was served, newest first."""
    validation.check_has_spec(request)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in servables.statuses(request.model_spec):
        entry = response.model_version_status.add(version=version.version, state=version.state)
        # An empty status message means OK, but the field must be present.
        entry.status.SetInParent()
        # TensorFlow's error codes are the same as gRPC's.
        entry.status.error_code = version.code.value[0]
        entry.status.error_message = version.message
    return response
