"""Hides what native libraries write to the terminal."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what the frameworks' libraries write to stderr, and Pillow's warnings about pictures.

    Python's own ``sys.stderr`` is still shown.
    """
    python, number = sys.stderr, os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    # Not every terminal has all characters of a file's name.
    with open(
        number,
        "w",
        buffering=1,
        encoding=getattr(python, "encoding", None) or "utf-8",
        errors="backslashreplace",
        closefd=False,
    ) as terminal:
        # Unless a caller has replaced sys.stderr.
        if python is sys.__stderr__:
            sys.stderr = terminal
        try:
            with warnings.catch_warnings():
                # As in the service. A progress bar would be broken by them.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                yield
        finally:
            sys.stderr = python
            os.dup2(number, 2)
            os.close(number)
            os.close(nothing)
