"""Compares a model server's answers with TensorFlow in this process, through the standard client.

    python -m tools.evaluation.compare_with_tensorflow --server localhost:8500 --photos FOLDER

The client is what TensorFlow users have: full TensorFlow, `tf.make_tensor_proto` and `tf.make_ndarray`, and the stubs
of `tensorflow-serving-api`. It calls `serving_default` and, if the model has it, `pixels`. TensorFlow's answers by both
signatures are compared too. The exit status is 1 if an output differs by more than `--tolerance`. Two float32 runtimes
differ by 1e-6. In a network rounded to 8 bits, the last bit of a sum can decide between two steps, and later layers
amplify this difference.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tqdm import tqdm

from tools.evaluation.photos import SUFFIXES
from tools.service import PROJECT, Config, decode_image, normalise, read_config, to_pixels
from tools.training.export import ATTENTION_NAME, DEFAULT_SIGNATURE, PIXELS_SIGNATURE

Outputs = Mapping[str, NDArray[Any]]

# Tolerance between one runtime's answers by the two signatures: it computes the same from the same numbers.
SAME = 1e-6
SMALLEST = 1e-6


class Comparison:
    """One signature: the server's answers and TensorFlow's own, and their differences for each photo."""

    def __init__(self, name: str, local: Any, stub: Any, model: str) -> None:
        self.name = name
        self.differences: list[float] = []
        self._local, self._stub, self._model = local, stub, model
        (self._input,) = local.structured_input_signature[1]

    def ask(self, batch: NDArray[Any]) -> Outputs:
        """Call both, record the difference, and return TensorFlow's own answer."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        request.model_spec.signature_name = self.name
        request.inputs[self._input].CopyFrom(tf.make_tensor_proto(batch))
        answer = self._stub.Predict(request, timeout=10).outputs
        expected = {name: values.numpy() for name, values in self._local(**{self._input: tf.constant(batch)}).items()}
        self.differences.append(
            largest_difference({name: tf.make_ndarray(answer[name]) for name in expected}, expected)
        )
        return expected


def largest_difference(one: Outputs, other: Outputs) -> float:
    """Return the largest absolute difference over all outputs; of the attention, as a share of its maximum."""
    return max(
        float(np.abs(one[name] - values).max() / (max(values.max(), SMALLEST) if name == ATTENTION_NAME else 1))
        for name, values in other.items()
    )


def inputs(path: Path, config: Config) -> dict[str, NDArray[Any]]:
    """Return a photo as both signatures expect it: float32 and uint8, [1, height, width, 3]."""
    image = decode_image(path.read_bytes(), config.limits.pixels, config.picture)
    pixels = to_pixels(image, config.picture)
    return {
        DEFAULT_SIGNATURE: normalise(pixels, config.picture)[np.newaxis],
        PIXELS_SIGNATURE: pixels[np.newaxis],
    }


def compare(comparisons: Sequence[Comparison], paths: Sequence[Path], config: Config) -> list[float]:
    """Compare all photos; return for each the difference between TensorFlow's answers by the two signatures."""
    apart = []
    for path in tqdm(paths, unit="photo"):
        batches = inputs(path, config)
        answers = [comparison.ask(batches[comparison.name]) for comparison in comparisons]
        apart.append(largest_difference(answers[0], answers[-1]))
    return apart


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="localhost:8500", help="host:port of its gRPC API")
    parser.add_argument("--model", type=Path, default=PROJECT / "prev_trained_models" / "CAT-DOG")
    parser.add_argument("--photos", type=Path, default=PROJECT / "images", help="a folder with photos, at any depth")
    parser.add_argument("--count", type=int, default=100, help="maximum number of photos, evenly spread")
    parser.add_argument("--tolerance", type=float, default=0.2, help="default: %(default)s; 1e-4 for float32")
    options = parser.parse_args()
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{options.photos} holds no photos")
    options.paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    return options


def main() -> int:
    """Return 0, or 1 if answers differ by more than the tolerance."""
    options = parse_arguments()
    config = read_config(None)
    version = max(int(folder.name) for folder in options.model.iterdir() if folder.name.isdecimal())
    signatures = tf.saved_model.load(str(options.model / str(version))).signatures
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(options.server))
    comparisons = [
        Comparison(name, signatures[name], stub, config.service.experiment_id)
        for name in (DEFAULT_SIGNATURE, PIXELS_SIGNATURE)
        if name in signatures
    ]
    apart = max(compare(comparisons, options.paths, config))
    for comparison in comparisons:
        middle, most, worst = np.percentile(comparison.differences, [50, 99, 100])
        print(
            f"{comparison.name}: {len(options.paths)} photos: outputs differ by {middle:.1e} in the median, "
            f"{most:.1e} at the 99th percentile, {worst:.1e} at most"
        )
    if len(comparisons) > 1:
        print(f"TensorFlow's own answers by the two signatures differ by {apart:.1e} at most")
    worst = max(max(comparison.differences) for comparison in comparisons)
    return int(worst > options.tolerance or apart > SAME)


if __name__ == "__main__":
    sys.exit(main())
