"""Writes app/protos/tensorflow.binpb anew, from the installed TensorFlow.

    python tools/message_descriptors.py     `python run.py lock` does so

`tensorflow-serving-api` imports a few message modules that only TensorFlow's wheel of 570 MB holds. What they describe
is 39 KB: a FileDescriptorSet. Where TensorFlow is not installed, both services make the modules from it.
"""

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]

DESCRIPTORS = Path(__file__).resolve().parent.parent / "app" / "protos" / "tensorflow.binpb"
# What the services and tensorflow-serving-api import; the rest follows from the files' own imports.
ROOTS = (
    "tensorflow_serving.apis.prediction_service_pb2",
    "tensorflow_serving.apis.model_service_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    DESCRIPTORS.write_bytes(extract().SerializeToString(deterministic=True))


def read() -> Any:
    """Return the FileDescriptorSet that the project holds."""
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def extract() -> Any:
    """Return the FileDescriptorSet of TensorFlow's files that `ROOTS` import; each stands after those that it imports.

    Raises ImportError where TensorFlow or tensorflow-serving-api is not installed.
    """
    if "tensorflow" not in sys.modules:
        # The message modules are wanted, not all of TensorFlow, which its __init__ would load.
        spec = importlib.util.find_spec("tensorflow")
        if spec is None or spec.loader is None:
            raise ImportError("TensorFlow is not installed")
        sys.modules["tensorflow"] = importlib.util.module_from_spec(spec)
    found: dict[str, Any] = {}
    for root in ROOTS:
        _add(importlib.import_module(root).DESCRIPTOR, found)
    files = [file for name, file in found.items() if not name.startswith(("google/", "tensorflow_serving/"))]
    return descriptor_pb2.FileDescriptorSet(file=files)


def _add(descriptor: Any, found: dict[str, Any]) -> None:
    if descriptor.name in found:
        return
    for needed in descriptor.dependencies:
        _add(needed, found)
    found[descriptor.name] = descriptor_pb2.FileDescriptorProto.FromString(descriptor.serialized_pb)


if __name__ == "__main__":
    main()
