"""Bounds the folder in which features are kept."""

import contextlib
import shutil
from pathlib import Path

# 200,000 photos without mirror images have 0.6 GB.
MOST_BYTES = 4 << 30


def tidy(cache: Path, started: float, most_bytes: int = MOST_BYTES) -> int:
    """Delete what was used longest ago from `cache` until it has `most_bytes`; return the bytes that are left.

    What was used since `started`, a time in seconds since 1970, stays.
    """
    found = []
    for path in cache.iterdir() if cache.is_dir() else ():
        with contextlib.suppress(OSError):
            files = [path, *path.rglob("*")]
            found.append((path.stat().st_mtime, sum(file.stat().st_size for file in files if file.is_file()), path))
    total = sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        if total <= most_bytes or used >= started:
            break
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
        total -= size
    return total
