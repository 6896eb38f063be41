"""Which of a model's signatures is called, and how: chosen from what the model server says of them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess_service.app.config import Config
from preprocess_service.app.errors import ModelError
from serving_common.tensorflow_protos import DecodeError, get_model_metadata_pb2, types_pb2

logger = logging.getLogger(__name__)

DEFAULT = "serving_default"
# Takes a photo's pixels as they are, and brings them to the numbers that its network wants by itself: a quarter of the
# bytes on the way, and nothing that could differ from how the model was trained.
PIXELS = "pixels"


@dataclass(frozen=True)
class Signature:
    """A signature, and the names under which it takes its one input and gives its outputs.

    ``accepts_uint8``: as uint8, else as float32 made by the recipe in the settings. ``accepts_batches``: several photos
    in one call.
    """

    input_name: str
    output_name: str
    domain_output_name: str | None = None
    name: str = DEFAULT
    accepts_uint8: bool = False
    accepts_batches: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers that it takes, as they travel."""
        return np.dtype("u1" if self.accepts_uint8 else "<f4")

    @property
    def outputs(self) -> list[str]:
        return [name for name in (self.output_name, self.domain_output_name) if name]


def from_config(config: Config) -> Signature | None:
    """The signature, where the settings name its input and its output; None where the model server is to be asked."""
    input_name, output_name = config.model_input_name, config.model_output_name
    if input_name is None or output_name is None:
        return None
    name = config.signature_name or DEFAULT
    return Signature(input_name, output_name, config.domain_output_name, name, accepts_uint8=name == PIXELS)


def from_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse, config: Config) -> Signature:
    """The signature that the settings name, or else the best that the model has.

    Raises:
        ModelError: there is none that this service can call; its log says why.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    try:
        response.metadata["signature_def"].Unpack(signatures)
    except DecodeError as exc:
        raise model_error("the signatures can't be read: %s", exc) from exc
    definitions = signatures.signature_def
    name = config.signature_name or (PIXELS if PIXELS in definitions else DEFAULT)
    if name not in definitions:
        raise model_error("the model has no signature %r", name)
    definition = definitions[name]
    input_name = config.model_input_name or _only(definition.inputs, "input")
    if input_name not in definition.inputs:
        raise model_error("the signature %r has no input %r", name, input_name)
    image = definition.inputs[input_name]
    if image.dtype not in (types_pb2.DT_FLOAT, types_pb2.DT_UINT8):
        raise model_error("the input %r is neither float32 nor uint8, but of type %d", input_name, image.dtype)
    others = {alias for alias in definition.outputs if alias != config.domain_output_name}
    return Signature(
        input_name,
        config.model_output_name or _only(others, "output"),
        config.domain_output_name,
        name,
        accepts_uint8=image.dtype == types_pb2.DT_UINT8,
        # An unknown size is -1, and the shape of a tensor of which nothing is known has no dimension.
        accepts_batches=not any(dimension.size > 0 for dimension in image.tensor_shape.dim[:1]),
    )


def _only(aliases: Mapping[str, Any] | set[str], kind: str) -> str:
    if len(aliases) != 1:
        found = ", ".join(sorted(aliases)) or "none"
        raise model_error("the model has %d %ss (%s); name one in config.yaml", len(aliases), kind, found)
    return next(iter(aliases))


def model_error(reason: str, *values: object) -> ModelError:
    """A ModelError whose reason goes to the log; the sender can't do anything with it."""
    logger.error("model server: " + reason, *values)
    return ModelError()
