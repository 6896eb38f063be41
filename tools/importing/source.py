"""Finds the model at a path, and the files beside it."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tools.importing.frameworks import tfjs
from tools.importing.frameworks.keras_models import load_h5, load_keras
from tools.importing.frameworks.openvino_models import load_onnx, load_tflite
from tools.importing.frameworks.saved_model import load as load_saved_model
from tools.importing.network import ImportProblem, Network

_MOST_ENTRIES = 10_000
_MOST_BYTES = 4 << 30
# Weights compress badly. A zip whose content is so many times larger is not a model.
_MOST_RATIO = 50
_ALWAYS_ALLOWED_BYTES = 64 << 20

_TORCH = "a pickle, which is code: export the model as ONNX (torch.onnx.export) and import that"
_REFUSED = {
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".ckpt": "a checkpoint without a network: save the whole model (model.save, or tf.saved_model.save)",
    ".index": "a checkpoint without a network: save the whole model (model.save, or tf.saved_model.save)",
    ".pkl": "a pickle, which is code: export the model as ONNX (of fastai: torch.onnx.export(learn.model, ...))",
    ".pickle": "a pickle, which is code: export the model as ONNX",
    ".joblib": "a pickle, which is code: export the model as ONNX (skl2onnx)",
    ".safetensors": "only weights: export the model as ONNX (optimum-cli export onnx)",
    ".npz": "only weights: save the whole model",
    ".mlmodel": "a Core ML model: import the model that it was converted from",
    ".pb": "a graph without signatures: export the model as a SavedModel (saved_model.pb)",
    ".tar": "a tar archive: unpack it, or make a zip of it",
    ".gz": "a tar archive: unpack it, or make a zip of it",
    ".tgz": "a tar archive: unpack it, or make a zip of it",
}
# If a model is there in several formats, the first one in this order is used: the framework's own formats come first.
_KINDS = (".keras", "saved_model.pb", ".h5", ".hdf5", "model.json", ".onnx", ".tflite")


@dataclass(frozen=True)
class Source:
    """A model's file or folder.

    Attributes:
        kind: one of ``_KINDS``.
        root: the folder that the user gave or that a zip was unpacked to.
        name: the default name of the model.
        assumed: assumptions that were needed to find it.
    """

    path: Path
    kind: str
    root: Path
    name: str
    assumed: list[str] = field(default_factory=list)

    def beside(self, *names: str) -> Path | None:
        """Return the first file with one of these names beside the model, or in a folder above it within ``root``."""
        folder = self.path.parent
        for place in [self.path, folder] if self.path.is_dir() else [folder]:
            for name in names:
                if (place / name).is_file():
                    return place / name
        while folder != self.root and self.root in folder.parents:
            folder = folder.parent
            for name in names:
                if (folder / name).is_file():
                    return folder / name
        return None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Find the model in a file, a folder or a zip. The content of a zip is deleted at the end of the block.

    Raises:
        ImportProblem: there is no model that can be imported.
    """
    if not path.exists():
        raise ImportProblem("there is no such file or folder")
    if not (path.is_file() or path.is_dir()):
        raise ImportProblem("it is no regular file: reading it might never end")
    name = path.stem if path.is_file() else path.name
    if path.is_file() and (path.suffix.lower() == ".zip" or (_is_zip(path) and _kind(path) is None)):
        if path.suffix.lower() in _REFUSED:
            raise ImportProblem(f"it is {_REFUSED[path.suffix.lower()]}")
        with tempfile.TemporaryDirectory(prefix="import_") as scratch:
            folder = Path(scratch)
            _unpack(path, folder)
            yield _find(folder, name)
    elif path.is_dir():
        yield _find(path, name)
    else:
        kind = _kind(path)
        if kind == "saved_model.pb":
            yield Source(path.parent, kind, path.parent, path.parent.name)
        elif kind is None:
            raise ImportProblem(_refusal(path))
        else:
            name = path.parent.name if path.stem in ("keras_model", "model", "model_unquant") else path.stem
            yield Source(path, kind, path.parent, name)


