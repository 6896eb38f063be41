"""Finds the classes and their photos in a folder as people make it: one folder per class, or train/ and val/."""

import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from preprocess_service.app.imaging.formats import sniff
from tools.evaluation.photos import UNKNOWN_SOURCE, Photo
from tools.training.run import TrainError

FEWEST_CLASSES, MOST_CLASSES = 2, 200
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation")
# A file with one of these suffixes is meant to be a photo: it is reported if it can't be read. Any other file is a
# photo if its first bytes are those of one.
_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
_HEAD_BYTES = 16
# Folders of systems and programs.
_FOREIGN = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_MOST_NAMED = 5


@dataclass(frozen=True)
class Found:
    """The photos of a folder, sorted by class and path. `validation` is None if the folder is not split.

    `notes` are sentences for the user.
    """

    labels: tuple[str, ...]
    photos: list[Photo]
    validation: list[Photo] | None
    notes: list[str]


def find_dataset(folder: Path) -> Found:
    """Find the classes of `folder` and their photos. A class has the name of its folder.

    Photos in folders within a class belong to the class. train/ and val/ are used if both are there.

    Raises:
        TrainError: it has not 2 to 200 classes with photos, or the classes of train/ and val/ differ.
    """
    if not folder.exists():
        raise TrainError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise TrainError(f"{folder} is a file: give the folder that has one folder of photos per class")
    parts = parts_of(folder)
    if parts is None:
        labels, photos, notes = _read_classes(folder)
        return Found(labels, photos, None, notes)
    training, validation = parts
    labels, photos, notes = _read_classes(training)
    others, held, more = _read_classes(validation)
    if tuple(map(name_key, labels)) != tuple(map(name_key, others)):
        missing = {name_key(label): label for label in (*labels, *others)}
        different = [missing[key] for key in sorted(set(map(name_key, labels)) ^ set(map(name_key, others)))]
        raise TrainError(f"{training} and {validation} have different classes: only one of them has {named(different)}")
    return Found(labels, photos, held, [*notes, *more])


def named(names: Sequence[str]) -> str:
    """Return the first names for a message, and the number of the others."""
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown


def counted(number: int, noun: str) -> str:
    """Return for example `1 photo is` or `2 photos are`."""
    return f"1 {noun} is" if number == 1 else f"{number} {noun}s are"


def name_key(name: str) -> str:
    """Return the same key for names that systems or people treat as equal."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, without hidden ones and those of systems, sorted by name."""
    try:
        found = [path for path in folder.iterdir() if not _is_foreign(path.name) and path.is_dir()]
    except OSError as exc:
        raise TrainError(f"{folder} can't be read ({exc.strerror})") from exc
    return sorted(found, key=lambda path: (name_key(path.name), path.name))


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _FOREIGN


def parts_of(folder: Path) -> tuple[Path, Path] | None:
    """Return train/ and val/ if both are there."""
    by_name = {name_key(path.name): path for path in folders_in(folder)}
    training = next((by_name[name] for name in TRAINING if name in by_name), None)
    validation = next((by_name[name] for name in VALIDATION if name in by_name), None)
    return (training, validation) if training and validation else None


def _read_classes(folder: Path) -> tuple[tuple[str, ...], list[Photo], list[str]]:
    """Return labels, photos and notes."""
    folders = folders_in(folder)
    if len(folders) < FEWEST_CLASSES:
        raise TrainError(_too_few(folder, folders))
    if len(folders) > MOST_CLASSES:
        raise TrainError(f"{folder} has {len(folders)} folders, and there may be at most {MOST_CLASSES} classes")
    labels = tuple(_label(path) for path in folders)
    for label, next_label in pairwise(labels):
        if name_key(label) == name_key(next_label):
            raise TrainError(f"{folder} has two folders for one class: {label!r} and {next_label!r}. Rename one")
    photos, notes, empty, others = [], [], [], 0
    special: list[str] = []
    for number, (path, label) in enumerate(zip(folders, labels, strict=True)):
        files = files_of(path)
        photos += [Photo(Path(file), number, UNKNOWN_SOURCE) for file in files.photos]
        others += files.others
        special += files.special
        if not files.photos:
            empty.append(label)
        elif within := [inner.name for inner in folders_in(path)]:
            notes.append(f"folders within {label!r} belong to this class: {named(within)}")
    if empty:
        raise TrainError(f"{folder}: no photo in the folder of {named(empty)}: add photos, or remove the folder")
    beside = [file for file in folder.iterdir() if not _is_foreign(file.name) and file.is_file()]
    loose = sum(is_photo(str(file)) for file in beside)
    if loose:
        notes.append(f"{counted(loose, 'photo')} directly in {folder}, in no class, and not used")
    if others:
        notes.append(f"{counted(others, 'file')} no photo{'s' * (others > 1)}, and not used")
    return labels, photos, [*notes, *note_of_special(special)]


def _too_few(folder: Path, folders: Sequence[Path]) -> str:
    if not folders:
        return f"{folder} has no folders: make one for each class, named as the class, and put its photos there"
    inner = folders_in(folders[0])
    if len(inner) >= FEWEST_CLASSES:
        return f"{folder} has only one folder. That one has {len(inner)}: did you mean {folders[0]}?"
    return f"{folder} has only one class, {folders[0].name!r}: a classifier needs two or more folders of photos"


def _label(path: Path) -> str:
    """Return the class's name, in the form of Unicode that keyboards write (macOS stores another one)."""
    label = unicodedata.normalize("NFC", path.name).strip()
    try:
        label.encode()
    except UnicodeEncodeError:
        raise TrainError(f"the name of the folder {str(path)!r} is not UTF-8: rename it") from None
    # labels.txt has one label per line.
    if not label or label.splitlines() != [label] or not label.isprintable():
        raise TrainError(f"the name of the folder {str(path)!r} can't be a label: rename it")
    return label


@dataclass(frozen=True)
class Files:
    """The files of a class, sorted: the paths of photos, the number of others, and the paths of what is no file."""

    photos: list[str]
    others: int
    special: list[str]


def files_of(folder: Path) -> Files:
    """Return the files in `folder` and the folders within. Reading a named pipe or a device might never end."""
    photos, others, special = [], 0, []
    for file in sorted(files_in(folder)):
        if _is_special(file):
            special.append(file)
        elif is_photo(file):
            photos.append(file)
        else:
            others += 1
    return Files(photos, others, special)


def note_of_special(files: Sequence[str]) -> list[str]:
    """Return the note for the user about `Files.special`, if there are any."""
    return [f"left out, as only regular files are read: {named(files)}"] if files else []


def _is_special(file: str) -> bool:
    try:
        mode = os.stat(file).st_mode
    except OSError:
        # Reading it gives the reason.
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def files_in(folder: Path) -> Iterator[str]:
    """Yield the paths of all files of a class, in whatever order."""
    for inner, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_foreign(name)]
        yield from (os.path.join(inner, name) for name in files if not name.startswith("."))


def is_photo(file: str) -> bool:
    """Return whether a file is a photo, or is meant to be one."""
    if os.path.splitext(file)[1].lower() in _SUFFIXES:
        return True
    try:
        with open(file, "rb") as stream:
            return sniff(stream.read(_HEAD_BYTES)) is not None
    except OSError:
        return False
