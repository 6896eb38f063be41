"""Runs a model before anyone waits for it: the requests that came with it, or else one made up of zeros."""

import logging
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path

import google_crc32c
import numpy as np

from model_service.errors import ServingError, StartError
from model_service.models.saved_model import DEFAULT_SIGNATURE, SavedModel, Signature, TensorSpec
from model_service.models.servables import Servable, Servables
from model_service.models.tensors import KINDS, Array
from model_service.prediction import predict as prediction
from serving_common.tensorflow_protos import DecodeError, load_prediction_log, predict_pb2

logger = logging.getLogger(__name__)

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")


def warm_up(servable: Servable, iterations: int, max_bytes: int) -> None:
    """Replay the model's warm-up file `iterations` times, or run each signature once on zeros where it has none.

    The first request of a signature, or its zeros, run at least as often as its engine has infer requests. No input
    may take more than `max_bytes`, as none of a client's may.

    Raises StartError if the file is broken or a request of it fails, or if the model can't even compute zeros of
    a shape that its signature gives in full.
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

    All of the model's, where there is no file or one that says nothing: one that is broken is for `warm_up` to tell.
    """
    path = model.folder / WARMUP_FILE
    called: set[str] = set()
    if path.is_file():
        with suppress(StartError):
            called = {request.model_spec.signature_name or DEFAULT_SIGNATURE for request in _requests(path)}
    return called or set(model.signatures)


def _replay(servable: Servable, path: Path, iterations: int, max_bytes: int) -> None:
    servables = Servables(servable)
    touched: set[str] = set()
    try:
        for request in _requests(path):
            # Of the recorded model_spec only the signature counts.
            request.model_spec.name = servable.name
            request.model_spec.ClearField("version_choice")
            for _ in range(max(iterations, _untouched_infer_requests(servable, request, touched))):
                prediction.predict(servables, request, max_bytes)
    except ServingError as exc:
        raise StartError(f"A warmup request in {path} failed ({exc.message}): record them again.") from exc


def _untouched_infer_requests(servable: Servable, request: predict_pb2.PredictRequest, touched: set[str]) -> int:
    """Return how many calls it takes until each slot has allocated its own memory: none after the first record."""
    signature = servable.signature(request.model_spec.signature_name)
    if signature is None or signature.name in touched:
        return 0
    touched.add(signature.name)
    return servable.engines[signature.name].infer_requests


def _requests(path: Path) -> Iterator[predict_pb2.PredictRequest]:
    prediction_log = load_prediction_log()
    for number, record in enumerate(read_records(path.read_bytes(), path)):
        if number == MAX_RECORDS:
            raise StartError(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
        try:
            log = prediction_log.PredictionLog.FromString(record)
        except DecodeError as exc:
            raise StartError(f"Failed to parse warmup record: {number} of {path}") from exc
        if not log.HasField("predict_log"):
            raise StartError(f"Unsupported log_type for warmup: {log.WhichOneof('log_type')} in {path}")
        yield log.predict_log.request


def read_records(content: bytes, path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: length, its checksum, data, its checksum, all little-endian.

    Raises StartError, naming `path`, where the framing or a checksum is wrong.
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
    """Return the CRC-32C of `data`, rotated and shifted as TFRecord stores it.

    (A checksum stored among the data that it covers would otherwise weaken the next one.)
    """
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _run_on_zeros(servable: Servable, signature: Signature, max_bytes: int) -> None:
    if sum(prod(_ones(spec)) * KINDS[spec.dtype].dtype.itemsize for spec in signature.inputs.values()) > max_bytes:
        logger.info("%s was not warmed up: its inputs take more than %d bytes", signature.name, max_bytes)
        return
    inputs = {alias: _zeros(spec) for alias, spec in signature.inputs.items()}
    try:
        # Each slot has memory of its own, which its first call allocates.
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
    """The signature's shape, with 1 for each dimension that it leaves open."""
    return tuple(1 if size < 0 else size for size in spec.shape or ())


def _is_sure(spec: TensorSpec) -> bool:
    """Whether zeros are surely valid: nothing but the batch is unknown, and no string could want a meaning."""
    return not KINDS[spec.dtype].is_string and spec.shape is not None and all(size >= 0 for size in spec.shape[1:])
