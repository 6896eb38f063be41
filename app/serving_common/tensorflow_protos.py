"""The official messages and stubs of ``tensorflow-serving-api``, without the weight of TensorFlow.

The generated modules import ``tensorflow.core...``, and a plain import of those runs ``tensorflow/__init__``: seconds
and hundreds of megabytes for a few message classes. So ``tensorflow`` is registered as a bare package first: a name and
a folder, its ``__init__`` not run. In a container the folder may hold nothing but these modules.
"""

import importlib.util
import sys
from types import ModuleType

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]


def _register_bare_package(name: str) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}; install requirements.txt", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package


_register_bare_package("tensorflow")

from tensorflow.core.framework import types_pb2  # noqa: E402 - the bare package has to stand first
from tensorflow_serving.apis.get_model_metadata_pb2 import (  # noqa: E402
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (  # noqa: E402
    GetModelStatusRequest,
    ModelVersionStatus,
)
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub  # noqa: E402
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse  # noqa: E402
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub  # noqa: E402

DT_FLOAT = types_pb2.DT_FLOAT
DT_UINT8 = types_pb2.DT_UINT8

__all__ = [
    "DT_FLOAT",
    "DT_UINT8",
    "DecodeError",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "ModelServiceStub",
    "ModelVersionStatus",
    "PredictRequest",
    "PredictResponse",
    "PredictionServiceStub",
    "SignatureDefMap",
]
