"""Computes a signature with OpenVINO, where OpenVINO computes what TensorFlow would.

OpenVINO's CPU plugin computes 64-bit numbers in 32 bits (2**40 + 1 comes out as 1, 1e300 as 3.4e38), lets small
integers saturate that in TensorFlow wrap around, knows no strings, and reads some graphs with inputs missing. So a
signature is taken only where its inputs and outputs are of types that this leaves alone, and where what was compiled
has exactly the signature's inputs and outputs. (Inside the graph nobody looks: 64-bit steps between float32 input and
float32 output are computed in 32 bits.)
"""

import ctypes
import queue
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from model_service.engines.parallelism import Threads
from model_service.errors import invalid_argument, one_line, without_folders
from model_service.models.saved_model import (
    DEFAULT_SIGNATURE,
    SavedModel,
    Signature,
    TensorSpec,
    ir_of,
    read_message,
    rewritten,
    serving_graph,
)
from model_service.models.tensors import KINDS, Array, type_name
from serving_common.tensorflow_protos import types_pb2

_EXACT = frozenset({types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_INT32, types_pb2.DT_BOOL})
# Pixels come as uint8, and what is done with them is done in float32.
_EXACT_INPUTS = _EXACT | {types_pb2.DT_UINT8}
# An int64 result of such inputs is a position or a count (ArgMax, TopK, Shape), which 32 bits hold.
_EXACT_OUTPUTS = _EXACT | {types_pb2.DT_INT64}


# A big network keeps all cores busy with one call anyway, and its weights fill the memory.
_MOST_BYTES_TWICE = 64 << 20

# How long after a big call its memory is kept for the next one.
_KEPT_S = 5.0
# Every one that is in use: see `release_memory`.
_engines: "weakref.WeakSet[OpenVinoEngine]" = weakref.WeakSet()


class Unsupported(Exception):
    """OpenVINO can't compute this signature, or not exactly."""


class OpenVinoEngine:
    """A signature, compiled, and its infer requests, each of which computes one call at a time.

    `throughput_model` is compiled for calls side by side; `latency_model`, where there is one, for a call that has the
    machine to itself.
    """

    def __init__(
        self,
        openvino: ModuleType,
        throughput_model: Any,
        latency_model: Any | None,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        callers: int,
    ) -> None:
        self._openvino = openvino
        self._inputs = inputs
        self._outputs = outputs
        self._throughput_requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # One more: see InferenceExecutor.
        for _ in range(callers + 1):
            self._throughput_requests.put(throughput_model.create_infer_request())
        self._latency_request = latency_model.create_infer_request() if latency_model else None
        self.infer_requests = callers + (self._latency_request is not None)
        self._lock = threading.Lock()
        self._begun = self._active = 0
        self._models = [model for model in (throughput_model, latency_model) if model]
        self._usual_bytes = 0
        self._grown_at: float | None = None
        _engines.add(self)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """See Engine; waits for a free infer request and gives up the interpreter lock meanwhile."""
        self._note_size(sum(array.nbytes for array in inputs.values()))
        with self._request() as request:
            try:
                for alias, index in self._inputs.items():
                    request.set_input_tensor(index, self._tensor(inputs[alias]))
                request.infer()
                # A copy: the request's memory belongs to the next caller.
                return {alias: request.get_output_tensor(self._outputs[alias]).data.copy() for alias in outputs}
            except RuntimeError as exc:
                raise invalid_argument(without_folders(_cause(exc))) from exc

    def release_memory(self) -> bool:
        """Free what a call larger than the first took, once there has been none for a while; whether there was any.

        OpenVINO keeps the memory of the largest call for ever. The next call takes anew what it needs, in milliseconds.
        """
        if self._grown_at is None or time.monotonic() - self._grown_at < _KEPT_S:
            return False
        self._grown_at = None
        for model in self._models:
            model.release_memory()
        return True

    def _note_size(self, size: int) -> None:
        if not self._usual_bytes:
            self._usual_bytes = size
        elif size > self._usual_bytes:
            self._grown_at = time.monotonic()

    @contextmanager
    def _request(self) -> Iterator[Any]:
        with self._lock:
            # The first calls, those of the warm-up, go through all infer requests.
            is_warm = not 0 < self._begun < self.infer_requests
            is_lone = self._latency_request is not None and not self._active and is_warm
            self._begun += 1
            self._active += 1
        request = self._latency_request if is_lone else self._throughput_requests.get()
        try:
            yield request
        finally:
            if not is_lone:
                self._throughput_requests.put(request)
            with self._lock:
                self._active -= 1

    def _tensor(self, array: Array) -> Any:
        """Lend `array` to OpenVINO, which only reads it; it must live until the inference has ended."""
        if not array.flags.c_contiguous:
            return self._openvino.Tensor(array, shared_memory=False)
        return self._openvino.Tensor(array if array.flags.writeable else _writeable_view(array), shared_memory=True)


def _writeable_view(array: Array) -> Array:
    """Return the same memory under another flag: OpenVINO takes no memory that can't be written, as a message's can't,
    and a copy of a picture costs as much as a tenth of a small network."""
    address, _ = array.__array_interface__["data"]
    memory = (ctypes.c_char * array.nbytes).from_address(address)
    return np.ndarray(array.shape, array.dtype, memoryview(memory))


