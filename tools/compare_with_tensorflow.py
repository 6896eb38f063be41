"""Asks a model server the way any TensorFlow user does, and compares with TensorFlow in this process.

    python tools/compare_with_tensorflow.py --server localhost:8500 --photos FOLDER

The client is the stock one: full TensorFlow, `tf.make_tensor_proto` and `tf.make_ndarray`, the stubs of
`tensorflow-serving-api`. Exits with 1 where an output differs by more than `--tolerance`. In float32 two runtimes
differ by 1e-6; in a network rounded to 8 bits the last bit of a sum can decide between two steps, and what follows
magnifies it.
"""

import argparse
import sys
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from photos import SUFFIXES
from service import PROJECT, decode_image, read_config, to_tensor
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tqdm import tqdm

SIGNATURE = "serving_default"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="localhost:8500", help="host:port of its gRPC face")
    parser.add_argument("--model", type=Path, default=PROJECT / "prev_trained_models" / "CAT-DOG")
    parser.add_argument("--photos", type=Path, default=PROJECT / "images", help="a folder, searched for photos")
    parser.add_argument("--count", type=int, default=100, help="how many of them at most, evenly spread")
    parser.add_argument("--tolerance", type=float, default=0.2, help="default: %(default)s; 1e-4 for float32")
    options = parser.parse_args()
    config = read_config(None)
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{options.photos} holds no photos")
    paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    version = max(int(folder.name) for folder in options.model.iterdir() if folder.name.isdecimal())
    local = tf.saved_model.load(str(options.model / str(version))).signatures[SIGNATURE]
    remote = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(options.server))
    (input_name,) = local.structured_input_signature[1]
    differences = []
    for path in tqdm(paths, unit="photo"):
        image = decode_image(path.read_bytes(), config.limits.pixels, config.picture)
        tensor = to_tensor(image, config.picture)[np.newaxis]
        expected = local(**{input_name: tf.constant(tensor)})
        request = predict_pb2.PredictRequest()
        request.model_spec.name = config.experiment_id
        request.model_spec.signature_name = SIGNATURE
        request.inputs[input_name].CopyFrom(tf.make_tensor_proto(tensor))
        answer = remote.Predict(request, timeout=10).outputs
        pairs = [(tf.make_ndarray(answer[name]), values.numpy()) for name, values in expected.items()]
        differences.append(max(float(np.abs(found - wanted).max()) for found, wanted in pairs))
    middle, most, worst = np.percentile(differences, [50, 99, 100])
    print(
        f"{len(paths)} photos: outputs differ by {middle:.1e} in the median, {most:.1e} at the 99th percentile, ",
        end="",
    )
    print(f"{worst:.1e} at most")
    return int(worst > options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
