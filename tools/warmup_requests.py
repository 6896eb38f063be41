"""The warm-up file of a version folder: a TFRecord of PredictionLog that TensorFlow Serving replays at the load."""

import struct
from pathlib import Path

# The one place and name that TensorFlow Serving looks at (tensorflow_serving/servables/tensorflow/saved_model_warmup).
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")


def record(size: tuple[int, int], input_name: str, model: str) -> bytes:
    """A PredictionLog, serialised: one request for `serving_default` with a grey picture of `size` (height, width)."""
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(name=model, signature_name="serving_default"),
        # One number for all of them, as a TensorProto may have it.
        inputs={input_name: tf.make_tensor_proto(0.0, tf.float32, [1, *size, 3])},
    )
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    return bytes(log.SerializeToString())


def write_warmup(folder: Path, size: tuple[int, int], input_name: str, model: str) -> Path:
    """Writes the warm-up file of one grey picture of `size` (height, width) into the version `folder`."""
    import google_crc32c

    def checksum(data: bytes) -> bytes:
        crc: int = google_crc32c.value(data)
        # Rotated and shifted, as TFRecord stores every CRC-32C.
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    data = record(size, input_name, model)
    length = struct.pack("<Q", len(data))
    target = folder / WARMUP_FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(length + checksum(length) + data + checksum(data))
    return target
