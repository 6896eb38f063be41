"""Measures how long a connection has been waiting for its client, and when that is too long."""

from typing import Literal

from preprocess_service.app.config import Limits


class IdleTimer:
    """The times of one connection, in seconds on the event loop's clock."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        # When the first byte of the headers arrived; None if no headers are incomplete.
        self.headers_since: float | None = None
        # Since when the client has not read the answer; None if it reads.
        self.blocked_since: float | None = None
        # Since when the connection waits for a request, or for the rest of a request that is already answered.
        self.idle_since = now

    def waiting_since(self, is_working: bool) -> float | None:
        """Return since when the connection waits for its client; None: the app works on its request."""
        if self.blocked_since is not None:
            return self.blocked_since
        if is_working:
            return None
        return self.idle_since if self.headers_since is None else self.headers_since

    def expired(self, now: float, is_working: bool, is_in_body: bool) -> Literal["blocked", "headers", "idle"] | None:
        """Return what the client did not do in time, or None.

        "blocked": it did not read its answer. "headers": it did not complete its headers. "idle": it sent nothing.
        """
        if self.blocked_since is not None:
            return "blocked" if now - self.blocked_since > self._limits.idle_seconds else None
        if is_working:
            # The app has its own deadline.
            return None
        if self.headers_since is not None:
            return "headers" if now - self.headers_since > self._limits.header_seconds else None
        most = self._limits.header_seconds if is_in_body else self._limits.idle_seconds
        return "idle" if now - self.idle_since > most else None
