"""Builds a serialized PredictRequest. Building it with protobuf for each picture would copy the pixels four times."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app.serving_client.signature import Signature
from serving_common.tensorflow_protos import predict_pb2, types_pb2

_PLACEHOLDER = b"where the pictures' numbers go"


class PredictRequestTemplate:
    """The bytes before and after the pixels in a serialized request. They are the same for every batch of one shape.

    Args:
        model: the model's name on the model server.
        signature: the signature to run, with the names of its input and outputs.
        shape: the shape of the whole batch, ``[batch, height, width, 3]``.
        version: the version that must answer; None: the newest.
    """

    def __init__(self, model: str, signature: Signature, shape: tuple[int, ...], version: int | None = None) -> None:
        self._dtype = signature.dtype
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        request.model_spec.signature_name = signature.name
        request.output_filter.extend(signature.outputs)
        message = request.inputs[signature.input_name]
        message.dtype = types_pb2.DT_UINT8 if signature.accepts_uint8 else types_pb2.DT_FLOAT
        for size in shape:
            message.tensor_shape.dim.add(size=size)
        # A placeholder of the same length as the pixels. Its bytes occur nowhere else in the request.
        size = self._dtype.itemsize * math.prod(shape)
        message.tensor_content = _PLACEHOLDER[:size].ljust(size, b"\0")
        self._before, _, self._after = request.SerializeToString().partition(message.tensor_content)

    def render(self, pictures: Sequence[NDArray[Any]]) -> bytes:
        """Return the serialized request.

        Args:
            pictures: as many as the shape has, each ``[height, width, 3]`` with the signature's dtype.
        """
        numbers = (np.ascontiguousarray(picture, self._dtype).data.cast("B") for picture in pictures)
        return b"".join((self._before, *numbers, self._after))
