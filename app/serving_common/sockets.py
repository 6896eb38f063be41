"""The port, and what the system has to allow for all who come to it."""

import socket
import sys

from preprocess_service.app.config import ConfigError

# Beside its connections a process has its log, its libraries, the wire to the model server.
OTHER_FILES = 100
# What the system keeps of answers that a sender does not take, for each connection (Linux takes twice as much): it
# would else be up to 4 MB, which nobody counts.
SEND_BUFFER_BYTES = 131_072


def listen(host: str, port: int) -> socket.socket:
    """Open the port here, before anything else, so that a taken one ends the start with one clear line.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as exc:
        reason = f"{exc.strerror}; is another one running? Set SERVICE_PORT to a free port"
        raise OSError(f"can't listen on {host}:{port}: {reason}") from exc
    # Each connection gets it from here.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener


def allow_open_files(connections: int) -> None:
    """Let this process open a file for each connection and for what else it needs, if the system allows as many.

    Raises:
        ConfigError: it does not.
    """
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigError(
            f"limits.connections: {connections} need {wanted} open files, and this process may have {hard}; "
            "lower it, or raise `ulimit -n`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
