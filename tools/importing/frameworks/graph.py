"""TensorFlow networks: frozen to a flat graph of constants, and exported with preparation and activation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving_common.tensorflow_protos import load_tensorflow
from tools.importing.network import (
    Activation,
    Array,
    Export,
    ImportProblem,
    InputSpec,
    NormStatistics,
    in_layout,
)
from tools.training.export import DEFAULT_SIGNATURE, INPUT_NAME, OUTPUT_NAME
from tools.training.warmup_requests import write_warmup

_LAST: dict[str, Activation] = {"Softmax": "none", "Sigmoid": "binary"}
# Operations that do not change which function the values come from.
_THROUGH = ("Identity", "Reshape", "Squeeze", "Flatten", "StopGradient", "Cast")
_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def tensorflow() -> Any:
    """Return the TensorFlow module, with little logging; raises ImportProblem if it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The back end of Keras 3 that makes TensorFlow graphs.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        module = load_tensorflow()
    except ImportError as exc:
        raise ImportProblem(str(exc)) from exc
    module.get_logger().setLevel("ERROR")
    return module


class TensorFlowNetwork:
    """See Network. It has a frozen graph, and the framework's own function to run the model.

    Args:
        graph: GraphDef of constants. Its only placeholder is `image`.
        image: the name of the input tensor.
        outputs: the tensor's name for each output.
        framework_run: computes all outputs for values in the network's layout.
        norm: finds the statistics of the first batch normalisation; by default the graph is searched.
    """

    is_quantised: bool = False

    def __init__(
        self,
        graph: Any,
        image: str,
        outputs: Mapping[str, str],
        spec: InputSpec,
        framework_run: Callable[[Array], Mapping[str, Array]],
        names: tuple[str, str],
        scales_itself: str | None = None,
        norm: Callable[[Array], NormStatistics | None] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.format, self.framework = names
        self.spec = spec
        self.scales_itself = scales_itself
        self.notes: list[str] = list(notes)
        self._tensors = dict(outputs)
        self._image = image
        self._framework_run = framework_run
        self._norm = norm
        self._graph = optimised(graph, image, list(outputs.values()))
        if spec.batch is not None:
            _open_batch(self._graph, spec.batch)
        nodes = {node.name: node for node in self._graph.node}
        if self._graph.library.function:
            raise ImportProblem("its graph calls functions (loops, branches) that can't be inlined")
        self.last: dict[str, Activation] = {
            name: last for name, tensor in outputs.items() if (last := _last_activation(nodes, tensor)) is not None
        }
        self.outputs: dict[str, tuple[int, ...]] = self._shapes()

    def run(self, values: NDArray[np.float32]) -> dict[str, Array]:
        """See Network."""
        return run_in_batches(lambda part: self._run(in_layout(part, self.spec)), values, self.spec.batch)

    def _run(self, values: Array) -> Mapping[str, Array]:
        tf = tensorflow()
        try:
            return self._framework_run(values)
        except tf.errors.OpError:
            if not self.spec.channels_first:
                raise
        # On most CPUs, TensorFlow's operations do not support channels first. Its compiler XLA does; but it refuses a
        # placeholder, also one that nothing uses any more.
        tensors = list(self._tensors.values())
        graph = type(self._graph)()
        graph.CopyFrom(self._graph)
        nodes = [node for node in graph.node if node.name != self._image.partition(":")[0]]
        del graph.node[:]
        graph.node.extend(nodes)

        @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
        def compiled(image: Any) -> Any:
            return tf.import_graph_def(graph, {self._image: image}, tensors, name="")

        return {name: one.numpy() for name, one in zip(self._tensors, compiled(tf.constant(values)), strict=True)}

    def first_norm(self, values: NDArray[np.float32]) -> NormStatistics | None:
        """See Network."""
        return (self._norm or self._norm_of_graph)(in_layout(values, self.spec))

    def write(self, folder: Path, export: Export) -> None:
        """See Network. Writes a SavedModel with one signature, and its warm-up file."""
        tf = tensorflow()
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            image = v1.placeholder(export.pixels, [export.batch, export.height, export.width, 3], name=INPUT_NAME)
            given = {self._image: _prepared(image, export, self.spec)}
            (output,) = tf.import_graph_def(self._graph, given, [self._tensors[export.output]], name="network")
            answer = tf.reshape(output, [export.batch or -1, export.classes])
            tf.identity(_activated(answer, export), name=OUTPUT_NAME)
            flat = v1.graph_util.extract_sub_graph(graph.as_graph_def(), [OUTPUT_NAME])
        with tf.Graph().as_default(), v1.Session() as session:
            image, output = tf.import_graph_def(flat, return_elements=[f"{INPUT_NAME}:0", f"{OUTPUT_NAME}:0"], name="")
            output.set_shape([export.batch, 2 if export.activation in ("binary", "sigmoid") else export.classes])
            signature = v1.saved_model.predict_signature_def({INPUT_NAME: image}, {OUTPUT_NAME: output})
            builder = v1.saved_model.Builder(str(folder))
            builder.add_meta_graph_and_variables(session, ["serve"], {DEFAULT_SIGNATURE: signature})
            with file_errors(folder):
                builder.save()
            # The folder is empty: there are no variables.
            (folder / "variables").rmdir()
            write_warmup(folder, DEFAULT_SIGNATURE, signature, export.model)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        tf = tensorflow()
        with tf.Graph().as_default():
            tensors = tf.import_graph_def(self._graph, return_elements=list(self._tensors.values()), name="")
            shapes = [tensor.shape for tensor in tensors]
        return {
            name: () if shape.rank is None else tuple(-1 if side is None else side for side in shape)
            for name, shape in zip(self._tensors, shapes, strict=True)
        }

    def _norm_of_graph(self, values: Array) -> NormStatistics | None:
        node = next((node for node in self._graph.node if node.op in _NORMS), None)
        if node is None or node.attr["is_training"].b:
            return None
        tf = tensorflow()
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(self._graph, name="")
            wanted = [name if ":" in name else f"{name}:0" for name in (node.input[0], node.input[3], node.input[4])]
            picture = values[: self.spec.batch or len(values)]
            reached, mean, variance = session.run(wanted, {self._image: picture})
        axes = (0, 2, 3) if node.attr["data_format"].s == b"NCHW" else (0, 1, 2)
        return NormStatistics(mean, variance, reached.mean(axis=axes), reached.var(axis=axes))


def run_saved_model(folder: Path, pixels: Sequence[Array]) -> NDArray[np.float64]:
    """Return the answers of a version folder, computed by TensorFlow; raises ImportProblem."""
    tf = tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, ["serve"], str(folder))
        try:
            answers = session.run(f"{OUTPUT_NAME}:0", {f"{INPUT_NAME}:0": np.stack(pixels)})
        except tf.errors.OpError as exc:
            raise ImportProblem(f"TensorFlow can't compute it ({exc.message.partition(chr(10))[0][:300]})") from exc
    return np.asarray(answers, np.float64)


