"""TCP ports of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from launcher import Problem
from launcher.environment import python

# A command line can be as long as a page; its beginning names the program.
SHOWN_CHARACTERS = 120


def refuse_taken(port: int, option: str) -> None:
    """Raise Problem where something listens on this port of 127.0.0.1: what it is, and how to end it.

    `option` is the one of run.py that takes another port.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return
    command = [python(), str(Path(__file__).with_name("port_holder.py")), str(port)]
    held = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace").stdout.strip()
    process, _, program = held.partition(" ")
    if not process:
        raise Problem(f"port {port} is taken by a program of another user; end that, or take another: {option} PORT")
    if len(program) > SHOWN_CHARACTERS:
        program = program[:SHOWN_CHARACTERS] + "..."
    end = f"taskkill /F /PID {process}" if os.name == "nt" else f"kill {process}"
    raise Problem(
        f"port {port} is taken by process {process} ({program}). End it: {end} - or take another port: {option} PORT"
    )


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, each another one."""
    with contextlib.ExitStack() as stack:
        # All held at once, so that they differ.
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
