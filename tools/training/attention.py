"""The output `attention`: how much each place of a photo speaks for what the model knows.

    python -m tools.training.attention OLD NEW      copies the version folder OLD, and adds the output to the copy

The mean over places and a linear classifier may change their order, so the classifier's weights also apply to each
place of the last feature map (class activation mapping, Zhou et al. 2016, arXiv:1512.04150). The weights here are those
of the known classes that the photo itself resembles, minus the mean of the weights of all others.
The network and the other outputs stay the same, bit by bit.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.training.cats_and_dogs import animals
from tools.training.export import ATTENTION_NAME, DOMAIN_NAME, ExportError, folder_written_beside

Array = NDArray[np.float32]

MODEL_FILE = "saved_model.pb"
# In distances of two places. With 1 a value is interpolated between two places; more also smooths the map.
REACH = 1.5


def evenly(pixels: int, places: int) -> Array:
    """Return float32 [places, places]: values at the feature map's places -> values at evenly spread places.

    The network reduces `pixels` to `places` by convolutions with stride 2 and TensorFlow's padding, which pads an even
    length on the right only. So the centres of the places are not those of equal parts: of 240 pixels they are 15.5,
    47.5 ... 239.5, and not 15, 45 ... 225. Each new value is the mean of the places within `REACH` of its centre.
    """
    step, first, length = 1, 0.5, pixels
    while length > places:
        first += step * (length % 2 == 0)
        step, length = 2 * step, -(-length // 2)
    centres = first + step * np.arange(places)
    wanted = (np.arange(places) + 0.5) * pixels / places
    weights = np.maximum(0, 1 - np.abs(wanted[:, None] - centres) / (REACH * step))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def graph(places: Any, pooled: Any, kernel: Any, bias: Any, known: int, even: tuple[Any, Any]) -> Any:
    """TensorFlow: the attention, float32 [batch, height, width], 0 and more. It has no fixed scale.

    `places` [batch, height, width, features] is the last feature map, `pooled` [batch, features] its mean, `kernel`
    [features, classes] and `bias` [classes] the classifier on it. The first `known` classes are what the model knows.
    If these are all classes, the most probable ones are compared with the mean of all. `even` has the results of
    `evenly` for the height and the width.
    """
    import tensorflow as tf

    inside = outside = kernel
    classes = int(kernel.shape[1])
    if known < classes:
        sizes = tf.constant([known, classes - known])
        (inside, outside), (bias, _) = tf.split(kernel, sizes, axis=1), tf.split(bias, sizes)
    logits = tf.matmul(pooled, inside) + bias
    # No softmax: the scale is free. The model's own logits are not used, because that would change how OpenVINO rounds
    # the model's other outputs.
    powers = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True))
    # Both programs compute this difference once, when they load the model.
    directions = inside - tf.reduce_mean(outside, axis=1, keepdims=True)
    weights = tf.reshape(tf.matmul(powers, directions, transpose_b=True), [-1, 1, 1, int(kernel.shape[0])])
    found = tf.nn.relu(tf.reduce_sum(places * weights, axis=-1))
    rows, columns = even
    return tf.matmul(tf.matmul(rows, found), columns, transpose_b=True)


def constants(size: tuple[int, int], places: Any) -> tuple[Any, Any]:
    """TensorFlow: `even` of `graph` for an input of `size` (height, width); all signatures can share it."""
    import tensorflow as tf

    rows, columns = (evenly(pixels, int(count)) for pixels, count in zip(size, places.shape[1:3], strict=True))
    first = tf.constant(rows)
    return first, first if np.array_equal(rows, columns) else tf.constant(columns)


def add_attention(old: Path, new: Path) -> None:
    """Copy the version folder `old` of `train.py` to `new`, and add the output to each signature with a domain score.

    Raises ExportError: `new` exists, or `old` can't be read or has no such signature.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tensorflow.core.protobuf import saved_model_pb2  # the import takes seconds

    # Where it comes before TensorFlow, it stands in its place.
    from serving_common.tensorflow_protos import DecodeError

    try:
        model = saved_model_pb2.SavedModel.FromString((old / MODEL_FILE).read_bytes())
        (meta_graph,) = model.meta_graphs
        _extend(meta_graph)
    except (OSError, DecodeError, LookupError, ValueError) as exc:
        raise ExportError(f"{old}: no network with a domain score as train.py writes it ({exc})") from exc
    with folder_written_beside(new) as folder:
        shutil.copytree(old, folder)
        (folder / MODEL_FILE).write_bytes(model.SerializeToString(deterministic=True))


def _extend(meta_graph: Any) -> None:
    """Add the output to the signatures of a MetaGraphDef; raises LookupError or ValueError if it can't be read."""
    import tensorflow as tf

    signatures = [found for found in meta_graph.signature_def.values() if DOMAIN_NAME in found.outputs]
    if not signatures:
        raise LookupError("no such output")
    there = {node.name for node in meta_graph.graph_def.node}
    with tf.Graph().as_default() as whole:
        tf.import_graph_def(meta_graph.graph_def, name="")
        even = None
        for signature in signatures:
            pooled, kernel, bias = _classifier(whole.get_tensor_by_name(signature.outputs[DOMAIN_NAME].name))
            (places, *_) = pooled.op.inputs
            even = even or constants(_size(signature), places)
            found = tf.identity(graph(places, pooled, kernel, bias, animals.KNOWN, even), name=ATTENTION_NAME)
            signature.outputs[ATTENTION_NAME].CopyFrom(tf.compat.v1.saved_model.build_tensor_info(found))
        added = [node for node in whole.as_graph_def().node if node.name not in there]
    meta_graph.graph_def.node.extend(added)


def _size(signature: Any) -> tuple[int, int]:
    """Return height and width of the only input of a SignatureDef."""
    (image,) = signature.inputs.values()
    _, height, width, _ = (dimension.size for dimension in image.tensor_shape.dim)
    return height, width


def _classifier(score: Any) -> tuple[Any, Any, Any]:
    """Return the tensors that the domain score is made of (see `animals.graph`): pooled features, kernel and bias."""
    operation = score.op
    # Each of these operations has its data as the first input.
    while operation.type != "Softmax":
        operation = operation.inputs[0].op
    logits = operation.inputs[0].op
    product, bias = logits.inputs
    pooled, kernel = product.op.inputs
    return pooled, kernel, bias


def main(arguments: list[str] | None = None) -> int:
    """Return 0, or 2 after an error message of one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a version folder that train.py wrote")
    parser.add_argument("new", type=Path, help="the version folder to write")
    options = parser.parse_args(arguments)
    try:
        add_attention(options.old, options.new)
    except ExportError as exc:
        print(f"attention: {exc}", file=sys.stderr)
        return 2
    print(f"wrote {options.new}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
