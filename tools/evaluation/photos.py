"""Finds labelled photos in folders, with their class and source."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
UNKNOWN_SOURCE = "unknown"


class PhotosError(Exception):
    """A folder, an index or a list of labels is not usable; the message says which and why."""


@dataclass(frozen=True)
class Photo:
    """A file, the number of its class, and its source."""

    path: Path
    label: int
    source: str


def read_labels(path: Path) -> list[str]:
    """Return the class names in the model's order, from lines such as `0 Cat`; raises PhotosError."""
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise PhotosError(f"{path}: {exc}") from exc
    if [line[0] for line in lines] != [str(number) for number in range(len(lines))]:
        raise PhotosError(f"{path}: the lines must begin with 0, 1, 2 ... in order")
    if len(lines) < 2 or any(len(line) != 2 for line in lines):
        raise PhotosError(f"{path}: needs a name after each number, and at least two classes")
    return [line[1].strip() for line in lines]


def read_sources(index: Path | None) -> dict[str, str]:
    """Return the source of each relative path in an index with the columns `path` and `source`; raises PhotosError."""
    if index is None:
        return {}
    try:
        with index.open(encoding="utf-8", newline="") as stream:
            return {row["path"]: row["source"] for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise PhotosError(f"{index}: {exc}") from exc
    except KeyError as exc:
        raise PhotosError(f"{index}: has no column {exc.args[0]!r}") from exc


def find_index(folder: Path) -> Path | None:
    """Return INDEX.csv in `folder` or in its parent, or None."""
    return next((path for path in (folder / "INDEX.csv", folder.parent / "INDEX.csv") if path.is_file()), None)


def _class_folder(folder: Path, label: str) -> Path:
    """Return the subfolder with the name `label` in any case; raises PhotosError."""
    found = [path for path in folder.iterdir() if path.is_dir() and path.name.lower() == label.lower()]
    if not found:
        raise PhotosError(f"{folder}: no folder {label.lower()!r} in it, so that class has no photos")
    return found[0]


def _photo_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file())


def find_photos(folder: Path, labels: Sequence[str], index: Path | None = None) -> list[Photo]:
    """Return every photo in `folder`/{class}, sorted by class and path.

    Raises PhotosError if a folder is missing or a class has no photos, because then no accuracy is meaningful.
    Paths in `index` are relative to its folder. A photo that is not in the index has the source "unknown".
    """
    if not folder.is_dir():
        raise PhotosError(f"{folder}: no such folder")
    sources = read_sources(index)
    base = index.parent.resolve() if index else folder.resolve()
    photos = []
    for number, label in enumerate(labels):
        files = list(_photo_files(_class_folder(folder, label)))
        if not files:
            raise PhotosError(f"{folder}: the folder of class {label!r} holds no photos")
        photos += [Photo(path, number, sources.get(relative(path, base), UNKNOWN_SOURCE)) for path in files]
    return photos


def relative(path: Path, base: Path) -> str:
    """Return the path below `base`, as an index has it; the whole path if it is elsewhere."""
    resolved = path.resolve()
    return resolved.relative_to(base).as_posix() if resolved.is_relative_to(base) else resolved.as_posix()