def release_memory() -> bool:
    """Free the memory of big calls that ended a while ago, in all engines; whether there was any."""
    return any([engine.release_memory() for engine in list(_engines)])


def load(model: SavedModel, signature: Signature, threads: Threads) -> OpenVinoEngine:
    """Compile `signature` for the CPU with float32 arithmetic; raises Unsupported."""
    _check_types(signature)
    openvino = import_openvino()
    core = openvino.Core()
    with _read(core, model, signature) as graph:
        throughput_model = core.compile_model(graph, "CPU", _settings(threads.compute, threads.streams))
        twice = threads.has_latency_model and _bytes_of(model.folder) <= _MOST_BYTES_TWICE
        latency_model = core.compile_model(graph, "CPU", _settings(threads.compute, 1)) if twice else None
    inputs = match_ports(openvino, throughput_model.inputs, signature.inputs)
    outputs = match_ports(openvino, throughput_model.outputs, signature.outputs)
    return OpenVinoEngine(openvino, throughput_model, latency_model, inputs, outputs, threads.callers)


def check(model: SavedModel, signature: Signature) -> None:
    """Read `signature` as `load` does, but neither compile nor keep it; raises Unsupported.

    What OpenVINO can't compute shows when it is read. (Asking the CPU plugin too, with `query_model`, takes as long as
    compiling.)
    """
    _check_types(signature)
    openvino = import_openvino()
    with _read(openvino.Core(), model, signature) as graph:
        match_ports(openvino, graph.inputs, signature.inputs)
        match_ports(openvino, graph.outputs, signature.outputs)


@contextmanager
def _read(core: Any, model: SavedModel, signature: Signature) -> Iterator[Any]:
    """Yield the graph of `signature`; what OpenVINO refuses in this block, too, is raised as Unsupported."""
    try:
        if (network := ir_of(model.folder)) is not None:
            if signature.name != DEFAULT_SIGNATURE:
                raise Unsupported(f"the model's {network.name} holds no more than {DEFAULT_SIGNATURE}")
            yield core.read_model(str(network))
            return
        with _folder_with_default(model, signature) as folder:
            yield core.read_model(str(folder))
    except RuntimeError as exc:
        raise Unsupported(f"OpenVINO can't read it ({_cause(exc)})") from exc


def _settings(threads: int, streams: int) -> dict[str, object]:
    # Without the precision hint, a CPU that has bfloat16 would use it and miss TensorFlow's numbers by 1e-2.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    # Bound to a core each, threads would wait for it where others use it, and another one is free.
    return {**settings, "ENABLE_CPU_PINNING": False}


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _check_types(signature: Signature) -> None:
    for specs, exact in ((signature.inputs, _EXACT_INPUTS), (signature.outputs, _EXACT_OUTPUTS)):
        for spec in specs.values():
            if spec.dtype not in exact:
                raise Unsupported(f"OpenVINO doesn't compute {type_name(spec.dtype)} exactly ({spec.alias})")


def import_openvino() -> ModuleType:
    """Return the package openvino without its conversion tools.

    These report every import to Google Analytics, without asking. The package works without them, and its import
    takes a quarter of the time.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # None forbids an import
    import openvino

    # The first array that its bindings meet makes them look for numpy: two threads that come with theirs at once then
    # wait for ever, one with the interpreter's lock for the other, which wants that to go on. So here, by one thread.
    openvino.Tensor(np.zeros(1, np.float32))
    module: ModuleType = openvino
    return module


@contextmanager
def _folder_with_default(model: SavedModel, signature: Signature) -> Iterator[Path]:
    """Yield a SavedModel folder in which `signature` goes by the only name that OpenVINO reads."""
    if signature.name == DEFAULT_SIGNATURE:
        yield model.folder
        return
    message = read_message(model.folder)
    definitions = serving_graph(message, model.folder).signature_def
    definitions[DEFAULT_SIGNATURE].CopyFrom(definitions[signature.name])
    with rewritten(model.folder, message) as folder:
        yield folder


def match_ports(openvino: ModuleType, ports: Sequence[Any], specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Return for each alias the index of its port; raises Unsupported unless they fit one to one."""
    found: dict[str, int] = {}
    for index, port in enumerate(ports):
        for alias in port.get_names() & specs.keys():
            _check_port(openvino, port, specs[alias])
            found[alias] = index
    if found.keys() != specs.keys() or len(set(found.values())) != len(ports):
        read = sorted(alias for port in ports for alias in port.get_names())
        raise Unsupported(f"OpenVINO reads {read} where the signature has {sorted(specs)}")
    return found


def _check_port(openvino: ModuleType, port: Any, spec: TensorSpec) -> None:
    expected = openvino.Type(KINDS[spec.dtype].dtype)
    if port.get_element_type() != expected:
        raise Unsupported(f"OpenVINO reads {spec.alias} as {port.get_element_type()}, not as {expected}")
    unknown = openvino.PartialShape.dynamic() if spec.shape is None else openvino.PartialShape(list(spec.shape))
    if not port.get_partial_shape().compatible(unknown):
        raise Unsupported(f"OpenVINO reads {spec.alias} as {port.get_partial_shape()}, not as {unknown}")


def _cause(exc: RuntimeError) -> str:
    """Return the part of OpenVINO's report that names a reason: the last line that says anything."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else "no reason given"
