"""Checks a request before it is computed. The texts are TensorFlow Serving's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_service.errors import invalid_argument
from model_service.models.saved_model import Signature, TensorSpec
from model_service.models.tensors import KINDS, Unread, size_of
from model_service.models.tensors import read as read_tensor
from serving_common.tensorflow_protos import get_model_metadata_pb2, get_model_status_pb2, predict_pb2, tensor_pb2


def check_has_spec(
    request: predict_pb2.PredictRequest
    | get_model_metadata_pb2.GetModelMetadataRequest
    | get_model_status_pb2.GetModelStatusRequest,
) -> None:
    """Raise ServingError unless the request names a model."""
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def check_aliases(signature: Signature, sent: Sequence[str]) -> None:
    """Raise ServingError unless `sent` are the inputs of the signature. Inputs with a default may be missing."""
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


def read_tensors(tensors: Mapping[str, tensor_pb2.TensorProto], max_bytes: int) -> dict[str, Unread]:
    """Return the checked tensors by alias; they are not converted to arrays yet.

    Raises ServingError for an invalid tensor, and if all arrays together would take more than `max_bytes`. A tensor may
    omit its values, so a few bytes can request any amount of memory.
    """
    read: dict[str, Unread] = {}
    size = 0
    for alias in sorted(tensors):
        try:
            size += size_of(tensors[alias])
            if size > max_bytes:
                raise invalid_argument(f"The inputs take more than {max_bytes} bytes of memory (--max_message_bytes)")
            read[alias] = read_tensor(tensors[alias])
        except ValueError as exc:
            raise invalid_argument(f"tensor parsing error: {alias}") from exc
    return read


def requested_outputs(signature: Signature, output_filter: Sequence[str]) -> list[str]:
    """Return the requested outputs, or all if none is requested; raises ServingError for a wrong name."""
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


def check_tensor(dtype: np.dtype[Any], shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Raise ServingError unless dtype and shape of an input match the signature."""
    expected = KINDS[spec.dtype]
    if dtype != expected.dtype:
        sent = next(kind.name for kind in KINDS.values() if kind.dtype == dtype)
        raise invalid_argument(f"Expects input {spec.alias} to be {expected.name} but {sent} is provided")
    if not spec.accepts(shape):
        raise invalid_argument(
            f"Expects input {spec.alias} to have shape {_shape(spec.shape)} but {_shape(shape)} is provided"
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return f"[{','.join('?' if size < 0 else str(size) for size in shape or ())}]"


def _names(names: Sequence[str] | Mapping[str, object]) -> str:
    return f"{{{','.join(sorted(names))}}}"
