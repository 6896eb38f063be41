"""Ways to attack by the connection instead of by what is sent: many, slow, silent, or without an end."""

import contextlib
import resource
import socket
import time
from collections.abc import Sequence

from tools.chaos.attacks.attack import Attack

# Files that this program may need: each connection is one.
FILES = 4096
TICK_S = 0.1
CONNECT_S = 5.0


def more_files() -> None:
    """Raise the number of connections that this program may have, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connect(port: int, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    """So many connections, closed when the stack is."""
    more_files()
    found = []
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), CONNECT_S))
        connection.setblocking(False)
        found.append(connection)
    return found


def send_some(connection: socket.socket, data: bytes) -> int:
    """What of it goes without waiting; -1 where the other side has closed."""
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return -1


def hold(one: Attack, port: int, count: int, head: bytes, seconds: float) -> None:
    """Open connections, send each a beginning, and keep all of them silent; those that are closed are opened anew."""
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
    """Whether the other side has closed it, after an answer or without."""
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
    """Have each of many connections send a body at this pace, in small parts."""
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
    """From one connection: a beginning, and then a part again and again, until it is no longer taken or time is over.

    Where the service has closed the connection a new one is opened: whoever means harm does not go away.
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
    """Send each of these on a connection of its own, as far as it is taken, and then nothing more."""
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
