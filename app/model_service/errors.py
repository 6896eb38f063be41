"""The errors of the model server.

Failure
├── ServingError    a request is rejected with a gRPC status code and a text; both APIs use the same
└── StartError      the server can't start, or a version can't be loaded; one line with the reason and what to do
"""

import asyncio
import os
import re
from pathlib import Path

import grpc

# An absolute path of Linux or Windows inside a sentence. URLs and the ends of relative paths do not match.
_ABSOLUTE_PATH = re.compile(
    r"""(?<![\w.:/\\])(?:[A-Za-z]:[/\\]+|/)(?:[^\s/\\'":;,()\[\]{}<>]+[/\\]+)*([^\s/\\'":;,()\[\]{}<>]+)[/\\]*"""
)
# TensorFlow appends to its errors where in a Python program a node was created.
_TRACE = re.compile(r"\s*Original stack trace for.*", re.DOTALL)


class Failure(Exception):
    """The base class of this program's own errors."""


class StartError(Failure):
    """The server can't start, or it can't load a version. The message is one line for the operator.

    If a new version can't be loaded, the server goes on; GetModelStatus then returns `code`.
    """

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION) -> None:
        super().__init__(message)
        self.code = code


class ServingError(Failure):
    """A request is rejected with a gRPC status code. The texts are TensorFlow Serving's where it has one."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> ServingError:
    """Return an error: the request is wrong."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Return an error: the model or version is not served here."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Return an error: the model can't answer this kind of request."""
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def deadline_exceeded(message: str) -> ServingError:
    """Return an error: the answer would come after the deadline."""
    return ServingError(grpc.StatusCode.DEADLINE_EXCEEDED, message)


def resource_exhausted(message: str) -> ServingError:
    """Return an error: the request exceeds a limit, its own or that of all requests together."""
    return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def unavailable(message: str) -> ServingError:
    """Return an error: there is no capacity at present. The client may send the request again later."""
    return ServingError(grpc.StatusCode.UNAVAILABLE, message)


def code_of(exc: BaseException) -> grpc.StatusCode:
    """Return the status of a call that ended with this exception."""
    if isinstance(exc, ServingError):
        return exc.code
    # gRPC cancels a call when its client disconnects.
    return grpc.StatusCode.CANCELLED if isinstance(exc, asyncio.CancelledError) else grpc.StatusCode.INTERNAL


def forget_frames(exc: BaseException) -> None:
    """Remove the traceback from an exception and from all exceptions in its chain.

    The frames hold the request, and often the exception itself. Such a cycle would stay in memory until the next
    garbage collection.
    """
    seen: BaseException | None = exc
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


def one_line(text: object) -> str:
    """Return `text` on one line: each run of white space becomes one space."""
    return " ".join(str(text).split())


def without_folders(text: str, folder: Path | None = None) -> str:
    """Return `text` for a client: an absolute path is shortened to its last part, and `folder` is removed.

    Only the log shows folders of the server.
    """
    text = _TRACE.sub("", text)
    for known in {folder, folder.resolve()} if folder else ():
        if known.name:
            text = text.replace(f"{known}{os.sep}", "")
    return _ABSOLUTE_PATH.sub(r"\1", text)
