"""The messages and stubs of ``tensorflow-serving-api``, without TensorFlow.

The generated modules import ``tensorflow.core...``. If TensorFlow is not installed, these modules are made from
``app/protos/tensorflow.binpb``. If it is installed, importing ``tensorflow`` would cost seconds and hundreds of
megabytes. So ``sys.modules`` gets a ``tensorflow`` module that knows its folder but has not been executed. Its
sub-modules are imported as usual. If a model needs the real TensorFlow, ``load_tensorflow`` executes the same module.
The message classes stay the same.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# protobuf ships no types.
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format  # type: ignore[import-untyped]
from google.protobuf.internal import builder  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

# A FileDescriptorSet. Each file comes after the files that it imports.
DESCRIPTORS = Path(__file__).resolve().parent.parent / "protos" / "tensorflow.binpb"


class TensorFlowMissing(ImportError):
    """TensorFlow's runtime is not installed."""


def _register_tensorflow() -> None:
    if "tensorflow" in sys.modules:
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is not None:
        sys.modules["tensorflow"] = importlib.util.module_from_spec(spec)
        return
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        # The same module as protobuf's compiler would write, with its imports as attributes: some generated code finds
        # a module through the module that imports it.
        module = _add_module(_module_name(file.name))
        attributes = vars(module)
        for needed in map(_module_name, file.dependency):
            attributes[needed.partition(".")[0]] = __import__(needed)
        attributes["DESCRIPTOR"] = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
        builder.BuildMessageAndEnumDescriptors(module.DESCRIPTOR, attributes)
        builder.BuildTopDescriptorsAndMessages(module.DESCRIPTOR, module.__name__, attributes)


def _add_module(name: str) -> ModuleType:
    """Return the module ``name``. If it does not exist, make an empty one, and its packages."""
    if name not in sys.modules:
        sys.modules[name] = importlib.util.module_from_spec(ModuleSpec(name, None, is_package=True))
        package, _, last = name.rpartition(".")
        if package:
            setattr(_add_module(package), last, sys.modules[name])
    return sys.modules[name]


def _module_name(file: str) -> str:
    return file.removesuffix(".proto").replace("/", ".") + "_pb2"


# This must run before the imports below. Otherwise they would execute all of TensorFlow, or would not find it.
_register_tensorflow()

from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2  # noqa: E402

ParseError = text_format.ParseError

__all__ = [
    "DecodeError",
    "MessageToDict",
    "ParseError",
    "TensorFlowMissing",
    "descriptor_pb2",
    "descriptor_pool",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "load_prediction_log",
    "load_tensorflow",
    "message_factory",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_service_pb2_grpc",
    "saved_model_pb2",
    "tensor_pb2",
    "tensor_shape_pb2",
    "text_format",
    "types_pb2",
]


def load_prediction_log() -> Any:
    """Import and return the module of ``PredictionLog``. It imports 15 further modules; only warm-up files need it."""
    return importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")


def load_tensorflow() -> ModuleType:
    """Execute the registered ``tensorflow`` module, so that it becomes the real TensorFlow, and return it.

    Raises:
        TensorFlowMissing: it is not installed, or can't be imported.
    """
    module = sys.modules["tensorflow"]
    if hasattr(module, "__version__"):
        return module
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.loader is None or spec.origin is None:
        raise TensorFlowMissing("TensorFlow is not installed")
    try:
        spec.loader.exec_module(module)
    except ImportError as exc:
        raise TensorFlowMissing(f"TensorFlow can't be imported: {exc}") from exc
    return module
