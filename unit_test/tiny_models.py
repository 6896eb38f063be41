"""Makes small models without TensorFlow: what a photo's mean colour is, as a SavedModel with a recipe of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving_common.tensorflow_protos import meta_graph_pb2, saved_model_pb2, types_pb2
from tools import model_folder

# How sharply it tells: of a photo in one colour the answer is nearly sure.
SHARPNESS = 20.0
FLOAT, UINT8, INT32 = types_pb2.DT_FLOAT, types_pb2.DT_UINT8, types_pb2.DT_INT32


def write_model(
    folder: Path,
    labels: Sequence[str],
    colours: Sequence[int],
    size: int = 16,
    config: Mapping[str, Any] | None = None,
    golden: Sequence[model_folder.GoldenPhoto] = (),
    float_input: bool = False,
    outputs: Sequence[str] = ("probabilities",),
    activation: str = "Softmax",
    places: int = 0,
) -> None:
    """Write a version of a model: class ``n`` is the photo's channel ``colours[n]``, where that is brightest.

    Args:
        config: more of ``preprocessor_config``.
        float_input: its input is float32, 0 to 1, and is called ``image``; else uint8, and ``pixels``.
        outputs: names of outputs, all of the same numbers.
        activation: Softmax, Sigmoid or Identity.
        places: as many rows and columns has an output ``attention``: how bright each place is. 0: no such output.
    """
    folder.mkdir(parents=True)
    write_graph(folder, len(labels), colours, size, float_input, outputs, activation, places)
    scaling = {"do_rescale": float_input, "rescale_factor": 1 / 255}
    values = {"size": {"height": size, "width": size}, **scaling, **(config or {})}
    model_folder.write_recipe(folder, values, labels, golden)


def write_graph(
    folder: Path,
    classes: int,
    colours: Sequence[int],
    size: int,
    float_input: bool = False,
    outputs: Sequence[str] = ("probabilities",),
    activation: str = "Softmax",
    places: int = 0,
) -> None:
    """Write ``saved_model.pb`` without a recipe."""
    weights = np.zeros((3, classes), np.float32)
    for number, colour in enumerate(colours):
        weights[colour, number] = SHARPNESS if float_input else SHARPNESS / 255
    message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta = message.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    graph = meta.graph_def
    name, dtype = ("image", FLOAT) if float_input else ("pixels", UINT8)
    placeholder = graph.node.add(name=f"serve_{name}", op="Placeholder")
    placeholder.attr["dtype"].type = dtype
    for side in (-1, size, size, 3):
        placeholder.attr["shape"].shape.dim.add(size=side)
    values = placeholder.name
    if not float_input:
        cast = graph.node.add(name="cast", op="Cast", input=[values])
        cast.attr["SrcT"].type, cast.attr["DstT"].type = UINT8, FLOAT
        values = cast.name
    constant(graph, "axes", np.array([1, 2], np.int32), INT32)
    constant(graph, "weights", weights, FLOAT)
    mean = graph.node.add(name="mean", op="Mean", input=[values, "axes"])
    mean.attr["T"].type, mean.attr["Tidx"].type = FLOAT, INT32
    product = graph.node.add(name="product", op="MatMul", input=["mean", "weights"])
    product.attr["T"].type = FLOAT
    signature = meta.signature_def["serving_default" if float_input else "pixels"]
    signature.method_name = model_folder.PREDICT_METHOD
    info(signature.inputs[name], placeholder.name, dtype, (-1, size, size, 3))
    for output in outputs:
        result = graph.node.add(name=f"result_{output}", op=activation, input=["product"])
        result.attr["T"].type = FLOAT
        info(signature.outputs[output], result.name, FLOAT, (-1, classes))
    if places:
        pool = graph.node.add(name="pool", op="AvgPool", input=[values])
        pool.attr["T"].type = FLOAT
        for side in ("ksize", "strides"):
            pool.attr[side].list.i.extend([1, size // places, size // places, 1])
        pool.attr["padding"].s = b"VALID"
        constant(graph, "channels", np.array([3], np.int32), INT32)
        attention = graph.node.add(name="attention", op="Mean", input=["pool", "channels"])
        attention.attr["T"].type, attention.attr["Tidx"].type = FLOAT, INT32
        info(signature.outputs["attention"], attention.name, FLOAT, (-1, places, places))
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())


def constant(graph: Any, name: str, array: Any, dtype: int) -> None:
    """Add a constant of numbers."""
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = dtype
    tensor = node.attr["value"].tensor
    tensor.dtype, tensor.tensor_content = dtype, array.tobytes()
    for side in array.shape:
        tensor.tensor_shape.dim.add(size=side)


def info(target: meta_graph_pb2.TensorInfo, node: str, dtype: int, shape: Sequence[int]) -> None:
    """Say which tensor an input or output of a signature is."""
    target.name, target.dtype = f"{node}:0", dtype
    for side in shape:
        target.tensor_shape.dim.add(size=side)
