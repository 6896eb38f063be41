"""Takes the message modules of TensorFlow Serving out of their wheels, so that an image needs no TensorFlow.

    python -m tools.collect_messages OUT tensorflow-2.21.0-....whl tensorflow_serving_api-2.21.0-....whl

The generated modules import each other and protobuf, nothing else of TensorFlow: about 50 files of 140 KB in all.
Standard library only, since it runs in the first stage of both Dockerfiles.
"""

import argparse
import ast
import zipfile
from pathlib import Path

# What either service imports of tensorflow-serving-api; the rest follows from the modules' own imports.
ROOTS = (
    "tensorflow_serving.apis.prediction_service_pb2_grpc",
    "tensorflow_serving.apis.model_service_pb2_grpc",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write to; beside site-packages, say")
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
    """File name -> content of ``ROOTS`` and all that they import of what ``sources`` holds.

    Packages need no ``__init__.py``: Python takes a plain folder for one.
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
    """The files that a module's imports may mean; ``from a import b`` may be ``a.py`` or ``a/b.py``."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name.replace(".", "/") + ".py" for name in names]


if __name__ == "__main__":
    main()
