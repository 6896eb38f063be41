"""Loads TFLite and ONNX files with OpenVINO. Only the embedded model server can serve the result.

The version folder has the exported network in OpenVINO's own format, ``openvino/model.xml`` and ``model.bin``. Its
``saved_model.pb`` has only the signatures. Their output operation has a name that explains the error of TensorFlow
Serving, which can't compute it.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving_common.tensorflow_protos import saved_model_pb2, types_pb2
from tools.importing.frameworks.graph import run_in_batches, tensorflow
from tools.importing.network import (
    Activation,
    Array,
    Export,
    ImportProblem,
    InputSpec,
    NormStatistics,
    Numbers,
    in_layout,
    spec_of,
)
from tools.inference import import_openvino
from tools.model_folder import PREDICT_METHOD
from tools.training.export import DEFAULT_SIGNATURE, INPUT_NAME, OUTPUT_NAME
from tools.training.warmup_requests import write_warmup

IR = Path("openvino", "model.xml")
_PLACEHOLDER = "this_model_is_computed_by_OpenVINO_and_needs_the_embedded_model_server"
_LAST: dict[str, Activation] = {"Softmax": "none", "Sigmoid": "binary", "Add": "softmax", "MatMul": "softmax"}
_MAYBE = "the file may be incomplete, or have operations that"
_THROUGH = ("Result", "Reshape", "Squeeze", "Convert", "Unsqueeze")


class OpenVinoNetwork:
    """See Network.

    Args:
        model: openvino.Model as it was read.
        framework_run: computes the framework's own answer for one batch in the network's layout; None: OpenVINO's.
        output_scales: for integer outputs, the scale and the zero point.
    """

    scales_itself: str | None = None

    def __init__(
        self,
        path: Path,
        model: Any,
        spec: InputSpec,
        framework_run: Callable[[Array], Mapping[str, Array]] | None,
        names: tuple[str, str],
        output_scales: Mapping[str, tuple[float, int]] | None = None,
        is_quantised: bool = False,
    ) -> None:
        self.format, self.framework = names
        self.spec = spec
        self.is_quantised = is_quantised
        self.notes = ["it needs the embedded model server: TensorFlow Serving can't compute it"]
        self._path = path
        self._ports = {_name(port, number): number for number, port in enumerate(model.outputs)}
        self._scales = dict(output_scales or {})
        self._run = framework_run or self._own(model)
        shapes = {name: model.outputs[number].get_partial_shape() for name, number in self._ports.items()}
        self.outputs: dict[str, tuple[int, ...]] = {
            name: () if shape.rank.is_dynamic else tuple(-1 if side.is_dynamic else side.get_length() for side in shape)
            for name, shape in shapes.items()
        }
        last = {name: _last_operation(model.outputs[number].get_node()) for name, number in self._ports.items()}
        self.last: dict[str, Activation] = {
            name: _LAST[operation] for name, operation in last.items() if operation in _LAST
        }

    def run(self, values: NDArray[np.float32]) -> dict[str, Array]:
        """See Network."""
        found = run_in_batches(lambda part: self._run(in_layout(part, self.spec)), values, self.spec.batch)
        for name, (scale, zero) in self._scales.items():
            found[name] = (found[name].astype(np.float32) - zero) * np.float32(scale)
        return found

    def first_norm(self, values: NDArray[np.float32]) -> NormStatistics | None:
        """See Network. The batch normalisation is already merged into a convolution here."""
        return None

    def write(self, folder: Path, export: Export) -> None:
        """See Network."""
        openvino = import_openvino()
        from openvino import opset13 as ops

        # Read the file again, because the export changes the model.
        model = openvino.Core().read_model(str(self._path))
        batch = -1 if export.batch is None else export.batch
        sides = [3 if self.spec.channels == 3 else 1, export.height, export.width]
        if export.batch is None and self.spec.batch is not None:
            _open_batch(ops, model, self.spec.batch)
        model.reshape([batch, *sides] if self.spec.channels_first else [batch, *sides[1:], sides[0]])
        result = model.outputs[self._ports[export.output]].get_node()
        answer = _answer(ops, result.input_value(0), export, self._scales.get(export.output))
        answer.output(0).set_names({OUTPUT_NAME})
        (network_input,) = model.get_parameters()
        image = ops.parameter([batch, export.height, export.width, 3], np.dtype(export.pixels), name=INPUT_NAME)
        image.output(0).set_names({INPUT_NAME})
        network_input.output(0).replace(_prepared(ops, image, export.numbers, self.spec).output(0))
        model = openvino.Model([ops.result(answer, name=OUTPUT_NAME)], [image], "imported")
        (folder / IR).parent.mkdir(parents=True)
        try:
            openvino.save_model(model, str(folder / IR), compress_to_fp16=False)
        except RuntimeError as exc:
            raise OSError(f"it can't be written ({_reason(exc)}): is the disk full?") from exc
        classes = 2 if export.activation in ("binary", "sigmoid") else export.classes
        signature = _write_placeholder(folder, [batch, export.height, export.width, 3], export.pixels, [batch, classes])
        tensorflow()
        write_warmup(folder, DEFAULT_SIGNATURE, signature, export.model)

    def _own(self, model: Any) -> Callable[[Array], dict[str, Array]]:
        openvino = import_openvino()
        try:
            compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as exc:
            raise ImportProblem(f"OpenVINO can't compute it ({_reason(exc)})") from exc

        def run(values: Array) -> dict[str, Array]:
            found = compiled(values)
            return {name: found[number] for name, number in self._ports.items()}

        return run


def load_onnx(path: Path) -> OpenVinoNetwork:
    """Load an ONNX file; raises ImportProblem."""
    model, spec = _read(path)
    return OpenVinoNetwork(path, model, spec, None, ("ONNX", "OpenVINO, which reads the file itself"))


def load_tflite(path: Path) -> OpenVinoNetwork:
    """Load a TFLite file; raises ImportProblem."""
    model, spec = _read(path)
    tensorflow()
    from tensorflow.lite.python.interpreter import Interpreter

    try:
        with warnings.catch_warnings():
            # TensorFlow warns that the interpreter will move to another package.
            warnings.simplefilter("ignore")
            interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as exc:
        raise ImportProblem(f"TensorFlow Lite can't read it ({_reason(exc)}): {_MAYBE} it lacks") from exc
    (image,) = interpreter.get_input_details()
    details = interpreter.get_output_details()
    names = [_name(port, number) for number, port in enumerate(model.outputs)]
    by_name = {detail["name"]: detail for detail in details}
    ordered = [by_name.get(name, details[number]) for number, name in enumerate(names)]

    def run(values: Array) -> dict[str, Array]:
        rows: list[list[Array]] = []
        for value in values:
            interpreter.set_tensor(image["index"], value[None])
            interpreter.invoke()
            rows.append([interpreter.get_tensor(detail["index"])[0] for detail in ordered])
        return {name: np.stack([row[number] for row in rows]) for number, name in enumerate(names)}

    scales = {
        name: detail["quantization"]
        for name, detail in zip(names, ordered, strict=True)
        if np.dtype(detail["dtype"]).kind in "ui" and detail["quantization"][0]
    }
    quantised = any(detail["dtype"] in (np.int8, np.uint8) for detail in interpreter.get_tensor_details())
    name = "TFLite, 8 bit" if quantised else "TFLite"
    return OpenVinoNetwork(path, model, spec, run, (name, "TensorFlow Lite"), scales, quantised)


def tflite_labels(path: Path) -> list[str] | None:
    """Return the labels in a TFLite file's metadata, which is a zip at the end of the file; None if there are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".txt") and entry.file_size < 1 << 20:
                    return archive.read(entry).decode("utf-8").splitlines()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        pass
    return None


