"""Checks a request before it is computed. The texts are TensorFlow Serving's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np

from model_service.errors import ServingError, invalid_argument
from model_service.models.saved_model import SavedModel, Signature, TensorSpec
from model_service.models.tensors import KINDS, Array, Unread, size_of
from model_service.models.tensors import read as read_tensor
from serving_common.tensorflow_protos import model_pb2, tensor_pb2

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress"))


@dataclass(frozen=True)
class Options:
    """How requests are checked and answered. Inputs and outputs may take `max_bytes` of memory each.

    With `check_method_names`, a signature's `method_name` must fit the method. With `as_content`, tensors are sent as
    `tensor_content`.
    """

    max_bytes: int
    check_method_names: bool = False
    as_content: bool = False


def check_has_spec(request: Any) -> None:
    """Raise ServingError unless the request, one with a `model_spec`, names a model."""
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def specs_of(message: Any) -> list[model_pb2.ModelSpec]:
    """Return the ModelSpecs of a request or an answer. Those of MultiInference have any number of them."""
    name = {"MultiInferenceRequest": "tasks", "MultiInferenceResponse": "results"}.get(message.DESCRIPTOR.name)
    return [one.model_spec for one in (getattr(message, name) if name else [message])]


def check_method(model: SavedModel, signature: Signature, options: Options) -> None:
    """Raise ServingError unless Predict may call the signature (`--enable_signature_method_name_check`)."""
    method = model.signature_defs.signature_def[signature.name].method_name if options.check_method_names else PREDICT
    allowed = (PREDICT, CLASSIFY, REGRESS)
    if method not in allowed:
        text = f"Expected prediction signature method_name to be one of {{{', '.join(allowed)}}}. Was: {method}"
        raise ServingError(grpc.StatusCode.INTERNAL, text)


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


def to_arrays(unread: Mapping[str, Unread]) -> dict[str, Array]:
    """Return the tensors as arrays; raises ServingError for a shape that numpy can't have, as with 65 dimensions."""
    arrays: dict[str, Array] = {}
    for alias, tensor in unread.items():
        try:
            arrays[alias] = tensor.to_array()
        except ValueError as exc:
            raise invalid_argument(f"tensor parsing error: {alias}") from exc
    return arrays


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


def check_dtype(dtype: np.dtype[Any], spec: TensorSpec) -> None:
    """Raise ServingError unless an input has the signature's dtype. Its shape is the engine's matter."""
    expected = KINDS[spec.dtype]
    if dtype != expected.dtype:
        sent = next(kind.name for kind in KINDS.values() if kind.dtype == dtype)
        raise invalid_argument(f"Expects input {spec.alias} to be {expected.name} but {sent} is provided")


def _names(names: Sequence[str] | Mapping[str, object]) -> str:
    return f"{{{','.join(sorted(names))}}}"
