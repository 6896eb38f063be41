"""Claims the ports before the model is loaded: a taken port should be known at once, not after the wait."""

import socket
import sys

from model_service.errors import StartError


def claim(host: str, port: int, flag: str) -> socket.socket:
    """Return a socket bound to `host:port` that doesn't listen yet: whoever connects is refused until it does.

    Raises StartError, naming `flag`, where the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    claimed = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform == "win32":
        # There SO_REUSEADDR would let two servers share the port.
        claimed.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # A server that has just ended leaves its port in TIME_WAIT, which is no reason to refuse.
        claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        claimed.bind((host, port))
    except OSError as exc:
        claimed.close()
        raise StartError(
            f"Can't listen on {join(host, port)} ({exc.strerror}): stop the program that holds the port, "
            f"or choose another with --{flag}=."
        ) from exc
    return claimed


def join(host: str, port: int) -> str:
    """Return `host:port`, the host in brackets where it is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
