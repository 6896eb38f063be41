"""Serves `model.tflite` of a version folder (`--prefer_tflite_model`), with OpenVINO.

As in TensorFlow Serving, the signatures are those in the file's metadata. If it has none, there is one signature with
the network's own inputs and outputs.
"""

import struct
from pathlib import Path
from typing import Any

from model_service.errors import StartError, one_line
from model_service.models.model_files import check_files, read_graph_file
from model_service.models.saved_model import DEFAULT_SIGNATURE, TFLITE_FILE, SavedModel, Signature, read_signatures
from serving_common.tensorflow_protos import DecodeError, get_model_metadata_pb2, types_pb2

_METADATA = "signature_defs_metadata"
# TensorFlow's types, by the numbers of TensorFlow Lite's.
_TYPES = tuple(
    f"DT_{name}"
    for name in "FLOAT HALF INT32 UINT8 INT64 STRING BOOL INT16 COMPLEX64 INT8 DOUBLE COMPLEX128".split()  # noqa: SIM905
)


def read_tflite(folder: Path, version: int, refuse_unsafe: bool = False) -> SavedModel:
    """Read the signatures of `model.tflite` in `folder`; raises StartError, see read_saved_model."""
    check_files(folder, folder.parent if refuse_unsafe else None)
    path = folder / TFLITE_FILE
    try:
        data = read_graph_file(path)
        definitions = _definitions(_Table(data, struct.unpack_from("<I", data)[0]))
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, DecodeError) as exc:
        raise StartError(f"{path} is broken ({one_line(exc)}): copy or convert the model again.") from exc
    return SavedModel(folder, version, read_signatures(definitions), definitions, refuse_unsafe, is_tflite=True)


def read_network(core: Any, model: SavedModel, signature: Signature) -> Any:
    """Return OpenVINO's graph, with the signature's aliases as the names of its ports; OpenVINO raises RuntimeError."""
    graph = core.read_model(str(model.folder / TFLITE_FILE))
    for ports, specs in ((graph.inputs, signature.inputs), (graph.outputs, signature.outputs)):
        aliases = {name: spec.alias for spec in specs.values() for name in (spec.name, spec.name.removesuffix(":0"))}
        for port in ports:
            port.get_tensor().set_names({aliases[name] for name in port.get_names() if name in aliases})
    graph.reshape({alias: list(spec.shape or ()) for alias, spec in signature.inputs.items()})
    return graph


def _definitions(model: "_Table") -> get_model_metadata_pb2.SignatureDefMap:
    definitions = get_model_metadata_pb2.SignatureDefMap()
    graph = model.tables(2)[0]
    tensors = graph.tables(0)
    for entry in model.tables(6):
        if entry.bytes(0).decode() == _METADATA:
            content = model.tables(4)[entry.integer(1, "<I")].bytes(0)
            for key, value in _flexible_map(content).items():
                definitions.signature_def[key].ParseFromString(value)
    if not definitions.signature_def:
        default = definitions.signature_def[DEFAULT_SIGNATURE]
        default.method_name = "tensorflow/serving/predict"
        for number, infos in ((1, default.inputs), (2, default.outputs)):
            for index in graph.integers(number):
                name = tensors[index].bytes(3).decode()
                info = infos[name.partition(":")[0]]
                info.name, info.dtype = name, types_pb2.DataType.Value(_TYPES[tensors[index].integer(1, "<B")])
                for size in tensors[index].integers(0):
                    info.tensor_shape.dim.add(size=size)
    for definition in definitions.signature_def.values():
        for info in (*definition.inputs.values(), *definition.outputs.values()):
            # As in TensorFlow's graphs, so that it is a tensor's name.
            info.name += "" if ":" in info.name else ":0"
    return definitions


class _Table:
    """A table in a FlatBuffer, whose fields are read by number. Broken data raise struct.error."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def integer(self, number: int, kind: str) -> int:
        """Return a number; `kind` is its struct format."""
        at = self._field(number)
        return self._read(kind, at) if at else 0

    def integers(self, number: int) -> tuple[int, ...]:
        """Return a list of 32-bit numbers."""
        start, count = self._vector(number)
        return struct.unpack_from(f"<{count}i", self._data, start)

    def bytes(self, number: int) -> bytes:
        """Return a string."""
        start, count = self._vector(number)
        return self._data[start : start + count]

    def tables(self, number: int) -> list["_Table"]:
        """Return a list of tables."""
        start, count = self._vector(number)
        places = range(start, start + 4 * count, 4)
        return [_Table(self._data, place + self._read("<I", place)) for place in places]

    def _vector(self, number: int) -> tuple[int, int]:
        at = self._field(number)
        if not at:
            return 0, 0
        start = at + self._read("<I", at)
        return start + 4, self._read("<I", start)

    def _field(self, number: int) -> int:
        """Return where a field is; 0 if the table lacks it."""
        fields = self._at - self._read("<i", self._at)
        place = 4 + 2 * number
        offset = self._read("<H", fields + place) if place < self._read("<H", fields) else 0
        return self._at + offset if offset else 0

    def _read(self, kind: str, at: int) -> int:
        value: int = struct.unpack_from(kind, self._data, at)[0]
        return value


def _flexible_map(data: bytes) -> dict[str, bytes]:
    """Return a FlexBuffer's map of strings. Broken data raise IndexError, struct.error or UnicodeDecodeError."""

    def number(at: int, width: int) -> int:
        value: int = struct.unpack_from({1: "<B", 2: "<H", 4: "<I", 8: "<Q"}[width], data, at)[0]
        return value

    def target(at: int, width: int) -> int:
        return at - number(at, width)

    # At the end: the root, its type, and how many bytes the root has. The lowest bits of a type give a width.
    values, width = target(len(data) - 2 - data[-1], data[-1]), 1 << (data[-2] & 3)
    keys, key_width, size = target(values - 3 * width, width), number(values - 2 * width, width), values - width
    found: dict[str, bytes] = {}
    for index in range(number(size, width)):
        key = target(keys + index * key_width, key_width)
        value = target(values + index * width, width)
        value_width = 1 << (data[values + number(size, width) * width + index] & 3)
        length = number(value - value_width, value_width)
        found[data[key : data.index(0, key)].decode()] = data[value : value + length]
    return found