def load(source: Source, signature: str | None) -> Network:
    """Load the model; raises ImportProblem."""
    if source.kind == "saved_model.pb":
        return load_saved_model(source.path, signature)
    loaders: dict[str, Callable[[Path], Network]] = {
        ".h5": load_h5,
        ".hdf5": load_h5,
        ".keras": load_keras,
        "model.json": tfjs.load,
        ".tflite": load_tflite,
        ".onnx": load_onnx,
    }
    return loaders[source.kind](source.path)


def _find(root: Path, name: str) -> Source:
    found: dict[str, list[Path]] = {}
    entries = sorted(path for path in root.rglob("*") if "__MACOSX" not in path.parts)
    for path in entries[:_MOST_ENTRIES]:
        kind = _kind(path) if path.is_file() else None
        if kind is not None:
            found.setdefault(kind, []).append(path)
    if not found:
        reasons = [_refusal(path) for path in entries if path.suffix.lower() in _REFUSED]
        raise ImportProblem(f"it holds no model that can be imported{f': it is {reasons[0]}' if reasons else ''}")
    kind = next(kind for kind in _KINDS if kind in found)
    paths = found[kind]
    if kind == ".tflite" and len(paths) > 1:
        # Teachable Machine exports the same model in 8 bits too.
        paths = [max(paths, key=lambda path: path.stat().st_size)]
    if len(paths) > 1:
        listed = ", ".join(str(path.relative_to(root)) for path in paths)
        raise ImportProblem(f"it holds several models: import one of them by its path ({listed})")
    path = paths[0].parent if kind == "saved_model.pb" else paths[0]
    others = [other.relative_to(root) for several in found.values() for other in several if other != paths[0]]
    assumed = []
    if others:
        assumed = [f"{paths[0].relative_to(root)} is meant, and not {', '.join(map(str, others))}"]
    return Source(path, kind, root, name, assumed)


def _kind(path: Path) -> str | None:
    if path.name in ("saved_model.pb", "model.json"):
        return path.name
    suffix = path.suffix.lower()
    return suffix if suffix in _KINDS else None


def _refusal(path: Path) -> str:
    if reason := _REFUSED.get(path.suffix.lower()):
        return f"{path.name} is {reason}"
    return (
        f"{path.name} has no known format: give a Keras file (.h5, .keras), a SavedModel folder, model.json of "
        "TensorFlow.js, .tflite, .onnx, or a zip of one"
    )


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a zip within size limits, which do not rely on the sizes in its headers; raises ImportProblem."""
    left = min(_MOST_BYTES, max(_ALWAYS_ALLOWED_BYTES, _MOST_RATIO * path.stat().st_size))
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise ImportProblem(f"the zip has more than {_MOST_ENTRIES} files, which is too many for a model")
            if sum(entry.file_size for entry in entries) > left:
                raise ImportProblem(f"the zip unpacks to more than {left >> 20} MiB, which is too much for its size")
            for entry in entries:
                target = _target(entry, folder)
                if entry.is_dir():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, target.open("wb") as file:
                    while part := packed.read(1 << 20):
                        left -= len(part)
                        if left < 0:
                            raise ImportProblem("the zip unpacks to more bytes than its headers say")
                        file.write(part)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError) as exc:
        raise ImportProblem(f"it can't be unpacked ({exc}): is the file complete?") from exc
    except OSError as exc:
        shutil.rmtree(folder, ignore_errors=True)
        raise ImportProblem(f"it can't be unpacked into {folder.parent} ({exc.strerror or exc})") from exc


def _target(entry: zipfile.ZipInfo, folder: Path) -> Path:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in entry.filename or "\0" in entry.filename:
        raise ImportProblem(f"the zip holds a file outside of its own folder ({entry.filename[:100]!r})")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise ImportProblem(f"the zip holds a link ({entry.filename[:100]!r})")
    return folder / name
