"""Decodes each hostile picture in a process of its own, with the service's decoder, and prints time and memory.

    python -m tools.chaos.hostile [words of a name]

For each picture it prints the size in bytes, the CPU and wall seconds, the peak memory in MB above that of an idle
decoder, and the result. A decoder that needs more than 4 GB or 60 s is ended.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

from tools.chaos.hostile import load_all
from tools.service import ServiceError, decode_image, read_config

MEMORY_BYTES = 4_000_000_000
SECONDS = 60


def decode(data: bytes) -> str:
    """Return the service's result for the picture in a few words."""
    config = read_config(None)
    try:
        image = decode_image(data, config.limits.pixels, config.picture)
    except ServiceError as exc:
        return f"{type(exc).__name__} {exc.__cause__!r:.70}"
    return f"taken, {image.width} x {image.height}"


def child() -> None:
    """Decode the picture on stdin, after another one that loads the libraries."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    data = sys.stdin.buffer.read()
    decode(b"GIF89a")
    # Reset the peak memory (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    before, began, used = megabytes("VmRSS"), time.monotonic(), time.process_time()
    outcome = decode(data)
    used, took = time.process_time() - used, time.monotonic() - began
    print(f"{used:8.2f} {took:7.2f} {megabytes('VmHWM') - before:8.0f}  {outcome}")


def megabytes(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split(maxsplit=1)[0]) / 1024


def main(words: list[str]) -> None:
    print(f"{'':60} {'bytes':>9}    CPU s  wall s       MB", flush=True)
    for one in load_all().values():
        if words and not any(word in one.name for word in words):
            continue
        data = one.make()
        command = [sys.executable, "-m", "tools.chaos.hostile", "--child"]
        try:
            ended = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, check=False)
            told = ended.stdout.decode().rstrip() or f"ended with {ended.returncode} {ended.stderr.decode()[-200:]}"
        except subprocess.TimeoutExpired:
            told = f"ended after {SECONDS} s"
        print(f"{one.name:60} {len(data):9} {told}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        child()
    else:
        main(sys.argv[1:])
