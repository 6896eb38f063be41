"""One HTTP connection of uvicorn, for both services to build on. This module alone knows uvicorn's private parts.

A subclass uses those that are listed here and no others. A test names each one that a newer uvicorn no longer has:

- attributes of ``HttpToolsProtocol``: ``client``, ``cycle``, ``expect_100_continue``, ``flow``, ``headers``, ``loop``,
  ``parser``, ``pipeline``, ``scope``, ``transport``, ``url``;
- its methods: ``_unset_keepalive_if_required``, ``on_body``, ``on_header``, ``on_headers_complete``,
  ``on_message_begin``, ``on_message_complete``, ``on_response_complete``, ``send_400_response``;
- attributes of ``RequestResponseCycle``: ``body``, ``disconnected``, ``keep_alive``, ``message_event``,
  ``response_complete``, ``response_started``;
- of ``FlowControl``: ``_transport``, ``pause_reading``, ``resume_reading``.
"""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["RequestResponseCycle", "UvicornProtocol"]


class _ReadingFlowControl(FlowControl):
    """Pauses reading for reasons of ours, beside those of uvicorn; reading goes on when no reason is left."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._reasons: set[str] = set()
        self._timers = 0

    def pause_reading(self, reason: str = "uvicorn") -> None:
        self._reasons.add(reason)
        super().pause_reading()

    def resume_reading(self, reason: str = "uvicorn") -> None:
        self._reasons.discard(reason)
        if not self._reasons:
            super().resume_reading()

    def pause_for(self, seconds: float) -> None:
        """Read nothing for ``seconds``; of several such pauses the last one counts."""
        self.pause_reading("timer")
        self._timers += 1
        self._loop.call_later(seconds, self._end_pause)

    def _end_pause(self) -> None:
        self._timers -= 1
        if not self._timers and not self._transport.is_closing():
            self.resume_reading("timer")


class UvicornProtocol(HttpToolsProtocol):
    """A client's connection; a request is uvicorn's ``RequestResponseCycle``."""

    flow: _ReadingFlowControl

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _ReadingFlowControl(transport, self.loop)

    def is_answering(self) -> bool:
        """Whether the last request that came is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def body_bytes(self) -> int:
        """The size of what the app has not taken of the last request's body."""
        return len(self.cycle.body)

    def close_after_answer(self) -> None:
        """Keep the connection no longer than until the last request that came is answered."""
        self.cycle.keep_alive = False

    @staticmethod
    def disconnect(cycle: RequestResponseCycle) -> None:
        """Tell the app that nobody waits for the answer to a request."""
        cycle.disconnected = True
        cycle.message_event.set()

    def withdraw(self, cycle: RequestResponseCycle) -> bool:
        """Take a request back from the app; False if its answer has begun."""
        if cycle.response_started:
            return False
        self.disconnect(cycle)
        for queued in [queued for queued in self.pipeline if queued[0] is cycle]:
            self.pipeline.remove(queued)
        return True
