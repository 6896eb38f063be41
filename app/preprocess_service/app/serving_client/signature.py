"""Chooses the signature of a model to call, from the model's metadata."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess_service.app.config import Config
from preprocess_service.app.errors import ModelError
from preprocess_service.app.recipe import Recipe
from serving_common.tensorflow_protos import DecodeError, get_model_metadata_pb2, types_pb2

logger = logging.getLogger(__name__)

DEFAULT = "serving_default"
# A signature that takes uint8 pixels and scales them in the model. A request has a quarter of the bytes, and the
# scaling is the same as in training.
PIXELS = "pixels"
# The output that says how certain the model is that the photo shows something that it knows.
DOMAIN = "domain_score"
# The output that says where the model sees what it knows: [batch, height, width], values of 0 and more.
ATTENTION = "attention"
# An attention with more places is not asked for: it would be larger than the pixels.
MOST_PLACES = 128 * 128
# How many names a message lists at most.
_NAMES_TOLD = 10


@dataclass(frozen=True)
class Signature:
    """A signature with the names of its one input and of its outputs.

    Attributes:
        attention_output_name: None if the model has no such output, or one that can't be read.
        accepts_uint8: whether the input is uint8 pixels; otherwise it is float32, scaled by the recipe.
        accepts_batches: whether one call may have several photos.
    """

    input_name: str
    output_name: str
    domain_output_name: str | None = None
    name: str = DEFAULT
    accepts_uint8: bool = False
    accepts_batches: bool = True
    attention_output_name: str | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the input's values in a request."""
        return np.dtype("u1" if self.accepts_uint8 else "<f4")

    @property
    def outputs(self) -> list[str]:
        return [name for name in (self.output_name, self.domain_output_name, self.attention_output_name) if name]


def read_definitions(response: get_model_metadata_pb2.GetModelMetadataResponse) -> Mapping[str, Any]:
    """Return a model's signatures by name.

    Raises:
        ModelError: they can't be parsed.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    try:
        response.metadata["signature_def"].Unpack(signatures)
    except DecodeError as exc:
        raise model_error("model_unreadable") from exc
    definitions: Mapping[str, Any] = signatures.signature_def
    return definitions


def choose_signature(definitions: Mapping[str, Any], recipe: Recipe, config: Config) -> Signature:
    """Return the signature that the settings name. By default: ``pixels`` if the model has it, else the default one.

    Raises:
        ModelError: this service can't call the signature, or it does not fit the recipe; the message says why.
    """
    name = config.signature_name or (PIXELS if PIXELS in definitions else DEFAULT)
    if name not in definitions:
        raise model_error("model_signature", name=name, found=_listed(definitions))
    definition = definitions[name]
    input_name = config.model_input_name or _only(definition.inputs, "model_inputs")
    others = {alias: info for alias, info in definition.outputs.items() if alias not in (DOMAIN, ATTENTION)}
    output_name = config.model_output_name or _only(others, "model_outputs")
    for wanted, there, message in (
        (input_name, definition.inputs, "model_no_input"),
        (output_name, definition.outputs, "model_no_output"),
    ):
        if wanted not in there:
            raise model_error(message, name=wanted, signature=name, found=_listed(there))
    image = definition.inputs[input_name]
    if image.dtype not in (types_pb2.DT_FLOAT, types_pb2.DT_UINT8):
        raise model_error("model_input_type", name=input_name, type=types_pb2.DataType.Name(image.dtype)[3:].lower())
    _check_input(image.tensor_shape, recipe)
    _check_output(definition.outputs[output_name].tensor_shape, recipe)
    return Signature(
        input_name,
        output_name,
        DOMAIN if DOMAIN in definition.outputs and output_name != DOMAIN else None,
        name,
        accepts_uint8=image.dtype == types_pb2.DT_UINT8,
        # An unknown size is -1. If nothing is known about the tensor, its shape has no dimension.
        accepts_batches=not any(dimension.size > 0 for dimension in image.tensor_shape.dim[:1]),
        attention_output_name=_attention(definition.outputs, output_name, recipe),
    )


def _check_input(shape: Any, recipe: Recipe) -> None:
    geometry = recipe.preprocessor_config.geometry()
    made = (1, geometry.height, geometry.width, 3)
    found = [dimension.size for dimension in shape.dim]
    if found and not _agrees(found, made):
        raise model_error("model_input_shape", takes=_shape(found), makes=_shape([-1, *made[1:]]))


def _check_output(shape: Any, recipe: Recipe) -> None:
    sizes = [dimension.size for dimension in shape.dim]
    if len(sizes) > 1 and sizes[-1] >= 0:
        check_count(sizes[-1], len(recipe.labels))


def _attention(outputs: Mapping[str, Any], output_name: str, recipe: Recipe) -> str | None:
    """Return ``ATTENTION`` if the model has this output as float32 ``[batch, height, width]``, else None."""
    has_it = ATTENTION in outputs and output_name != ATTENTION
    if has_it:
        output = outputs[ATTENTION]
        sizes = [dimension.size for dimension in output.tensor_shape.dim]
        # An unknown size is -1; without a dimension, nothing is known about the shape.
        if output.dtype == types_pb2.DT_FLOAT and (not sizes or (len(sizes) == 3 and _places(sizes) <= MOST_PLACES)):
            return ATTENTION
        kind = types_pb2.DataType.Name(output.dtype)[3:].lower()
        logger.warning(
            "the model's output attention is not used: it is %s %s, but float32 [batch, height, width] with at most %d "
            "places is expected",
            kind,
            _shape(sizes),
            MOST_PLACES,
        )
    elif recipe.preprocessor_config.second_look is not None:
        logger.warning("second_look in the model's recipe has no effect: the model has no output attention")
    return None


def _places(sizes: list[int]) -> int:
    return max(1, sizes[1]) * max(1, sizes[2])


def check_count(values: int, labels: int) -> None:
    """Raise a ModelError unless the model gives one value for each label."""
    if values == 1:
        raise model_error("model_one_value", labels=labels)
    if values != labels:
        raise model_error("model_labels", values=values, labels=labels)


def _agrees(found: list[int], made: tuple[int, ...]) -> bool:
    return len(found) == len(made) and all(size in (-1, want) for size, want in zip(found, made, strict=True))


def _shape(sizes: list[int]) -> str:
    return f"[{', '.join('?' if size < 0 else str(size) for size in sizes)}]"


def _only(infos: Mapping[str, Any], message: str) -> str:
    if len(infos) != 1:
        raise model_error(message, count=len(infos), found=_listed(infos))
    return next(iter(infos))


def _listed(names: Mapping[str, Any]) -> str:
    found = sorted(names)
    return ", ".join(found[:_NAMES_TOLD]) + (", ..." if len(found) > _NAMES_TOLD else "") if found else "-"


def model_error(message: str, **values: object) -> ModelError:
    """Return a ModelError, and log it: the operator has to fix the cause."""
    error = ModelError(message, **values)
    logger.error("model server: %s", error)
    return error