def _read(path: Path) -> tuple[Any, InputSpec]:
    openvino = import_openvino()
    try:
        model = openvino.Core().read_model(str(path))
    except RuntimeError as exc:
        raise ImportProblem(f"OpenVINO can't read it ({_reason(exc)}): {_MAYBE} OpenVINO lacks") from exc
    if len(model.inputs) != 1:
        raise ImportProblem(f"it has {len(model.inputs)} inputs, but only one input, a photo, is supported")
    shape, dtype = model.inputs[0].get_partial_shape(), model.inputs[0].get_element_type()
    sides = () if shape.rank.is_dynamic else tuple(None if side.is_dynamic else side.get_length() for side in shape)
    return model, spec_of(sides, np.dtype(dtype.to_dtype()).name)


def _open_batch(ops: Any, model: Any, batch: int) -> None:
    """See graph.py."""
    for node in model.get_ordered_ops():
        shape = node.output(0).get_partial_shape() if node.get_type_name() == "Reshape" else None
        if shape is not None and shape.is_static and len(shape) and shape[0].get_length() == batch:
            sides = [side.get_length() for side in shape]
            constant = ops.constant(np.array([-1, *sides[1:]], np.int64))
            node.input(1).replace_source_output(constant.output(0))


def _prepared(ops: Any, image: Any, numbers: Numbers, spec: InputSpec) -> Any:
    """Build the operations of ``network.prepare``: from pixels to the network's input."""
    values = ops.convert(image, "f32")
    if spec.channels == 1:
        values = ops.reduce_sum(ops.multiply(values, np.array(numbers.grey, np.float32)), np.array([-1]), True)
    mean, std = (np.array(three[: spec.channels], np.float32) for three in (numbers.mean, numbers.std))
    values = ops.divide(ops.subtract(ops.multiply(values, np.float32(numbers.factor)), mean), std)
    if numbers.bgr:
        values = ops.gather(values, np.array([2, 1, 0]), np.array(3))
    if spec.channels_first:
        values = ops.transpose(values, np.array([0, 3, 1, 2]))
    dtype = np.dtype(spec.dtype)
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        values = ops.clamp(ops.round(values, "half_to_even"), float(limits.min), float(limits.max))
    return ops.convert(values, dtype)


