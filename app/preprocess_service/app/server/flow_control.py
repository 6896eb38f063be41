"""When a connection is read: not while its client has sent more than is good for the others."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class ReadingFlowControl(FlowControl):
    """Pauses reading for reasons of ours, beside those of uvicorn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._transport = transport
        self._loop = loop
        self._reasons: set[str] = set()
        self._is_paused_by_uvicorn = False
        self._timers = 0

    def pause_reading(self) -> None:
        self._is_paused_by_uvicorn = True
        super().pause_reading()

    def resume_reading(self) -> None:
        self._is_paused_by_uvicorn = False
        if not self._reasons:
            super().resume_reading()

    def pause(self, reason: str) -> None:
        """Read nothing until ``resume`` is called with the same reason."""
        self._reasons.add(reason)
        super().pause_reading()

    def resume(self, reason: str) -> None:
        self._reasons.discard(reason)
        if not self._reasons and not self._is_paused_by_uvicorn:
            super().resume_reading()

    def pause_for(self, seconds: float) -> None:
        """Read nothing for ``seconds``; of several such pauses the last one counts."""
        self.pause("timer")
        self._timers += 1
        self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._timers -= 1
        if not self._timers and not self._transport.is_closing():
            self.resume("timer")
