"""Labelled photos in folders: which there are, of which class, from which source."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
UNKNOWN_SOURCE = "unknown"


class PhotosError(Exception):
    """A folder, an index or a list of labels that can't be used; the message says which and why."""


@dataclass(frozen=True)
class Photo:
    """One file, the number of its class, and where it came from."""

    path: Path
    label: int
    source: str


def read_labels(path: Path) -> list[str]:
    """Class names in the model's order from lines such as `0 Cat`; raises PhotosError."""
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
    """Source by relative path from an index with the columns `path` and `source`; raises PhotosError."""
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
    """INDEX.csv in `folder` or in its parent, where there is one."""
    return next((path for path in (folder / "INDEX.csv", folder.parent / "INDEX.csv") if path.is_file()), None)


def _class_folder(folder: Path, label: str) -> Path:
    """The subfolder named as `label` in any case; raises PhotosError."""
    found = [path for path in folder.iterdir() if path.is_dir() and path.name.lower() == label.lower()]
    if not found:
        raise PhotosError(f"{folder}: no folder {label.lower()!r} in it, so that class has no photos")
    return found[0]


def _photo_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file())


def find_photos(folder: Path, labels: Sequence[str], index: Path | None = None) -> list[Photo]:
    """Every photo in `folder`/{class}, sorted by class and path; raises PhotosError.

    A folder is missing, or a class has no photos: that is an error, because no accuracy would mean anything.
    Paths in `index` are relative to the folder that holds it; a photo that it doesn't list is of unknown source.
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
        photos += [Photo(path, number, sources.get(_relative(path, base), UNKNOWN_SOURCE)) for path in files]
    return photos


def find_unlabelled(folder: Path) -> list[Photo]:
    """Every photo in `folder`, its first subfolder as the source, class -1; raises PhotosError where there is none."""
    files = list(_photo_files(folder)) if folder.is_dir() else []
    if not files:
        raise PhotosError(f"{folder}: no photos in it")
    return [Photo(path, -1, path.relative_to(folder).parts[0]) for path in files]


def _relative(path: Path, base: Path) -> str:
    resolved = path.resolve()
    return resolved.relative_to(base).as_posix() if resolved.is_relative_to(base) else resolved.as_posix()
