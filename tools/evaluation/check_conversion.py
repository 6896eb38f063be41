"""Compares the converted network with an independent implementation: efficientnet-lite-pytorch on PyTorch.

Both get the same float32 inputs: real photos, prepared as in the service, and then noise. The 1,000 ImageNet logits are
compared, for TensorFlow and for OpenVINO. PyTorch is in an environment of its own:

    python -m venv torch-environment
    torch-environment/bin/pip install torch efficientnet-lite-pytorch
    python -m tools.evaluation.check_conversion PHOTOS --torch-python torch-environment/bin/python
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.evaluation.photos import SUFFIXES
from tools.service import Config, ConfigError, ServiceError, decode_image, read_config, to_tensor
from tools.training.backbone.efficientnet_lite import (
    VARIANTS,
    Network,
    WeightsError,
    installed_weights,
    load_network,
    pooled_features,
)
from tools.training.export import ExportError, write_saved_model

Array = NDArray[np.float32]

# Two correct float32 programs differ only by rounding. Logits are about 10; there 1e-3 is 1,000 rounding steps.
TOLERANCE = 1e-3


class CheckError(Exception):
    """The comparison is not possible."""


@dataclass(frozen=True)
class Difference:
    """The comparison of one runtime with PyTorch."""

    runtime: str
    largest_difference: float
    largest_logit: float
    same_top_1_photos: int
    photos: int

    @property
    def passed(self) -> bool:
        """Whether all logits agree within TOLERANCE, and every photo has the same first class."""
        return self.largest_difference <= TOLERANCE and self.same_top_1_photos == self.photos


def read_inputs(folder: Path, config: Config, photos: int, noise: int, seed: int) -> Array:
    """Return float32 [photos + noise, height, width, 3]: photos of `folder` chosen by `seed`, then uniform noise."""
    picture = config.picture
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise CheckError(f"{folder}: no photos in it")
    random = np.random.default_rng(seed)
    chosen = [files[number] for number in random.permutation(len(files))[:photos]]
    tensors = [to_tensor(decode_image(path.read_bytes(), config.limits.pixels), picture) for path in chosen]
    noisy = random.uniform(-1, 1, (noise, *config.size, 3)).astype(np.float32)
    return np.concatenate([np.stack(tensors), noisy])


def torch_logits(python: Path, variant: str, weights: Path, inputs: Array, folder: Path) -> Array:
    """Return logits float32 [n, 1000] of torch_reference.py, run by the interpreter `python`; raises CheckError."""
    source, target = folder / "inputs.npy", folder / "reference.npz"
    np.save(source, inputs)
    script = Path(__file__).with_name("torch_reference.py")
    command = [str(python), str(script), variant, str(weights), str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        raise CheckError(f"{python}: {exc.strerror}") from exc
    if done.returncode:
        raise CheckError(f"{python}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    with np.load(target) as stored:
        return np.asarray(stored["logits"])


def write_imagenet_model(network: Network, size: tuple[int, int], target: Path) -> None:
    """Write a SavedModel that returns ImageNet's own 1,000 logits from the folded network."""
    import tensorflow as tf

    kernel, bias = network.classifier
    write_saved_model(
        target, size, lambda image: {"logits": pooled_features(network, image) @ kernel + tf.constant(bias)}
    )


def converted_logits(model: Path, inputs: Array) -> dict[str, Array]:
    """Return logits float32 [n, 1000] of the SavedModel `model`, by runtime."""
    import openvino
    import tensorflow as tf

    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(model), "CPU", settings)
    batches = np.array_split(inputs, max(1, len(inputs) // 16))
    return {
        "tensorflow": np.concatenate([signature(image=tf.constant(batch))["logits"].numpy() for batch in batches]),
        "openvino": np.concatenate([np.array(compiled([batch])["logits"]) for batch in batches]),
    }


def compare(runtime: str, logits: Array, reference: Array, photos: int) -> Difference:
    """Compare `logits` with `reference`, both [n, 1000]; the first `photos` of them are real photos."""
    same = logits[:photos].argmax(1) == reference[:photos].argmax(1)
    largest = float(np.abs(logits - reference).max())
    return Difference(runtime, largest, float(np.abs(reference).max()), int(same.sum()), photos)


def check(options: argparse.Namespace) -> list[Difference]:
    """Return one difference per runtime; raises CheckError and WeightsError."""
    variant = VARIANTS[options.variant]
    config = read_config(options.config)
    if options.size:
        config = config.with_picture(size={"width": options.size, "height": options.size})
    weights = options.weights or installed_weights(variant)
    inputs = read_inputs(options.photos, config, options.count, options.noise, options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_imagenet_model(load_network(variant, weights), inputs.shape[1:3], folder / "1")
        converted = converted_logits(folder / "1", inputs)
        reference = torch_logits(options.torch_python, options.variant, weights, inputs, folder)
    photos = len(inputs) - options.noise
    return [compare(runtime, logits, reference, photos) for runtime, logits in converted.items()]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder with photos, at any depth")
    parser.add_argument("--torch-python", type=Path, default=Path(sys.executable), help="interpreter that has PyTorch")
    parser.add_argument("--variant", choices=VARIANTS, default="lite2")
    parser.add_argument("--weights", type=Path, help="the .pth file (default: the installed package's)")
    parser.add_argument("--config", type=Path, help="preprocessor_config.json (default: how models are trained here)")
    parser.add_argument("--size", type=int, help="width and height in pixels (default: the recipe's)")
    parser.add_argument("--count", type=int, default=200, help="how many photos (default: %(default)s)")
    parser.add_argument("--noise", type=int, default=16, help="how many inputs of noise (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the result there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every runtime passes, 1 if one differs, 2 if the comparison is not possible."""
    options = parse_arguments(arguments)
    try:
        differences = check(options)
    except (CheckError, ConfigError, ExportError, ServiceError, WeightsError, OSError) as exc:
        print(f"check_conversion: {exc}", file=sys.stderr)
        return 2
    for found in differences:
        print(
            f"{found.runtime:10}  largest difference {found.largest_difference:.2e} of logits up to "
            f"{found.largest_logit:.1f}, same top-1 on {found.same_top_1_photos} of {found.photos} photos"
            f"  {'ok' if found.passed else 'DIFFERS'}"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(found) for found in differences], indent=2) + "\n", "utf-8")
    return 0 if all(found.passed for found in differences) else 1


if __name__ == "__main__":
    sys.exit(main())
