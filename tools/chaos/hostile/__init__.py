"""Pictures that were made to harm whoever decodes them: each by a few lines of code, none kept as a file.

A module for each format that the service takes. What a picture does, and why it could hurt, is the docstring of the
function that makes it. ``python -m tools.chaos.hostile`` decodes each alone, and prints what it takes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    """A picture by name, ``FORMAT: what is wrong with it``; ``is_short``: the tests send it too."""

    name: str
    make: Callable[[], bytes]
    is_short: bool

    @property
    def media_type(self) -> str:
        return f"image/{self.name.partition(':')[0].lower()}"


HOSTILE: dict[str, Hostile] = {}


def hostile(name: str, short: bool = False) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Register the function that makes a picture; it makes the same bytes each time, and is asked only once."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        cached = functools.cache(make)
        HOSTILE[name] = Hostile(name, cached, short)
        return cached

    return register


def load_all() -> dict[str, Hostile]:
    """Every picture of every format."""
    from tools.chaos.hostile import avif, bmp, gif, heif, jpeg, png, tiff, webp  # noqa: F401 - they register their pictures

    return HOSTILE
