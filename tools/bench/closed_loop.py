"""Closed-loop load: each client sends its next photo when the last one is answered. It measures the throughput.

The load comes from wrk, a small C program. It shares the cores with the measured services, but needs very little of
them.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.bench.samples import LoadError, Sample

SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_S = 30
MISSING = "wrk is not installed. On Debian and Ubuntu: apt install wrk; on macOS: brew install wrk; on Windows: in WSL."


def require_wrk() -> None:
    """Raise LoadError if wrk is not installed; the message says how to install it."""
    if shutil.which("wrk") is None:
        raise LoadError(MISSING)


def closed_loop(url: str, bodies: Sequence[Path], clients: int, seconds: float) -> Sample:
    """Send load from `clients` connections for `seconds` (rounded to whole ones); raises LoadError if wrk fails."""
    require_wrk()
    command = ["wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{max(1, round(seconds))}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "--script", str(SCRIPT), url, "--", *map(str, bodies)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 3 * TIMEOUT_S)
    if done.returncode:
        raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip()}")
    return parse_wrk(done.stdout)


def parse_wrk(printed: str) -> Sample:
    """Read the JSON line that closed_loop.lua prints at the end; raises LoadError if there is none."""
    lines = [line for line in printed.splitlines() if line.startswith("{")]
    if not lines:
        raise LoadError(f"wrk measured nothing: {printed.strip()}")
    found = json.loads(lines[-1])
    return Sample(
        requests_per_second=(found["requests"] - found["refused"]) / (found["microseconds"] / 1e6),
        percentiles=[microseconds / 1000 for microseconds in found["percentiles_us"]],
        requests=found["requests"],
        errors=found["refused"] + found["broken"],
    )
