"""Post-training quantization to 8 bits, with FakeQuant operations in the graph.

FakeQuant rounds a float32 tensor to 256 steps and returns float32. TensorFlow computes the network in float32 as
before, with rounded numbers. OpenVINO recognises these operations and multiplies integers instead; processors with VNNI
compute four of them in the time of one float32. Weights have one range per output channel, activations one per tensor
(the scheme of Krishnamoorthi 2018, arXiv:1806.08342). The ranges minimise the squared error on training photos. Labels
are not used, and nothing is trained.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.training.backbone.efficientnet_lite import Convolution, Network, apply_network, convolve

Array = NDArray[np.float32]

# Name of a convolution's input -> the lowest and the highest number of its range.
Ranges = Mapping[str, tuple[float, float]]

STEPS = 255
# On each side of zero.
WEIGHT_STEPS = 127
# Weights use only half of their steps. Without VNNI, two products are added in 16 bits, and 255 * 127 * 2 would
# overflow.
WEIGHT_ROOM = 2.0
# Candidates for a range, as fractions of the interval between the lowest and the highest value.
CUTS = np.linspace(0.3, 1.0, 36)
# Samples per tensor and batch. They describe the tail of the distribution to one in 100,000.
SAMPLES = 20_000
BATCH = 8
# The minimum width of a range, for a channel of zeros.
SMALLEST = 1e-6


def rounding_error(values: Array, low: float, high: float) -> float:
    """Return the mean squared error of `values` rounded to STEPS steps from `low` to `high`. Zero is a step."""
    step = (high - low) / STEPS
    nought = np.round(-low / step)
    rounded = np.clip(np.round(values / step) + nought, 0, STEPS)
    return float(np.mean(((rounded - nought) * step - values) ** 2))


def best_range(values: Array) -> tuple[float, float]:
    """Return the range with the least error: values outside are clipped, and those inside are rounded more finely."""
    low, high = min(0.0, float(values.min())), max(SMALLEST, float(values.max()))
    return min(((low * cut, high * cut) for cut in CUTS), key=lambda span: rounding_error(values, *span))


def calibrate(network: Network, pictures: Array, image_range: tuple[float, float], seed: int = 0) -> dict[str, Any]:
    """Return the ranges of all convolution inputs of `network`, from float32 `pictures` [n, height, width, 3].

    `image_range` is the value of a black and of a white pixel. With 256 steps between them the input is exact.
    """
    random = np.random.default_rng(seed)
    seen: dict[str, list[Array]] = {}
    for tensors in _read_tensors(network, pictures):
        for name, values in tensors.items():
            chosen = random.integers(0, values.size, SAMPLES)
            seen.setdefault(name, []).append(np.append(values[chosen], [values.min(), values.max()]))
    # Few digits, so that small differences between computers do not change the graph.
    found = {name: best_range(np.concatenate(parts)) for name, parts in seen.items()}
    return {name: [float(f"{end:.4g}") for end in span] for name, span in found.items()} | {"image": list(image_range)}


def _read_tensors(network: Network, pictures: Array) -> Iterator[dict[str, Array]]:
    """Yield the inputs of all convolutions of the float32 network, flat and by name, batch by batch."""
    import tensorflow as tf

    def tensors(image: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        apply_network(network, image, convolve, lambda name, tensor: found.setdefault(name, tensor))
        return found

    traced = tf.function(tensors, input_signature=[tf.TensorSpec([None, *pictures.shape[1:]], tf.float32)])
    for start in range(0, len(pictures), BATCH):
        batch = traced(tf.constant(pictures[start : start + BATCH]))
        yield {name: tensor.numpy().ravel() for name, tensor in batch.items()}


def quantized_places(network: Network, image: Any, ranges: Ranges) -> Any:
    """TensorFlow: the last feature map [batch, height, width, features], with weights and activations in 8 bits."""
    import tensorflow as tf

    def read(name: str, activations: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_vars(activations, *ranges[name])

    def rounded(activations: Any, convolution: Convolution) -> Any:
        return convolve(activations, convolution, _rounded_kernel(convolution))

    return apply_network(network, image, rounded, read)


def quantized_features(network: Network, image: Any, ranges: Ranges) -> Any:
    """TensorFlow: the mean of `quantized_places` over all places, [batch, features]."""
    import tensorflow as tf

    return tf.reduce_mean(quantized_places(network, image, ranges), axis=[1, 2])


def _rounded_kernel(convolution: Convolution) -> Any:
    import tensorflow as tf

    # FakeQuant needs the channels last; in a depthwise kernel they are next to last.
    kernel = convolution.kernel[..., 0] if convolution.depthwise else convolution.kernel
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    room = np.maximum(WEIGHT_ROOM * largest, SMALLEST).astype(np.float32)
    # Rounded here too: for a number halfway between two steps, the two runtimes could choose different ones.
    step = room / WEIGHT_STEPS
    kernel = np.round(kernel / step) * step
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(kernel), tf.constant(-room), tf.constant(room), narrow_range=True
    )
    # OpenVINO recognises the weights of a depthwise convolution through expand_dims, but not through a slice.
    return tf.expand_dims(rounded, -1) if convolution.depthwise else rounded
