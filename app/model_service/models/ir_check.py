"""Rejects a network in OpenVINO's own format that could do more than compute (`--refuse_unsafe_operations`).

The operations of OpenVINO's operation sets read only their inputs and the weights file, and write only their outputs.
Other operations come from extensions, and the server loads none. Two operations keep state between calls. With them,
one client's photo could change another client's answer.
"""

import re
from pathlib import Path
from xml.parsers import expat

from model_service.errors import StartError, one_line

_OPERATION_SET = re.compile(r"opset\d{1,2}")
_KEEPS_STATE = frozenset({"ReadValue", "Assign"})


def check_ir(path: Path) -> None:
    """Raise StartError if an operation is in no operation set or keeps state, or if the file can't be read."""
    parser = expat.ParserCreate()
    found: list[str] = []

    def on_element(name: str, attributes: dict[str, str]) -> None:
        if name != "layer":
            return
        operation, version = attributes.get("type", ""), attributes.get("version", "")
        if operation in _KEEPS_STATE or not _OPERATION_SET.fullmatch(version):
            found.append(one_line(f'"{operation[:100]}" of "{version[:100]}"'))

    def on_doctype(*_: object) -> None:
        # Entities could expand a small file to a very large one.
        raise StartError(f"{path} has a document type declaration, which an OpenVINO network never has.")

    parser.StartElementHandler = on_element
    parser.StartDoctypeDeclHandler = on_doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as exc:
        raise StartError(f"{path} is broken ({exc}): copy or import the model again.") from exc
    except OSError as exc:
        raise StartError(f"{path} can't be read ({exc.strerror}): is the model folder copied completely?") from exc
    if found:
        raise StartError(
            f"--refuse_unsafe_operations: {path} has the operation {found[0]}, which may do more than compute. "
            "Serve a model without that flag only if you trust its author."
        )
