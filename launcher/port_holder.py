"""Prints which program listens on a TCP port, or nothing if that program belongs to another user.

    python launcher/port_holder.py 8500

It runs in `.venv`, because it needs psutil. run.py itself needs nothing but Python.
"""

import contextlib
import shlex
import sys

import psutil


def main() -> None:
    for process in psutil.process_iter():
        # A process may end meanwhile, and the processes of other users are not readable.
        with contextlib.suppress(psutil.Error):
            if listens(process, int(sys.argv[1])):
                # Arguments may hold line breaks; this prints one line.
                print(process.pid, *(shlex.join(process.cmdline()) or process.name()).split())
                return


def listens(process: psutil.Process, port: int) -> bool:
    """Return whether the process listens on this TCP port."""
    connections = process.net_connections(kind="tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


if __name__ == "__main__":
    main()
