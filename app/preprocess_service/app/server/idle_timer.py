"""Since when a connection waits for its client, and when that is too long."""

from typing import Literal

from preprocess_service.app.config import Limits


class IdleTimer:
    """The times of one connection, in seconds on the event loop's clock."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        # The first byte of headers that are not complete yet.
        self.headers_since: float | None = None
        # Since when an answer is not taken.
        self.blocked_since: float | None = None
        # Since when it waits for a request, or for the rest of one that is answered already.
        self.idle_since = now

    def waiting_since(self, is_working: bool) -> float | None:
        """Since when the client is waited for; None: the app works for it."""
        if self.blocked_since is not None:
            return self.blocked_since
        if is_working:
            return None
        return self.idle_since if self.headers_since is None else self.headers_since

    def expired(self, now: float, is_working: bool, is_in_body: bool) -> Literal["blocked", "headers", "idle"] | None:
        """What the client has not done in time: take its answer, send its headers, or anything at all."""
        if self.blocked_since is not None:
            return "blocked" if now - self.blocked_since > self._limits.idle_seconds else None
        if is_working:
            # The app knows how long it may take.
            return None
        if self.headers_since is not None:
            return "headers" if now - self.headers_since > self._limits.header_seconds else None
        most = self._limits.header_seconds if is_in_body else self._limits.idle_seconds
        return "idle" if now - self.idle_since > most else None
