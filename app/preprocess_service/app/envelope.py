"""A PredictRequest as the bytes that travel: protobuf, asked for each picture, would copy the numbers four times."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from serving_messages import DT_FLOAT, PredictRequest

_PLACEHOLDER = b"where a picture's numbers go"


class Envelope:
    """What stands before and after the numbers of one picture in the bytes of a request; the same for every picture.

    Args:
        model: the model's name on the model server.
        signature_name: of its signatures, the one to run.
        input_name: the signature's only input.
        outputs: names of those to be answered.
        shape: of each picture's tensor, ``[height, width, 3]``; it travels as a batch of one.
    """

    def __init__(
        self, model: str, signature_name: str, input_name: str, outputs: Sequence[str], shape: tuple[int, ...]
    ) -> None:
        request = PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature_name
        request.output_filter.extend(outputs)
        message = request.inputs[input_name]
        message.dtype = DT_FLOAT
        for size in (1, *shape):
            message.tensor_shape.dim.add(size=size)
        # As many bytes as the numbers take, and such as stand nowhere else.
        size = 4 * math.prod(shape)
        message.tensor_content = _PLACEHOLDER[:size].ljust(size, b"\0")
        self._before, _, self._after = request.SerializeToString().partition(message.tensor_content)

    def around(self, tensor: NDArray[np.float32]) -> bytes:
        """The whole request for ``tensor``, float32 of this envelope's shape."""
        return b"".join((self._before, np.ascontiguousarray(tensor, "<f4").data.cast("B"), self._after))
