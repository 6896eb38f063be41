"""Listening sockets, and the limit of open files, which also limits connections."""

import socket
import sys

# Open files that are not connections of clients: logs, libraries, the connection to the other service.
OTHER_FILES = 100


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
