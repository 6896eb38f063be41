"""TensorFlow's message modules for an environment without TensorFlow.

    python tools/message_modules.py install     write the modules beside the packages of this Python (run.py does this)
    python tools/message_modules.py extract     write app/protos/tensorflow.binpb from the installed TensorFlow

`tensorflow-serving-api` imports a few message modules that are only in TensorFlow's wheel of 570 MB. Their description
has 39 KB: app/protos/tensorflow.binpb, a FileDescriptorSet. The modules are generated from it as protobuf's compiler
does. They are in a folder of their own at the end of Python's path: if TensorFlow is installed, its own modules are
used.
"""

import argparse
import importlib
import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]

DESCRIPTORS = Path(__file__).resolve().parent.parent / "app" / "protos" / "tensorflow.binpb"
# The modules that the services and tensorflow-serving-api import. The others follow from the imports of these.
ROOTS = (
    "tensorflow_serving.apis.prediction_service_pb2",
    "tensorflow_serving.apis.model_service_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
)
FOLDER = "tensorflow_protos"
MODULE = '''"""Made by tools/message_modules.py from {name}, Copyright The TensorFlow Authors, Apache License 2.0."""

from google.protobuf import descriptor_pool
from google.protobuf.internal import builder
{imports}
DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({content!r})
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, {module!r}, globals())
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("install", "extract"))
    if parser.parse_args().command == "extract":
        DESCRIPTORS.write_bytes(extract().SerializeToString(deterministic=True))
    else:
        install(Path(sysconfig.get_path("purelib")))


def install(packages: Path) -> None:
    """Write the modules into a folder in `packages`, and a .pth file that adds this folder to Python's path."""
    shutil.rmtree(packages / FOLDER, ignore_errors=True)
    write_modules(packages / FOLDER)
    (packages / f"{FOLDER}.pth").write_text(f"{FOLDER}\n", encoding="utf-8")


def write_modules(folder: Path) -> None:
    """Write a module for each described file into `folder`. The packages need no `__init__.py`."""
    for file in read().file:
        module = _module_name(file.name)
        imports = "".join(f"import {_module_name(needed)}\n" for needed in file.dependency)
        path = folder / (module.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        content = file.SerializeToString(deterministic=True)
        text = MODULE.format(name=file.name, imports=imports, content=content, module=module)
        path.write_text(text, encoding="utf-8")


def read() -> Any:
    """Return the FileDescriptorSet in app/protos."""
    return descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())


def extract() -> Any:
    """Return the FileDescriptorSet of TensorFlow's files that `ROOTS` import. Each comes after the files it imports.

    Raises ImportError if TensorFlow or tensorflow-serving-api is not installed.
    """
    if "tensorflow" not in sys.modules:
        # An empty module `tensorflow`, because its real __init__ would load all of TensorFlow.
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


def _module_name(file: str) -> str:
    return file.removesuffix(".proto").replace("/", ".") + "_pb2"


if __name__ == "__main__":
    main()
