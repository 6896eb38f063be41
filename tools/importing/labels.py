"""Reads the labels of a model, in the order of its outputs, from files of several formats."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.importing.frameworks.openvino_models import tflite_labels
from tools.importing.network import ImportProblem, counted
from tools.importing.source import Source

# File names that are searched beside a model. Teachable Machine writes metadata.json, Hugging Face config.json.
_NAMES = (
    "labels.txt", "labelmap.txt", "label_map.txt", "class_names.txt", "classes.txt", "metadata.json", "config.json",
    "labels.json", "class_names.json", "class_indices.json", "classes.json",
)  # fmt: skip
_MOST_BYTES = 8 << 20
_NUMBERED = re.compile(r"(\d+)[\s:,]+(.*\S)")


def find_labels(source: Source, given: Path | None) -> tuple[list[str], str] | None:
    """Return the labels and their source: `given`, a file beside the model, or the model itself. None: there are none.

    Raises:
        ImportProblem: the given file can't be used.
    """
    if given is not None:
        return read_labels(given), str(given)
    for name in _NAMES:
        path = source.beside(name)
        # A file of this name without labels has another purpose.
        labels = read_labels(path, strict=False) if path is not None else []
        if labels:
            return labels, name
    if source.kind == ".tflite" and (packed := tflite_labels(source.path)):
        return _from_lines(packed), "the file itself"
    return None


def read_labels(path: Path, strict: bool = True) -> list[str]:
    """Read labels from JSON, or from lines with or without numbers; raises ImportProblem."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ImportProblem(f"{path.name} has more than {_MOST_BYTES >> 20} MiB, which is too much for labels")
        data = path.read_bytes()
    except OSError as exc:
        raise ImportProblem(f"{path} can't be read ({exc.strerror})") from exc
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        # Some editors on Windows write this encoding.
        text = data.decode("cp1252", errors="replace")
    if path.suffix.lower() != ".json":
        labels = _from_lines(text.splitlines())
    else:
        try:
            labels = _from_json(json.loads(text))
        except (ValueError, RecursionError) as exc:
            if strict:
                raise ImportProblem(f"{path.name} is not JSON ({exc})") from exc
            labels = []
    if strict and not labels:
        raise ImportProblem(f"{path.name} has no labels: write one per line, in the order of the model's outputs")
    return labels


def check_repeated(labels: Sequence[str], where: str) -> None:
    """Raise ImportProblem unless all labels differ."""
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ImportProblem(f"the label {repeated[0]!r} is more than once in {where}")


def check_count(labels: Sequence[str], where: str, classes: int) -> None:
    """Raise ImportProblem unless there is one label for each of the `classes`."""
    if len(labels) != classes:
        raise ImportProblem(
            f"{where} has {counted(len(labels), 'label')}, but the model has {classes} classes: write one per line, in "
            "order of its outputs, and add --labels FILE"
        )


def _from_lines(lines: Sequence[str]) -> list[str]:
    lines = [line.strip() for line in lines if line.strip()]
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    # Teachable Machine writes "0 name". The numbers are removed only if they are 0, 1, 2, ... on all lines.
    if all(match is not None and int(match[1]) == number for number, match in enumerate(matches)):
        return [match[2] for match in matches if match is not None]
    return lines


def _from_json(value: Any) -> list[str]:
    if isinstance(value, list):
        return value if all(isinstance(label, str) for label in value) else []
    if not isinstance(value, Mapping):
        return []
    for key in ("labels", "id2label", "class_names", "classes"):
        if isinstance(value.get(key), (list, Mapping)):
            return _from_json(value[key])
    # {"0": "cat"} is Hugging Face's id2label, {"cat": 0} is Keras' class_indices.
    try:
        if all(isinstance(label, str) for label in value.values()):
            by_number = {int(number): label for number, label in value.items()}
        else:
            by_number = {int(number): str(label) for label, number in value.items()}
    except (ValueError, TypeError):
        return []
    return (
        [by_number[number] for number in sorted(by_number)] if sorted(by_number) == list(range(len(by_number))) else []
    )
