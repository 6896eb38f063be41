"""Writes a version folder's warm-up file: a TFRecord of PredictionLog, which TensorFlow Serving replays at the load."""

import struct
from pathlib import Path
from typing import Any

# The path where TensorFlow Serving looks for it (tensorflow_serving/servables/tensorflow/saved_model_warmup).
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")

# Grey as a pixel of 0 to 255, and approximately as most recipes scale it.
GREY_PIXEL = 127
GREY = 0.0


def record(signature_name: str, signature: Any, model: str) -> bytes:
    """Return a serialized PredictionLog: one request with one grey picture for the SignatureDef `signature`."""
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    ((name, info),) = signature.inputs.items()
    dtype = tf.as_dtype(info.dtype)
    shape = [1, *(dimension.size for dimension in info.tensor_shape.dim[1:])]
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name=model, signature_name=signature_name),
        # A TensorProto may have one value for all elements.
        inputs={name: tf.make_tensor_proto(GREY_PIXEL if dtype.is_integer else GREY, dtype, shape)},
    )
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    return bytes(log.SerializeToString())


def write_warmup(folder: Path, signature_name: str, signature: Any, model: str) -> Path:
    """Write the warm-up file into the version `folder`: one grey picture for the SignatureDef `signature`.

    The signature has one input, uint8 or float32, [batch, height, width, 3].
    """
    import google_crc32c

    def checksum(data: bytes) -> bytes:
        crc: int = google_crc32c.value(data)
        # The masked CRC-32C of TFRecord.
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    data = record(signature_name, signature, model)
    length = struct.pack("<Q", len(data))
    target = folder / WARMUP_FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(length + checksum(length) + data + checksum(data))
    return target
