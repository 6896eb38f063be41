"""A memory limit that several tasks share. A task that needs more than is free waits, in the order of arrival."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MemoryBudget:
    """The memory of all pictures that are decoded at the same time.

    Args:
        size: the limit in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Wait until ``size`` bytes are free and reserve them for this block; ``size`` is at most ``self.size``."""
        # No task overtakes another. Otherwise small pictures could keep a large one waiting for ever.
        if self._waiting or size > self._free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._free += size
                elif (size, turn) in self._waiting:
                    self._waiting.remove((size, turn))
                self._grant()
                raise
        else:
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._grant()

    def _grant(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            # A cancelled task may still be in the queue, if it has not run since its deadline passed.
            if not turn.cancelled():
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._waiting.popleft()
