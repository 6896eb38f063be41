"""Copies the message modules of TensorFlow Serving out of their wheels, so that an image needs no TensorFlow.

    python -m tools.collect_messages OUT tensorflow-2.21.0-....whl tensorflow_serving_api-2.21.0-....whl

The generated modules import each other and protobuf, but nothing else of TensorFlow: about 50 files with 140 KB.
It uses only the standard library, because it runs in the first stage of both Dockerfiles.
"""

import argparse
import ast
import zipfile
from pathlib import Path

# The modules of tensorflow-serving-api that the services import. The others follow from the imports of these.
ROOTS = (
    "tensorflow_serving.apis.prediction_service_pb2_grpc",
    "tensorflow_serving.apis.model_service_pb2_grpc",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write to, for example site-packages")
    parser.add_argument("wheels", type=Path, nargs="+")
    options = parser.parse_args()
    archives = [zipfile.ZipFile(wheel) for wheel in options.wheels]
    sources = {name: archive for archive in archives for name in archive.namelist()}
    files = collect(sources)
    for name, source in files.items():
        target = options.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source)
    print(f"{len(files)} modules, {sum(map(len, files.values())) // 1000} KB, in {options.out}")


def collect(sources: dict[str, zipfile.ZipFile]) -> dict[str, bytes]:
    """Return file name -> content for ``ROOTS`` and all modules of ``sources`` that they import, directly or not.

    The packages need no ``__init__.py``: they are namespace packages.
    """
    found: dict[str, bytes] = {}
    waiting = [root.replace(".", "/") + ".py" for root in ROOTS]
    while waiting:
        name = waiting.pop()
        if name not in found and name in sources:
            found[name] = sources[name].read(name)
            waiting += imports(found[name])
    return found


def imports(source: bytes) -> list[str]:
    """Return the files that a module may import; ``from a import b`` can mean ``a.py`` or ``a/b.py``."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.replace(".", "/") + ".py" for name in names]


if __name__ == "__main__":
    main()
