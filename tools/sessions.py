"""HTTP connections that stay open from one photo to the next, in a program of several threads."""

import threading

import requests


class Sessions:
    """One session for each thread: a session is not safe across threads, one a photo would open a connection each."""

    def __init__(self) -> None:
        self._local = threading.local()

    def mine(self) -> requests.Session:
        """The session of the thread that asks."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session
