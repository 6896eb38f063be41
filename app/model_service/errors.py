"""What can go wrong, in two kinds.

Failure
├── ServingError    one request is refused: a gRPC status code and a text, the same in both APIs
└── StartError      the process can't start, or a version can't be loaded: one line that says why and what to do
"""

import asyncio
import os
import re
from pathlib import Path

import grpc

# An absolute path, of Linux or Windows, up to what ends one in a sentence; not a URL, nor the rest of a relative path.
_ABSOLUTE_PATH = re.compile(
    r"""(?<![\w.:/\\])(?:[A-Za-z]:[/\\]+|/)(?:[^\s/\\'":;,()\[\]{}<>]+[/\\]+)*([^\s/\\'":;,()\[\]{}<>]+)[/\\]*"""
)
# What TensorFlow appends to its errors: where in a program, ours, a node was made.
_TRACE = re.compile(r"\s*Original stack trace for.*", re.DOTALL)


class Failure(Exception):
    """The root of this program's own errors."""


class StartError(Failure):
    """The server can't start; the message is one line, written for the person at the terminal.

    Where it is a new version that can't be loaded, the server runs on, and `code` is what GetModelStatus gives.
    """

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION) -> None:
        super().__init__(message)
        self.code = code


class ServingError(Failure):
    """A request is refused with a gRPC status code; the texts are TensorFlow Serving's where it has one."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> ServingError:
    """Return the error that says that the request itself is at fault."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Return the error that says that the model or version is not served here."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Return the error that says that the model can't answer requests of this kind."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def deadline_exceeded(message: str) -> ServingError:
    """Return the error that says that the answer would come too late."""
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, message)


def resource_exhausted(message: str) -> ServingError:
    """Return the error that says that the request wants more than there is, for one or for all."""
    return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def unavailable(message: str) -> ServingError:
    """Return the error that says that there is no room for the request now: it may be sent again later."""
    return ServingError(grpc.StatusCode.UNAVAILABLE, message)


def code_of(exc: BaseException) -> grpc.StatusCode:
    """Return the status that a call ends with because of this exception."""
    if isinstance(exc, ServingError):
        return exc.code
    # gRPC cancels the call whose client has gone.
    return grpc.StatusCode.CANCELLED if isinstance(exc, asyncio.CancelledError) else grpc.StatusCode.INTERNAL


def forget_frames(exc: BaseException) -> None:
    """Take from an exception, and from what it came from, the frames that it went through.

    They hold the request, and often the exception itself: so all of it would stay until a collection of garbage.
    """
    seen: BaseException | None = exc
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


def one_line(text: object) -> str:
    """Return `text` with its line breaks and runs of spaces turned into single spaces."""
    return " ".join(str(text).split())


def without_folders(text: str, folder: Path | None = None) -> str:
    """Return `text` as a client may read it: of each absolute path, and each one below `folder`, only what comes last.

    The folders of the server are for its log alone.
    """
    text = _TRACE.sub("", text)
    for known in {folder, folder.resolve()} if folder else ():
        if known.name:
            text = text.replace(f"{known}{os.sep}", "")
    return _ABSOLUTE_PATH.sub(r"\1", text)
