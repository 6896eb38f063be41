"""Listening sockets, and the number of files that a process may open for its connections."""

import socket
import sys

# Beside its connections a process has its log, its libraries, and its connection to the other service.
OTHER_FILES = 100


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet: connections are refused until it does.

    Raises:
        OSError: the port is taken, or the address is not one of this machine.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "win32":
        # There SO_REUSEADDR would let two servers share the port.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # A server that has just ended leaves its port in TIME_WAIT, which is no reason to refuse.
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
    """Raise this process's limit of open files to what ``connections`` need, if the system allows it.

    Raises:
        OSError: it does not.
    """
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{connections} connections need {wanted} open files, and this process may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
