"""Shared by the tests of the model server: models made for the tests, and clients."""

import atexit
import contextlib
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model_service.models import saved_model, servables, tensors
from model_service.prediction import warmup
from serving_common import tensorflow_protos
from unit_test import processes

Array = np.ndarray[Any, np.dtype[Any]]

DATA_TYPES = {kind.dtype: kind.number for kind in tensors.KINDS.values()}


def saved_models() -> Path:
    """Return the folder that saved_models.py has filled."""
    return made_by("saved_models.py")


@functools.cache
def made_by(program: str) -> Path:
    """Return the folder that a program beside this file has filled. It is made once and deleted at the end."""
    folder = tempfile.mkdtemp(prefix="saved_models_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(program), folder], capture_output=True, text=True, timeout=300
    )
    if done.returncode != 0:
        raise RuntimeError(f"the test models could not be made:\n{done.stderr}")
    return Path(folder)


@functools.cache
def shared_server(model: str, *flags: str) -> processes.ModelServer:
    """Return a server of the model that runs until the tests end. Tests must leave its state unchanged."""
    stack = contextlib.ExitStack()
    server = stack.enter_context(processes.model_server(saved_models() / model, "CAT-DOG", *flags))
    atexit.register(stack.close)
    return server


def copy_of_model(name: str, folder: str | Path) -> Path:
    """Copy a model to its own base path in `folder`, so that a test can break it; return the version folder."""
    shutil.copytree(saved_models() / name, Path(folder, name))
    return Path(folder, name, "1")


def expected(
    model: str, signature: str = "serving_default", folder: Path | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return inputs for a signature, and the outputs that TensorFlow computed for them."""
    sides: dict[str, dict[str, Array]] = {"in": {}, "out": {}}
    with np.load((folder or saved_models()) / f"{model}.{signature}.npz") as arrays:
        for key, array in arrays.items():
            side, name = key.split()
            sides[side][name] = array.astype(object) if array.dtype.kind == "S" else array
    return sides["in"], sides["out"]


def served(engine: Any, signature: Any) -> Any:
    """Return the Servables of a model M, version 1, with one signature that `engine` computes."""
    definitions = tensorflow_protos.get_model_metadata_pb2.SignatureDefMap()
    model = saved_model.SavedModel(Path(), 1, {signature.name: signature}, definitions)
    return servables.Servables(servables.Servable("M", model, {signature.name: engine}))


def to_tensor(array: Array) -> Any:
    """Return an array as a client's TensorProto, with raw content if the type allows it."""
    if array.dtype == np.object_:
        return tensors.to_tensor(array, DATA_TYPES[array.dtype])
    tensor = tensorflow_protos.tensor_pb2.TensorProto(dtype=DATA_TYPES[array.dtype], tensor_content=array.tobytes())
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def predict_request(
    inputs: Mapping[str, Array], name: str = "CAT-DOG", signature: str = "", output_filter: Iterable[str] = ()
) -> Any:
    """Return a PredictRequest with these inputs."""
    request = tensorflow_protos.predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for alias, array in inputs.items():
        request.inputs[alias].CopyFrom(to_tensor(array))
    return request


def frame(record: bytes) -> bytes:
    """Return a record in the format of a TFRecord file."""
    length = len(record).to_bytes(8, "little")
    return b"".join(part + warmup.masked_crc32c(part).to_bytes(4, "little") for part in (length, record))


def warmup_record(signature: str, inputs: Mapping[str, Array]) -> bytes:
    """Return a record of a warm-up file: one request for this signature."""
    log = tensorflow_protos.load_prediction_log().PredictionLog()
    log.predict_log.request.CopyFrom(predict_request(inputs, "M", signature))
    return frame(log.SerializeToString())
