"""How much may be decoded at the same time, so that the photos of many senders together fit into memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Room for so many pixels.
Room = Callable[[int], AbstractContextManager[None]]


class PixelBudget:
    """Pixels that are shared by all threads; whoever wants more than are free waits for them."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int, check: Callable[[], object] = bool) -> Iterator[None]:
        """Hold ``pixels`` for this block; more than there are in all count as all.

        Args:
            check: called when they are there; raises where nobody wants them any more.
        """
        taken = min(pixels, self._pixels)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            check()
            yield
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()
