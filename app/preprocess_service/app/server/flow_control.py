"""When a connection is read: not while its sender has sent more than is good for the others."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class ReadingFlowControl(FlowControl):
    """Lets what comes in be held back for reasons of ours, beside those of uvicorn."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._reasons: set[str] = set()
        self._is_paused_by_uvicorn = False

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