def _answer(ops: Any, output: Any, export: Export, scale: tuple[float, int] | None) -> Any:
    answer = ops.convert(output, "f32")
    if scale is not None:
        answer = ops.multiply(ops.subtract(answer, np.float32(scale[1])), np.float32(scale[0]))
    width = 1 if export.activation in ("binary", "sigmoid") else export.classes
    answer = ops.reshape(answer, np.array([-1, width], np.int64), special_zero=False)
    if export.activation == "softmax":
        return ops.softmax(answer, axis=1)
    if export.activation == "sigmoid":
        answer = ops.sigmoid(answer)
    if export.activation == "none":
        return answer
    return ops.concat([ops.subtract(np.float32(1), answer), answer], axis=1)


def _write_placeholder(folder: Path, picture: list[int], pixels: str, output: list[int]) -> Any:
    model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    meta_graph = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.graph_def.versions.producer = 1000
    signature = meta_graph.signature_def[DEFAULT_SIGNATURE]
    signature.method_name = PREDICT_METHOD
    dtype = types_pb2.DT_UINT8 if pixels == "uint8" else types_pb2.DT_FLOAT
    for aliases, alias, node_name, number, sides in (
        (signature.inputs, INPUT_NAME, INPUT_NAME, dtype, picture),
        (signature.outputs, OUTPUT_NAME, _PLACEHOLDER, types_pb2.DT_FLOAT, output),
    ):
        node = meta_graph.graph_def.node.add(name=node_name, op="Placeholder")
        node.attr["dtype"].type = aliases[alias].dtype = number
        aliases[alias].name = f"{node_name}:0"
        for side in sides:
            node.attr["shape"].shape.dim.add(size=side)
            aliases[alias].tensor_shape.dim.add(size=side)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString(deterministic=True))
    return signature


def _name(port: Any, number: int) -> str:
    return min(port.get_names(), key=len, default=f"output_{number}")


def _last_operation(node: Any) -> str:
    while node.get_type_name() in _THROUGH:
        node = node.input_value(0).get_node()
    return str(node.get_type_name())


def _reason(exc: Exception) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(exc).__name__
