"""Says which program holds a TCP port. Runs in `.venv`, which has psutil; prints nothing where it may not look.

    python launcher/port_holder.py 8500

A program of its own, since run.py itself needs nothing but Python.
"""

import contextlib
import shlex
import sys

import psutil


def main() -> None:
    for process in psutil.process_iter():
        # A process may end meanwhile, and those of other users can't be looked into.
        with contextlib.suppress(psutil.Error):
            if listens(process, int(sys.argv[1])):
                # On one line, whatever its arguments hold.
                print(process.pid, *(shlex.join(process.cmdline()) or process.name()).split())
                return


def listens(process: psutil.Process, port: int) -> bool:
    """Whether the process accepts connections on this TCP port."""
    connections = process.net_connections(kind="tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)


if __name__ == "__main__":
    main()
