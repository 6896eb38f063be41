"""Computes a signature with OpenVINO, if OpenVINO's result is the same as TensorFlow's.

OpenVINO's CPU plugin differs from TensorFlow in four ways. It computes 64-bit numbers in 32 bits (2**40 + 1 becomes 1,
1e300 becomes 3.4e38). Small integers saturate instead of wrapping around. It has no strings. It reads some graphs with
inputs missing. So a signature is accepted only if its inputs and outputs have types without these differences, and if
the compiled model has exactly the signature's inputs and outputs. Types inside the graph are not checked: 64-bit steps
between float32 input and float32 output are computed in 32 bits.
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

from model_service.engines.integer_overflow import adds_in_16_bits, may_overflow
from model_service.engines.parallelism import Threads
from model_service.engines.tflite import read_network
from model_service.errors import invalid_argument, one_line, without_folders
from model_service.models.saved_model import (
    DEFAULT_SIGNATURE,
    SERVE_TAGS,
    SavedModel,
    Signature,
    TensorSpec,
    ir_of,
    rewritten,
)
from model_service.models.tensors import KINDS, Array, type_name
from serving_common.tensorflow_protos import saved_model_pb2, types_pb2

_EXACT = frozenset({types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_INT32, types_pb2.DT_BOOL})
# Pixels are uint8; the graph converts them to float32.
_EXACT_INPUTS = _EXACT | {types_pb2.DT_UINT8}
# From such inputs an int64 result is a position or a count (ArgMax, TopK, Shape), which fits into 32 bits.
_EXACT_OUTPUTS = _EXACT | {types_pb2.DT_INT64}
# The quantized numbers of TensorFlow Lite saturate too.
_QUANTIZED = frozenset({types_pb2.DT_INT8, types_pb2.DT_UINT8})


# A larger network is compiled once: one call keeps all cores busy, and a second copy of its weights costs much memory.
_MOST_BYTES_TWICE = 64 << 20

# How long the memory of a large call is kept for the next one.
_KEPT_S = 5.0
# All engines in use; see `release_memory`.
_engines: "weakref.WeakSet[OpenVinoEngine]" = weakref.WeakSet()


class Unsupported(Exception):
    """OpenVINO can't compute this signature, or not exactly."""


class OpenVinoEngine:
    """A compiled signature and its infer requests, each of which computes one call at a time.

    `throughput_model` is compiled for parallel calls. `latency_model`, if there is one, is compiled for a single call
    that uses all cores.
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
        # The additional one is for the executor's additional thread; see InferenceExecutor.
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
        """See Engine. It waits for a free infer request; the GIL is released while it computes."""
        self._note_size(sum(array.nbytes for array in inputs.values()))
        with self._request() as request:
            try:
                for alias, index in self._inputs.items():
                    request.set_input_tensor(index, self._tensor(inputs[alias]))
                request.infer()
                # A copy, because the next caller uses the same infer request.
                return {alias: request.get_output_tensor(self._outputs[alias]).data.copy() for alias in outputs}
            except RuntimeError as exc:
                raise invalid_argument(without_folders(_cause(exc))) from exc

    def release_memory(self) -> bool:
        """Free the memory of calls that were larger than the first one; return whether there was any.

        It does so 5 s after the last such call. OpenVINO itself keeps the memory of the largest call for ever. The
        next call allocates what it needs, which takes milliseconds.
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
            # During the warm-up all infer requests are used once, so that each has allocated its memory.
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
        """Return a tensor that shares the memory of `array`, which must live until the inference has ended."""
        if not array.flags.c_contiguous:
            return self._openvino.Tensor(array, shared_memory=False)
        return self._openvino.Tensor(array if array.flags.writeable else _writeable_view(array), shared_memory=True)


def _writeable_view(array: Array) -> Array:
    """Return the same memory as a writable array. OpenVINO accepts no read-only memory, and the bytes of a message are
    read-only. A copy of one photo would cost a tenth of the time of a small network."""
    address, _ = array.__array_interface__["data"]
    memory = (ctypes.c_char * array.nbytes).from_address(address)
    return np.ndarray(array.shape, array.dtype, memoryview(memory))


def release_memory() -> bool:
    """Free the memory of large calls in all engines, see OpenVinoEngine; return whether there was any."""
    return any([engine.release_memory() for engine in list(_engines)])


def load(model: SavedModel, signature: Signature, threads: Threads) -> OpenVinoEngine:
    """Compile `signature` for the CPU with float32 arithmetic, and integers for 8-bit numbers; raises Unsupported."""
    _check_types(model, signature)
    openvino = import_openvino()
    core = openvino.Core()
    with _read(core, model, signature) as graph:
        integers = not (adds_in_16_bits() and may_overflow(graph))
        throughput_model = core.compile_model(graph, "CPU", _settings(threads.compute, threads.streams, integers))
        twice = threads.has_latency_model and _bytes_of(model.folder) <= _MOST_BYTES_TWICE
        latency_model = core.compile_model(graph, "CPU", _settings(threads.compute, 1, integers)) if twice else None
    inputs = match_ports(openvino, throughput_model.inputs, signature.inputs)
    outputs = match_ports(openvino, throughput_model.outputs, signature.outputs)
    return OpenVinoEngine(openvino, throughput_model, latency_model, inputs, outputs, threads.callers)


