"""One HTTP connection of uvicorn, the base class for both services. Only this module knows uvicorn's private parts.

A subclass may use the parts in this list and no others. A test names each one that a newer uvicorn no longer has:

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
    """Pauses reading for several reasons: uvicorn's and ours. Reading goes on when no reason is left."""

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
        """Read nothing for ``seconds``. Of several such pauses, the one that ends last counts."""
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
        """Return whether the last request has no complete answer yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def body_bytes(self) -> int:
        """Return how many bytes of the last request's body the app has not read yet."""
        return len(self.cycle.body)

    def close_after_answer(self) -> None:
        """Close the connection after the answer to the last request."""
        self.cycle.keep_alive = False

    @staticmethod
    def disconnect(cycle: RequestResponseCycle) -> None:
        """Tell the app that a request's client has disconnected."""
        cycle.disconnected = True
        cycle.message_event.set()

    def withdraw(self, cycle: RequestResponseCycle) -> bool:
        """Cancel a request in the app, or remove it from the queue; return False if its answer has begun."""
        if cycle.response_started:
            return False
        self.disconnect(cycle)
        for queued in [queued for queued in self.pipeline if queued[0] is cycle]:
            self.pipeline.remove(queued)
        return True
