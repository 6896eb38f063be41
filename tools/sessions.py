"""HTTP connections that stay open between requests, for programs with several threads."""

import threading

import requests


class Sessions:
    """One requests.Session per thread: a session is not thread-safe, and one per photo would connect each time."""

    def __init__(self) -> None:
        self._local = threading.local()

    def mine(self) -> requests.Session:
        """Return the session of the current thread."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session
