"""Eight bits in place of 32, written into the graph: post-training quantisation with plain FakeQuant operations.

FakeQuant rounds a float32 tensor to 256 steps and gives float32 back. So TensorFlow computes the network in float32 as
before, with rounded numbers; OpenVINO reads the same operations as leave to multiply whole numbers, of which processors
with VNNI do four in the time of one float32. Weights get a range for each output channel, activations one for each
tensor (the scheme of Krishnamoorthi 2018, arXiv:1806.08342), chosen on training photos for the least squared error. No
label is used, and nothing is trained.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.training.efficientnet_lite import Convolution, Network, apply_network, convolve

Array = NDArray[np.float32]

# Name of a tensor that a convolution reads -> the lowest and the highest number that it can still hold.
Ranges = Mapping[str, tuple[float, float]]

STEPS = 255
# On either side of nought.
WEIGHT_STEPS = 127
# Half of the numbers that a weight could have stays unused: without VNNI two products are added up in 16 bits, which
# 255 * 127 * 2 would not fit into.
WEIGHT_ROOM = 2.0
# What a range is cut down to, as parts of the span between the lowest and the highest number seen.
CUTS = np.linspace(0.3, 1.0, 36)
# Of each tensor of each batch; enough to know its tail to one in a hundred thousand.
SAMPLES = 20_000
BATCH = 8
# A channel that is nought throughout would have no range.
SMALLEST = 1e-6


def rounding_error(values: Array, low: float, high: float) -> float:
    """Mean squared error of `values` in STEPS steps from `low` to `high`, of which one is nought."""
    step = (high - low) / STEPS
    nought = np.round(-low / step)
    rounded = np.clip(np.round(values / step) + nought, 0, STEPS)
    return float(np.mean(((rounded - nought) * step - values) ** 2))


def best_range(values: Array) -> tuple[float, float]:
    """The part of the span of `values` with the least error: what lies outside is cut off, the rest rounded finer."""
    low, high = min(0.0, float(values.min())), max(SMALLEST, float(values.max()))
    return min(((low * cut, high * cut) for cut in CUTS), key=lambda span: rounding_error(values, *span))


def calibrate(network: Network, pictures: Array, image_range: tuple[float, float], seed: int = 0) -> dict[str, Any]:
    """Ranges of all tensors that convolutions of `network` read, from float32 `pictures` [n, height, width, 3].

    `image_range` is what a black and a white pixel become: with 256 steps between them, the input loses nothing.
    """
    random = np.random.default_rng(seed)
    seen: dict[str, list[Array]] = {}
    for tensors in _read_tensors(network, pictures):
        for name, values in tensors.items():
            chosen = random.integers(0, values.size, SAMPLES)
            seen.setdefault(name, []).append(np.append(values[chosen], [values.min(), values.max()]))
    # Few digits, so that another machine's last bits choose no other graph.
    found = {name: best_range(np.concatenate(parts)) for name, parts in seen.items()}
    return {name: [float(f"{end:.4g}") for end in span] for name, span in found.items()} | {"image": list(image_range)}


def _read_tensors(network: Network, pictures: Array) -> Iterator[dict[str, Array]]:
    """What the convolutions of the float32 network read, flat and by name, batch by batch."""
    import tensorflow as tf

    def tensors(image: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        apply_network(network, image, convolve, lambda name, tensor: found.setdefault(name, tensor))
        return found

    traced = tf.function(tensors, input_signature=[tf.TensorSpec([None, *pictures.shape[1:]], tf.float32)])
    for start in range(0, len(pictures), BATCH):
        batch = traced(tf.constant(pictures[start : start + BATCH]))
        yield {name: tensor.numpy().ravel() for name, tensor in batch.items()}


def quantized_features(network: Network, image: Any, ranges: Ranges) -> Any:
    """TensorFlow: as efficientnet_lite.pooled_features, with weights and activations rounded to 8 bits."""
    import tensorflow as tf

    def read(name: str, activations: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_vars(activations, *ranges[name])

    def rounded(activations: Any, convolution: Convolution) -> Any:
        return convolve(activations, convolution, _rounded_kernel(convolution))

    return tf.reduce_mean(apply_network(network, image, rounded, read), axis=[1, 2])


def _rounded_kernel(convolution: Convolution) -> Any:
    import tensorflow as tf

    # A depthwise kernel has its channels next to last, and FakeQuant wants them last.
    kernel = convolution.kernel[..., 0] if convolution.depthwise else convolution.kernel
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    room = np.maximum(WEIGHT_ROOM * largest, SMALLEST).astype(np.float32)
    # Rounded here already: of two numbers that are all but as near, the two runtimes would not always choose the same.
    step = room / WEIGHT_STEPS
    kernel = np.round(kernel / step) * step
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(kernel), tf.constant(-room), tf.constant(room), narrow_range=True
    )
    # OpenVINO knows the weights of a depthwise convolution through this operation, and not through a slice.
    return tf.expand_dims(rounded, -1) if convolution.depthwise else rounded
