"""Builds small SavedModels without TensorFlow. Their graphs have no variables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving_common.tensorflow_protos import meta_graph_pb2, saved_model_pb2, tensor_pb2, types_pb2

FLOAT, DOUBLE, INT32, INT64 = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_INT32, types_pb2.DT_INT64
BOOL, STRING = types_pb2.DT_BOOL, types_pb2.DT_STRING

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))

_FIELDS = {FLOAT: "float_val", DOUBLE: "double_val", INT32: "int_val", INT64: "int64_val", BOOL: "bool_val"}

Shape = Sequence[int]


def tensor(values: Any, dtype: int = FLOAT, shape: Shape | None = None) -> tensor_pb2.TensorProto:
    """Return a TensorProto with the values in its typed field; `shape` if it is not that of the values."""
    array = np.array(values, dtype=object)
    message = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape if shape is None else shape:
        message.tensor_shape.dim.add(size=size)
    getattr(message, _FIELDS.get(dtype, "string_val")).extend(array.reshape(-1).tolist())
    return message


class Model:
    """A SavedModel with one graph. The methods add nodes and return their names."""

    def __init__(self) -> None:
        self._message = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        self._meta = self._message.meta_graphs.add()
        self._meta.meta_info_def.tags.append("serve")
        self._meta.graph_def.versions.producer = 987
        self._types: dict[str, int] = {}
        self._shapes: dict[str, Shape] = {}

    def node(self, name: str, op: str, inputs: Sequence[str], dtype: int, shape: Shape, key: str = "T") -> str:
        """Add a node; `dtype` and `shape` are those of its output, `key` its attribute with the type, "": none."""
        node = self._meta.graph_def.node.add(name=name, op=op, input=inputs)
        if key:
            node.attr[key].type = dtype
        self._types[name], self._shapes[name] = dtype, shape
        return name

    def placeholder(self, name: str, dtype: int, shape: Shape) -> str:
        """Add an input."""
        self.node(name, "Placeholder", (), dtype, shape, "dtype")
        for size in shape:
            self._meta.graph_def.node[-1].attr["shape"].shape.dim.add(size=size)
        return name

    def constant(self, name: str, values: Any, dtype: int = FLOAT) -> str:
        """Add a constant."""
        self.node(name, "Const", (), dtype, np.shape(values), "dtype")
        self._meta.graph_def.node[-1].attr["value"].tensor.CopyFrom(tensor(values, dtype))
        return name

    def same(self, name: str, source: str, op: str = "Identity", other: str | None = None) -> str:
        """Add an element-wise operation on `source`, and on `other` if it takes two inputs."""
        inputs = (source,) if other is None else (source, other)
        dtype = self._types[source]
        # LogicalNot has no type.
        return self.node(name, op, inputs, dtype, self._shapes[source], "" if op == "LogicalNot" else "T")

    def parsed_examples(self, name: str, defaults: Mapping[str, float | None]) -> dict[str, str]:
        """Add the parsing of tf.Examples in the string input `name` into features of one float; None: no default."""
        self.placeholder(name, STRING, (-1,))
        keys = [self.constant(f"{name}_{key}_key", key.encode(), STRING) for key in defaults]
        values = [
            self.constant(f"{name}_{key}_default", [] if value is None else [value]) for key, value in defaults.items()
        ]
        names = self.constant(f"{name}_names", [], STRING)
        node = self._meta.graph_def.node.add(name=f"{name}_parsed", op="ParseExample")
        node.input.extend([name, names, *keys, *values])
        node.attr["Nsparse"].i, node.attr["Ndense"].i = 0, len(defaults)
        node.attr["sparse_types"].list.SetInParent()
        node.attr["Tdense"].list.type.extend([FLOAT] * len(defaults))
        for _ in defaults:
            node.attr["dense_shapes"].list.shape.add().dim.add(size=1)
        found = {}
        for number, key in enumerate(defaults):
            found[key] = self.node(f"{name}_{key}", "Identity", [f"{name}_parsed:{number}"], FLOAT, (-1, 1))
        return found

    def signature(
        self,
        name: str,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        method: str = PREDICT,
        defaults: Mapping[str, tensor_pb2.TensorProto] | None = None,
    ) -> None:
        """Add a signature: its inputs and outputs are nodes by alias."""
        signature = self._meta.signature_def[name]
        signature.method_name = method
        for target, nodes in ((signature.inputs, inputs), (signature.outputs, outputs)):
            for alias, node in nodes.items():
                _describe(target[alias], node, self._types[node], self._shapes[node])
        for alias, value in (defaults or {}).items():
            signature.defaults[alias].CopyFrom(value)

    def write(self, folder: Path) -> None:
        """Write the version folder."""
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(self._message.SerializeToString())


def _describe(info: meta_graph_pb2.TensorInfo, node: str, dtype: int, shape: Shape) -> None:
    info.name, info.dtype = f"{node}:0", dtype
    info.tensor_shape.SetInParent()
    for size in shape:
        info.tensor_shape.dim.add(size=size)
