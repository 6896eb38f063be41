"""Checks the files of a model version before any of them is opened."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from grpc import StatusCode as Code

from model_service.errors import StartError
from model_service.models.free_memory import free_bytes

# A graph is a protobuf message, which can't be larger.
MAX_GRAPH_BYTES = 2**31 - 1
# No SavedModel has this many files.
_MOST_ENTRIES = 10_000


def check_files(folder: Path, within: Path | None = None) -> None:
    """Check everything in the version folder without opening it; links are followed.

    Raises StartError in three cases: something is neither a file nor a folder (opening a pipe would wait for ever); the
    files together are larger than the free memory; `within` is given, and a link leads out of it.
    """
    total = 0
    root = within.resolve() if within is not None else None
    for path, status in _below(folder):
        if root is not None and not path.resolve().is_relative_to(root):
            raise StartError(
                f"{path} is a link to a place outside of the model's base path: --refuse_unsafe_operations does not "
                "allow this."
            )
        if stat.S_ISREG(status.st_mode):
            total += status.st_size
        elif not stat.S_ISDIR(status.st_mode):
            raise StartError(f"{path} is neither a file nor a folder: copy the model again.")
    free = free_bytes()
    if free is not None and total > free:
        raise StartError(
            f"The files of {folder} have {total >> 20} MiB, but only {free >> 20} MiB of memory are free: "
            "give the server more memory, or serve a smaller model.",
            Code.RESOURCE_EXHAUSTED,
        )


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the folder and everything in it with its status. Each folder comes once; broken links are skipped."""
    seen: set[tuple[int, int]] = set()
    pending, count = [folder], 0
    while pending:
        path = pending.pop()
        try:
            status = path.stat()
            entries = list(_entries(path, seen, status)) if stat.S_ISDIR(status.st_mode) else []
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise unreadable(path, exc) from exc
        yield path, status
        count += 1 + len(entries)
        if count > _MOST_ENTRIES:
            raise StartError(f"{folder} holds more than {_MOST_ENTRIES} files: it is not a SavedModel.")
        pending += entries


def _entries(path: Path, seen: set[tuple[int, int]], status: os.stat_result) -> Iterator[Path]:
    # With links a folder can contain itself.
    if (status.st_dev, status.st_ino) not in seen:
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as found:
            for number, entry in enumerate(found):
                if number > _MOST_ENTRIES:
                    return
                yield path / entry.name


def read_graph_file(path: Path) -> bytes:
    """Return the content of a `saved_model.pb`; raises StartError if it can't be read, is no file or is too large."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer. Regular files ignore the flag.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StartError(f"{path} is not a file: copy the model again.")
            if status.st_size > MAX_GRAPH_BYTES:
                raise StartError(f"{path} has {status.st_size} bytes; a graph can have at most {MAX_GRAPH_BYTES}.")
            return file.read(MAX_GRAPH_BYTES)
    except OSError as exc:
        raise unreadable(path, exc) from exc


def unreadable(path: Path, exc: OSError) -> StartError:
    """Return the error for a model file that can't be read."""
    return StartError(f"{path} can't be read ({exc.strerror}): is the model folder copied completely?", Code.NOT_FOUND)
