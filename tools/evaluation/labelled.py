"""Finds labelled photos in folders as people make them, whose names are compared with a model's labels."""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.evaluation.photos import UNKNOWN_SOURCE, Photo, PhotosError, find_index, read_sources, relative
from tools.training.dataset.folders import files_of, folders_in, name_key, named, note_of_special, parts_of

_MOST_NAMED = 8


@dataclass(frozen=True)
class Labelled:
    """The photos, sorted by class and path, and sentences for the user."""

    photos: list[Photo]
    notes: list[str]


def find_labelled(folder: Path, labels: Sequence[str], index: Path | None = None, skip: bool = False) -> Labelled:
    """Return every photo in `folder`/CLASS and the folders within; of train/ and val/ those in val/.

    A folder belongs to the label of the same name. Case, forms of Unicode, blanks, `_` and `-` may differ.

    Args:
        index: INDEX.csv with the source of each photo; None: the one in the folder or its parent.
        skip: whether folders that are no class are left out.

    Raises:
        PhotosError: there is no photo of any class, or a folder is no class.
    """
    _check_folder(folder)
    notes = []
    if parts := parts_of(folder):
        notes.append(f"only {parts[1].name}/ is used, because the model may know the photos in {parts[0].name}/")
    within = parts[1] if parts else folder
    folders = folders_in(within)
    matches = match_folders([path.name for path in folders], labels)
    unknown = [path.name for path in folders if matches[path.name] is None]
    if not folders or len(unknown) == len(folders):
        raise PhotosError(_no_class(within, folders, labels))
    if unknown and not skip:
        raise PhotosError(_unknown(within, unknown, labels))
    if unknown:
        notes.append(f"folders that are no class are left out: {named(unknown)}")
    index = index or find_index(folder)
    sources, base = read_sources(index), (index.parent if index else within).resolve()
    photos = []
    for path in folders:
        number = matches[path.name]
        if number is None:
            continue
        files = files_of(path)
        notes += note_of_special(files.special)
        for file in map(Path, files.photos):
            photos.append(Photo(file, number, sources.get(relative(file, base), UNKNOWN_SOURCE)))
    missing = sorted(set(range(len(labels))) - {photo.label for photo in photos})
    if len(missing) == len(labels):
        raise PhotosError(f"{within}: the folders of the classes have no photos")
    if missing:
        shown = named([labels[number] for number in missing])
        notes.append(f"{len(missing)} of {len(labels)} classes have no photos, so nothing is said about them: {shown}")
    return Labelled(sorted(photos, key=lambda photo: (photo.label, photo.path)), notes)


def match_folders(names: Sequence[str], labels: Sequence[str]) -> dict[str, int | None]:
    """Return the number of the label for each folder's name, or None.

    A name is compared exactly, then without case, then without any difference of blanks, `_`, `-` and accents' forms.

    Raises:
        PhotosError: two folders belong to one label, or a folder to two.
    """
    found: dict[str, int | None] = dict.fromkeys(names)
    for key in (str, name_key, _loose_key):
        by_key: dict[str, list[int]] = {}
        for number, label in enumerate(labels):
            by_key.setdefault(key(label), []).append(number)
        for name in (name for name in names if found[name] is None):
            numbers = by_key.get(key(name), [])
            if len(numbers) > 1:
                alike = named([labels[number] for number in numbers])
                raise PhotosError(f"the folder {name!r} may be one of {alike}: rename it to the exact label")
            found[name] = numbers[0] if numbers else None
    by_number: dict[int, str] = {}
    for name, match in found.items():
        if match is not None and (other := by_number.setdefault(match, name)) != name:
            raise PhotosError(f"the folders {other!r} and {name!r} are both of the class {labels[match]!r}: join them")
    return found


def find_others(folder: Path) -> Labelled:
    """Return every photo in `folder`, with its first subfolder as source and class -1; raises PhotosError if none."""
    _check_folder(folder)
    found = files_of(folder)
    files = [Path(file) for file in found.photos]
    if not files:
        raise PhotosError(f"{folder}: no photos in it")
    inner = [path.relative_to(folder).parts for path in files]
    photos = [
        Photo(path, -1, parts[0] if len(parts) > 1 else folder.name) for path, parts in zip(files, inner, strict=True)
    ]
    return Labelled(photos, note_of_special(found.special))


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise PhotosError(f"{folder}: {'this is a file, not a folder' if folder.exists() else 'no such folder'}")


def _loose_key(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _no_class(folder: Path, folders: Sequence[Path], labels: Sequence[str]) -> str:
    keys = {_loose_key(label) for label in labels}
    for path in folders:
        if any(_loose_key(inner.name) in keys for inner in folders_in(path)):
            return f"{folder}: no folder is named as a class of the model. Did you mean {path}?"
    found = f"its folders are {named([path.name for path in folders])}" if folders else "it has no folders"
    return f"{folder}: no folder is named as a class of the model ({found}). The classes are {_listed(labels)}"


def _unknown(folder: Path, names: Sequence[str], labels: Sequence[str]) -> str:
    keys = {_loose_key(label): label for label in labels}
    close = difflib.get_close_matches(_loose_key(names[0]), [*keys], n=1)
    meant = f" Did you mean {keys[close[0]]!r}?" if close else ""
    return (
        f"{folder}: the model has no class {named(names)}.{meant} Rename the folder, or leave such folders out with "
        f"--skip-others. The classes are {_listed(labels)}"
    )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_NAMED} more" if len(labels) > _MOST_NAMED else ""
    return ", ".join(repr(label) for label in labels[:_MOST_NAMED]) + more