def run_in_batches(
    run: Callable[[NDArray[np.float32]], Mapping[str, Array]], values: NDArray[np.float32], batch: int | None
) -> dict[str, Array]:
    """Run a network on batches of its batch size. The last batch is filled up with copies of the last picture."""
    size = batch or len(values)
    parts = []
    for start in range(0, len(values), size):
        part = values[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        parts.append({name: np.asarray(output)[: len(part)] for name, output in run(filled).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def optimised(graph: Any, image: str, outputs: Sequence[str]) -> Any:
    """Return the graph with inlined functions and folded constants, made by TensorFlow's own optimiser."""
    tf = tensorflow()
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    v1 = tf.compat.v1
    with tf.Graph().as_default() as whole:
        tf.import_graph_def(graph, name="")
        for name in (image, *outputs):
            whole.add_to_collection("train_op", whole.get_tensor_by_name(name))
        meta_graph = v1.train.export_meta_graph(graph=whole)
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers.extend(["function", "constfold", "dependency", "pruning"])
    return v1.graph_util.extract_sub_graph(
        tf_optimizer.OptimizeGraph(config, meta_graph), [name.partition(":")[0] for name in (image, *outputs)]
    )


def _open_batch(graph: Any, batch: int) -> None:
    """Open the batch of each Reshape with a fixed batch. A later comparison of batches shows whether that is right."""
    tf = tensorflow()
    with tf.Graph().as_default() as whole:
        tf.import_graph_def(graph, name="")
        shapes = {node.name: node.outputs[0].shape for node in whole.get_operations() if node.type == "Reshape"}
    for node in [node for node in graph.node if node.op == "Reshape"]:
        shape = shapes[node.name]
        if shape.is_fully_defined() and shape.rank and shape[0] == batch:
            constant = graph.node.add(name=f"{node.name}/open", op="Const")
            constant.attr["dtype"].type = node.attr["Tshape"].type = tf.int32.as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto([-1, *shape[1:]], tf.int32))
            node.input[1] = constant.name


def _prepared(image: Any, export: Export, spec: InputSpec) -> Any:
    """Build the operations of ``network.prepare``: from pixels to the network's input."""
    tf = tensorflow()
    numbers = export.numbers
    values = tf.cast(image, tf.float32)
    if spec.channels == 1:
        values = tf.reduce_sum(values * tf.constant(numbers.grey, tf.float32), axis=-1, keepdims=True)
    mean, std = numbers.mean[: spec.channels], numbers.std[: spec.channels]
    if numbers.factor != 1:
        values = values * tf.constant(numbers.factor, tf.float32)
    if any(mean):
        values = values - tf.constant(mean, tf.float32)
    if set(std) != {1.0}:
        values = values / tf.constant(std, tf.float32)
    if numbers.bgr:
        values = tf.reverse(values, [-1])
    if spec.channels_first:
        values = tf.transpose(values, [0, 3, 1, 2])
    dtype = tf.as_dtype(spec.dtype)
    if dtype.is_integer:
        values = tf.clip_by_value(tf.round(values), float(max(dtype.min, -(2**24))), float(min(dtype.max, 2**24)))
    return tf.cast(values, dtype)


def _activated(answer: Any, export: Export) -> Any:
    tf = tensorflow()
    answer = tf.cast(answer, tf.float32)
    if export.activation == "softmax":
        return tf.nn.softmax(answer)
    if export.activation == "sigmoid":
        answer = tf.sigmoid(answer)
    return tf.concat([1 - answer, answer], axis=-1) if export.activation in ("sigmoid", "binary") else answer


def _last_activation(nodes: Mapping[str, Any], tensor: str) -> Activation | None:
    node = nodes.get(tensor.partition(":")[0])
    while node is not None and node.op in _THROUGH:
        node = nodes.get(node.input[0].lstrip("^").partition(":")[0])
    if node is None:
        return None
    if node.op in ("BiasAdd", "MatMul", "AddV2", "Add"):
        # A layer without an activation gives logits, even if its values for sample photos are between 0 and 1.
        return "softmax"
    return _LAST.get(node.op)


@contextmanager
def file_errors(folder: Path) -> Iterator[None]:
    """Turn TensorFlow's error for a file that can't be written into an OSError."""
    tf = tensorflow()
    try:
        yield
    except tf.errors.OpError as exc:
        raise OSError(f"it can't be written ({exc.message.rpartition(';')[2].strip()}): is the disk full?") from exc
