"""Listening sockets, and the limit of open files, which also limits connections."""

import os
import socket
import stat
import sys

# Open files that are not connections of clients: logs, libraries, the connection to the other service.
OTHER_FILES = 100
# The longest path of a Unix socket, in bytes.
MAX_PATH = 107


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound but does not listen yet. Until it listens, connections are refused.

    Raises:
        OSError: the port is taken, or the address is not one of this machine.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "win32":
        # On Windows, SO_REUSEADDR would let two servers share the port.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # Otherwise a port would stay unusable for a minute (TIME_WAIT) after its server has ended.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def unusable(path: str) -> str | None:
    """Return why no server can listen on the Unix socket ``path``, None if one can.

    A socket that a killed server has left is usable: gRPC replaces it.
    """
    if not hasattr(socket, "AF_UNIX"):
        return "this system has no Unix sockets"
    if len(os.fsencode(path)) > MAX_PATH:
        return f"a path may have {MAX_PATH} bytes, and this one has {len(os.fsencode(path))}"
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return "it exists and is not a socket"
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(path)
    except ConnectionRefusedError:
        return None
    except OSError as exc:
        is_free = isinstance(exc, FileNotFoundError) and os.path.isdir(os.path.dirname(path) or ".")
        return None if is_free else exc.strerror or str(exc)
    return "another program listens on it"


def join(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allow_open_files(connections: int) -> None:
    """Raise the limit of open files of this process to what ``connections`` connections need.

    Raises:
        OSError: the system does not allow it.
    """
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{connections} connections need {wanted} open files, but this process may have only {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
