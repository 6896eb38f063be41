"""A TCP connection on which any bytes can be sent, also invalid ones."""

import re
import socket
from dataclasses import dataclass


class Cut(OSError):
    """The connection ended or was silent for too long before the answer was complete."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: bytes
    body: bytes


class Wire:
    """A TCP connection to a local port; each wait takes at most ``patience`` seconds."""

    def __init__(self, port: int, patience: float) -> None:
        self._port = port
        self._patience = patience
        self._came = b""
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), self._patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reconnect(self) -> None:
        """Open the connection again; raises OSError if no program listens."""
        self.close()
        self._came = b""
        self._connect()

    def send(self, data: bytes) -> None:
        """Send all bytes; raises OSError if the connection is closed."""
        self._socket.sendall(data)

    def answer(self) -> Answer:
        """Return the next answer; raises Cut."""
        head = self._until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        count = int(length[1]) if length else 0
        while len(self._came) < count:
            self._more()
        body, self._came = self._came[:count], self._came[count:]
        return Answer(status, head, body)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._came:
            self._more()
        head, _, self._came = self._came.partition(mark)
        return head

    def _more(self) -> None:
        try:
            part = self._socket.recv(1 << 16)
        except OSError as exc:
            raise Cut(type(exc).__name__) from exc
        if not part:
            raise Cut("closed")
        self._came += part

    def close(self) -> None:
        self._socket.close()
