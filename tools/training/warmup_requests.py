"""The warm-up file of a version folder: a TFRecord of PredictionLog that TensorFlow Serving replays at the load."""

import struct
from pathlib import Path
from typing import Any

# The one place and name that TensorFlow Serving looks at (tensorflow_serving/servables/tensorflow/saved_model_warmup).
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")

# As a pixel of 0 to 255, and as what most recipes make of that, or nearly.
GREY_PIXEL = 127
GREY = 0.0


def record(signature_name: str, signature: Any, model: str) -> bytes:
    """A PredictionLog, serialised: one request for the SignatureDef `signature` with one grey picture."""
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    ((name, info),) = signature.inputs.items()
    dtype = tf.as_dtype(info.dtype)
    shape = [1, *(dimension.size for dimension in info.tensor_shape.dim[1:])]
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name=model, signature_name=signature_name),
        # One number for all of them, as a TensorProto may have it.
        inputs={name: tf.make_tensor_proto(GREY_PIXEL if dtype.is_integer else GREY, dtype, shape)},
    )
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    return bytes(log.SerializeToString())


def write_warmup(folder: Path, signature_name: str, signature: Any, model: str) -> Path:
    """Writes into the version `folder` the warm-up file of one grey picture for the SignatureDef `signature`.

    Its one input is uint8 or float32, [batch, height, width, 3].
    """
    import google_crc32c

    def checksum(data: bytes) -> bytes:
        crc: int = google_crc32c.value(data)
        # Rotated and shifted, as TFRecord stores every CRC-32C.
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    data = record(signature_name, signature, model)
    length = struct.pack("<Q", len(data))
    target = folder / WARMUP_FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(length + checksum(length) + data + checksum(data))
    return target
