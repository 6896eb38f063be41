"""Attacks by connections and not by content: many, slow, silent or endless ones."""

import contextlib
import resource
import socket
import time
from collections.abc import Sequence

from tools.chaos.attacks.attack import Attack

# The number of open files that this program may need: one per connection.
FILES = 4096
TICK_S = 0.1
CONNECT_S = 5.0


def more_files() -> None:
    """Raise the limit of open files of this program as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connect(port: int, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Return ``count`` connections; ``stack`` closes them."""
    more_files()
    found = []
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), CONNECT_S))
        connection.setblocking(False)
        found.append(connection)
    return found


def send_some(connection: socket.socket, data: bytes) -> int:
    """Send as many bytes as possible without waiting; return their number, -1 if the connection is closed."""
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return -1


def hold(one: Attack, port: int, count: int, head: bytes, seconds: float) -> None:
    """Open connections, send ``head`` on each, and keep them silent. Closed ones are replaced."""
    with contextlib.ExitStack() as stack:
        open_ones: list[socket.socket] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for connection in connect(port, count - len(open_ones), stack):
                send_some(connection, head)
                one.note_sent(len(head))
                open_ones.append(connection)
            time.sleep(TICK_S)
            open_ones = [connection for connection in open_ones if not _is_over(connection)]
    one.last_byte = time.monotonic()


def _is_over(connection: socket.socket) -> bool:
    """Return whether the service has closed the connection, with or without an answer."""
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    connection.close()
    return True


def trickle(one: Attack, port: int, count: int, head: bytes, bytes_a_second: int, seconds: float) -> None:
    """Send a body on each of many connections, slowly and in small parts."""
    part = bytes(int(bytes_a_second * TICK_S))
    with contextlib.ExitStack() as stack:
        open_ones: list[socket.socket] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for connection in connect(port, count - len(open_ones), stack):
                one.note_sent(max(0, send_some(connection, head)))
                open_ones.append(connection)
            due = time.monotonic() + TICK_S
            for connection in open_ones:
                one.note_sent(max(0, send_some(connection, part)), requests=0)
            time.sleep(max(0.0, due - time.monotonic()))
            open_ones = [connection for connection in open_ones if not _is_over(connection)]


def stream(one: Attack, port: int, head: bytes, part: bytes, seconds: float, limit: int = 300_000_000) -> None:
    """Send ``head`` and then ``part`` again and again on one connection, until the time or ``limit`` bytes are reached.

    If the service closes the connection, a new one is opened, as an attacker would do.
    """
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end and sent < limit:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), CONNECT_S) as connection:
            connection.settimeout(1.0)
            connection.sendall(head)
            one.note_sent(len(head))
            while time.monotonic() < end and sent < limit:
                connection.sendall(part)
                one.note_sent(len(part), requests=0)
                sent += len(part)


def at_leisure(one: Attack, port: int, bodies: Sequence[bytes], seconds: float) -> None:
    """Send each body on its own connection as far as it is accepted. Then keep the connections open."""
    with contextlib.ExitStack() as stack:
        waiting = dict(zip(connect(port, len(bodies), stack), bodies, strict=True))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for connection, rest in list(waiting.items()):
                count = send_some(connection, rest[: 1 << 20])
                if count > 0:
                    one.note_sent(count, requests=0)
                    waiting[connection] = rest[count:]
            time.sleep(0.01)
    one.last_byte = time.monotonic()