def check(model: SavedModel, signature: Signature) -> None:
    """Check that OpenVINO can read `signature`, without compiling it; raises Unsupported.

    Reading shows what OpenVINO can't compute. The CPU plugin's `query_model` would check more, but takes as long as
    compiling.
    """
    _check_types(model, signature)
    openvino = import_openvino()
    with _read(openvino.Core(), model, signature) as graph:
        match_ports(openvino, graph.inputs, signature.inputs)
        match_ports(openvino, graph.outputs, signature.outputs)


@contextmanager
def _read(core: Any, model: SavedModel, signature: Signature) -> Iterator[Any]:
    """Yield the graph of `signature`. OpenVINO's errors while it is read or used in the block become Unsupported."""
    try:
        if model.is_tflite:
            yield read_network(core, model, signature)
            return
        if (network := ir_of(model.folder)) is not None:
            if signature.name != DEFAULT_SIGNATURE:
                raise Unsupported(f"the model's {network.name} holds no more than {DEFAULT_SIGNATURE}")
            yield core.read_model(str(network))
            return
        with _folder_with_default(model, signature) as folder:
            yield core.read_model(str(folder))
    except RuntimeError as exc:
        raise Unsupported(f"OpenVINO can't read it ({_cause(exc)})") from exc


def _settings(threads: int, streams: int, integers: bool) -> dict[str, object]:
    # Without this hint a CPU with bfloat16 uses it, and the results differ from TensorFlow's by 1e-2.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    # A pinned thread would wait for its core while other programs use it, even if another core is idle.
    # The last one is the CPU plugin's own setting: whether 8-bit numbers are multiplied as integers.
    return {**settings, "ENABLE_CPU_PINNING": False, "LP_TRANSFORMS_MODE": integers}


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _check_types(model: SavedModel, signature: Signature) -> None:
    more = _QUANTIZED if model.is_tflite else frozenset()
    for specs, exact in ((signature.inputs, _EXACT_INPUTS | more), (signature.outputs, _EXACT_OUTPUTS | more)):
        for spec in specs.values():
            if spec.dtype not in exact:
                raise Unsupported(f"OpenVINO doesn't compute {type_name(spec.dtype)} exactly ({spec.alias})")


def import_openvino() -> ModuleType:
    """Return the package openvino without its conversion tools.

    Those tools report every import to Google Analytics without asking. The package works without them, and the import
    takes a quarter of the time.
    """
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # None forbids an import
    import openvino

    # The first array makes the bindings import numpy. Two threads that do this at the same time deadlock: one holds the
    # GIL, and the other waits for it. So one thread does it here.
    openvino.Tensor(np.zeros(1, np.float32))
    module: ModuleType = openvino
    return module


@contextmanager
def _folder_with_default(model: SavedModel, signature: Signature) -> Iterator[Path]:
    """Yield a SavedModel folder in which `signature` is the default signature, the only one that OpenVINO reads."""
    if signature.name == DEFAULT_SIGNATURE and model.tags == SERVE_TAGS:
        yield model.folder
        return
    graph = model.graph()
    graph.signature_def[DEFAULT_SIGNATURE].CopyFrom(graph.signature_def[signature.name])
    graph.meta_info_def.tags[:] = SERVE_TAGS
    with rewritten(model.folder, saved_model_pb2.SavedModel(meta_graphs=[graph])) as folder:
        yield folder


def match_ports(openvino: ModuleType, ports: Sequence[Any], specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """Return the index of each alias's port; raises Unsupported unless ports and `specs` match one to one."""
    found: dict[str, int] = {}
    for index, port in enumerate(ports):
        for alias in port.get_names() & specs.keys():
            _check_port(openvino, port, specs[alias])
            found[alias] = index
    if found.keys() != specs.keys() or len(set(found.values())) != len(ports):
        read = sorted(alias for port in ports for alias in port.get_names())
        raise Unsupported(f"OpenVINO reads {read}, but the signature has {sorted(specs)}")
    return found


def _check_port(openvino: ModuleType, port: Any, spec: TensorSpec) -> None:
    expected = openvino.Type(KINDS[spec.dtype].dtype)
    if port.get_element_type() != expected:
        raise Unsupported(f"OpenVINO reads {spec.alias} as {port.get_element_type()}, not as {expected}")
    unknown = openvino.PartialShape.dynamic() if spec.shape is None else openvino.PartialShape(list(spec.shape))
    if not port.get_partial_shape().compatible(unknown):
        raise Unsupported(f"OpenVINO reads {spec.alias} as {port.get_partial_shape()}, not as {unknown}")


def _cause(exc: RuntimeError) -> str:
    """Return the last line of OpenVINO's error that is not empty: it names the reason."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else "no reason given"
