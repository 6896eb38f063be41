"""TCP ports of this computer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from launcher import Problem
from launcher.environment import python

# Longer command lines are cut. The beginning names the program.
SHOWN_CHARACTERS = 120


def refuse_taken(port: int, option: str) -> None:
    """Raise Problem if a program listens on this port of 127.0.0.1. The message names it and says how to end it.

    `option` is the option of run.py that sets another port.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0 and _can_bind(port, option):
            return
    command = [python(), str(Path(__file__).with_name("port_holder.py")), str(port)]
    held = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace").stdout.strip()
    process, _, program = held.partition(" ")
    if not process:
        raise Problem(
            f"port {port} is used by a program that can't be named, as those of other users; end it, or use another "
            f"port: {option} PORT"
        )
    if len(program) > SHOWN_CHARACTERS:
        program = program[:SHOWN_CHARACTERS] + "..."
    end = f"taskkill /F /PID {process}" if os.name == "nt" else f"kill {process}"
    raise Problem(
        f"port {port} is used by process {process} ({program}). End it: {end} - or use another port: {option} PORT"
    )


def _can_bind(port: int, option: str) -> bool:
    """Return False if a program has the port without listening; raises Problem if the system refuses the port."""
    with socket.socket() as probe:
        if os.name != "nt":
            # As the services do. Otherwise closed connections would hold the port for a minute.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as exc:
            raise Problem(f"this user may not use port {port}; use another port: {option} PORT") from exc
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return different ports of 127.0.0.1 that are free."""
    with contextlib.ExitStack() as stack:
        # All are open at the same time, so they differ.
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
