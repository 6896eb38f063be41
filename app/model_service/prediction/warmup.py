"""Runs a model before it is served: with the requests in its warm-up file, or with zeros."""

import logging
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from model_service.errors import ServingError, StartError, invalid_argument
from model_service.models.saved_model import DEFAULT_SIGNATURE, SavedModel, Signature, TensorSpec
from model_service.models.servables import Servable, Servables
from model_service.models.tensors import KINDS, Array
from model_service.prediction import examples
from model_service.prediction import predict as prediction
from model_service.prediction.validation import Options, specs_of
from model_service.prediction.wire_format import read_examples
from serving_common.tensorflow_protos import DecodeError, load_prediction_log

logger = logging.getLogger(__name__)

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

# The fields of a PredictionLog that can be replayed, and their methods.
_APIS = {
    "predict_log": "Predict",
    "classify_log": "Classify",
    "regress_log": "Regress",
    "multi_inference_log": "MultiInference",
}

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


def warm_up(servable: Servable, iterations: int, max_bytes: int) -> None:
    """Replay the model's warm-up file `iterations` times. Without a file, run each signature on zeros.

    The first request of a signature, or its zeros, run at least once per infer request of its engine. As for clients,
    no input may take more than `max_bytes`.

    Raises StartError if the file is broken or one of its requests fails. Also if the model fails on zeros, and its
    signature gives the full shape.
    """
    path = servable.model.folder / WARMUP_FILE
    if path.is_file():
        _replay(servable, path, iterations, max_bytes)
        return
    logger.info("No warmup data file found at %s", path)
    for signature in map(servable.signature, servable.engines):
        if signature is not None:
            _run_on_zeros(servable, signature, max_bytes)


def called_signatures(model: SavedModel) -> Collection[str]:
    """Return the names of the signatures that the model's warm-up file calls.

    Without a file, or if the file is broken or empty, these are all signatures. `warm_up` reports a broken file.
    """
    path = model.folder / WARMUP_FILE
    called: set[str] = set()
    if path.is_file():
        with suppress(StartError):
            called = {name for _, request in _requests(path) for name in _signatures(request)}
    return called or set(model.signatures)


def _replay(servable: Servable, path: Path, iterations: int, max_bytes: int) -> None:
    servables = Servables(servable)
    touched: set[str] = set()
    try:
        for api, request in _requests(path):
            # Only the recorded signatures are used, not the recorded name and version.
            for spec in specs_of(request):
                spec.name = servable.name
                spec.ClearField("version_choice")
            # The first record of a signature lets each infer request of its engine allocate its memory.
            first = _signatures(request) & servable.engines.keys() - touched
            touched |= first
            for _ in range(max([iterations, *(servable.engines[name].infer_requests for name in first)])):
                _answer(api, servables, request, Options(max_bytes))
    except ServingError as exc:
        raise StartError(f"A warmup request in {path} failed ({exc.message}): record them again.") from exc


def _answer(api: str, servables: Servables, request: Any, options: Options) -> None:
    if api == "Predict":
        prediction.predict(servables, request, options)
        return
    sent = read_examples(request.SerializeToString(), request.DESCRIPTOR.name)
    if sent.size > options.max_bytes:
        raise invalid_argument(f"The examples take more than {options.max_bytes} bytes (--max_message_bytes)")
    examples.answer(api, servables, request, sent, options)


def _signatures(request: Any) -> set[str]:
    return {spec.signature_name or DEFAULT_SIGNATURE for spec in specs_of(request)}


def _requests(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the method and the request of each record."""
    prediction_log = load_prediction_log()
    for number, record in enumerate(read_records(path.read_bytes(), path)):
        if number == MAX_RECORDS:
            raise StartError(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
        try:
            log = prediction_log.PredictionLog.FromString(record)
        except DecodeError as exc:
            raise StartError(f"Failed to parse warmup record: {number} of {path}") from exc
        kind = log.WhichOneof("log_type")
        if kind not in _APIS:
            raise StartError(f"Unsupported log_type for warmup: {kind} in {path}")
        yield _APIS[kind], getattr(log, kind).request


def read_records(content: bytes, path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file. Each is a length, its checksum, the data, its checksum; little-endian.

    Raises StartError, which names `path`, if the framing or a checksum is wrong.
    """
    position = 0
    while position < len(content):
        header, position = _checked(content, position, _LENGTH.size, path)
        record, position = _checked(content, position, _LENGTH.unpack(header)[0], path)
        yield record


def _checked(content: bytes, start: int, size: int, path: Path) -> tuple[bytes, int]:
    end = start + size
    part, checksum = content[start:end], content[end : end + _CHECKSUM.size]
    if len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != masked_crc32c(part):
        raise StartError(f"{path} is broken at byte {start}. Please verify your warmup data is in TFRecord format.")
    return part, end + _CHECKSUM.size


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`, rotated and offset as TFRecord stores it.

    The mask is necessary because the CRC of data that contains its own CRC is weak.
    """
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _run_on_zeros(servable: Servable, signature: Signature, max_bytes: int) -> None:
    if sum(prod(_ones(spec)) * KINDS[spec.dtype].dtype.itemsize for spec in signature.inputs.values()) > max_bytes:
        logger.info("%s was not warmed up: its inputs take more than %d bytes", signature.name, max_bytes)
        return
    inputs = {alias: _zeros(spec) for alias, spec in signature.inputs.items()}
    try:
        # Each infer request allocates its memory at its first call.
        for _ in range(servable.engines[signature.name].infer_requests):
            prediction.run(servable, signature, inputs, list(signature.outputs))
    except ServingError as exc:
        if all(_is_sure(spec) for spec in signature.inputs.values()):
            raise StartError(
                f"{servable.model.folder} loads, but {signature.name} fails on zeros ({exc.message}): "
                "export the model again."
            ) from exc
        logger.info("%s was not warmed up: it refuses zeros (%s)", signature.name, exc.message)


def _zeros(spec: TensorSpec) -> Array:
    kind = KINDS[spec.dtype]
    return np.full(_ones(spec), b"" if kind.is_string else 0, kind.dtype)


def _ones(spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of the signature with 1 for each unknown dimension."""
    return tuple(1 if size < 0 else size for size in spec.shape or ())


def _is_sure(spec: TensorSpec) -> bool:
    """Return whether zeros are surely valid: for numbers or pixels of which only the batch size is unknown.

    A whole number may be an index or a length, and a string anything: then 0 or "" may be wrong.
    """
    dtype = KINDS[spec.dtype].dtype
    is_value = dtype.kind == "f" or dtype == np.uint8
    return is_value and spec.shape is not None and all(size >= 0 for size in spec.shape[1:])
