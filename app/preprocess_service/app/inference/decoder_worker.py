"""The program that decodes pictures, started by ``decoder_process``: tasks come on stdin, results go to stdout.

What strangers send is decoded here and not in the service: the system ends this process when a picture takes too much
time, and refuses it the memory that it was not granted; the service starts another. It holds no keys, no connections
and no other sender's picture. The service trusts nothing that comes from here but as text, numbers and pixels.

A task is a line of JSON with ``size``, and so many bytes of a picture; a result is a line of JSON with ``pixels``,
and so many bytes of them.
"""

import json
import os
import signal
import sys
import warnings
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

# Before numpy is imported, whose linear algebra would take memory for each core, and of which nothing here needs any.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from PIL import AvifImagePlugin, Image

from preprocess_service.app.errors import ImageTooLarge, ServiceError
from preprocess_service.app.imaging.decode_cost import DecodeCost, webp_cost, webp_size
from preprocess_service.app.imaging.resize import in_float, resize
from preprocess_service.app.utils import Header, decode_base64, decode_open, open_image
from serving_common.malloc import configure_malloc, trim_malloc

if sys.platform != "win32":  # which has no such limits
    import resource

# Linux: sizes of this process in pages (proc(5), statm).
_STATM = "/proc/self/statm"
_RESIDENT, _DATA = 1, 5
# A process that has not given this much back is replaced: some library keeps it, or it is in pieces.
_KEPT_BYTES = 8_000_000
# Beyond the smallest grant: what this program itself needs to say that there is no more.
_OWN_BYTES = 2_000_000


def main() -> None:
    # Ctrl-C in a terminal goes to all its processes; the service ends this one when it has ended its requests.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not stdout itself: whatever a library prints must not get between the results.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    configure_malloc(mmap_threshold=1 << 20, trim_threshold=16 << 20)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # All of Pillow's modules now: later they would count as memory of a picture.
    Image.init()
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resident = _pages(_RESIDENT)
    write(results, {"ready": True})
    while line := sys.stdin.buffer.readline():
        task = json.loads(line)
        result, pixels = run(task, sys.stdin.buffer.read(task["size"]))
        if _pages(_RESIDENT) - resident > _KEPT_BYTES:
            trim_malloc()
        result["retire"] = _pages(_RESIDENT) - resident > _KEPT_BYTES
        write(results, result, pixels)


def run(task: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode one picture, within ``memory`` bytes and ``seconds`` of computing.

    Returns:
        One of: the pixels, ``[height, width, 3]`` of the geometry's dtype; ``error``, the ``ServiceError`` to answer
        with; ``needs``, the cost where that is above what is granted.
    """
    picture = cast(Any, SimpleNamespace(**task["geometry"]))
    result: dict[str, Any] = {}

    def on_header(header: Header) -> None:
        result["header"] = [header.format, header.width, header.height]

    try:
        if task["is_base64"]:
            data = decode_base64(data.decode("ascii"))
        # Some decoders keep copies of the file.
        _limit(task["memory"] + 2 * len(data), task["seconds"])
        if size := webp_size(data):
            cost = webp_cost(size, picture.decode == "exact", in_float(picture))
            if not _is_granted(cost, task):
                return {"header": ["WEBP", *size], "needs": asdict(cost)}, b""
        with open_image(data, task["max_pixels"], picture, on_header) as opened:
            if not _is_granted(opened.cost, task):
                return result | {"needs": asdict(opened.cost)}, b""
            image = decode_open(opened, picture)
        return result, resize(image, picture).tobytes()
    except ServiceError as exc:
        return result | {"error": [type(exc).__name__, exc.message, exc.values]}, b""
    except MemoryError:
        return result | {"error": ["ImageTooLarge", "image_memory", {}]}, b""
    finally:
        _limit(None, 0)


def _is_granted(cost: DecodeCost, task: dict[str, Any]) -> bool:
    """Whether a picture may be decoded now; raises ImageTooLarge where it may never be."""
    if cost.memory_bytes > task["max_memory"]:
        raise ImageTooLarge("image_memory")
    return bool(cost.memory_bytes <= task["memory"] and cost.pixels <= task["pixels"])


def _limit(memory: int | None, seconds: float) -> None:
    """Let this process take ``memory`` bytes beyond what it has, None for any, and compute for ``seconds``, 0 for ever.

    What it has no memory for fails as a MemoryError, or as whatever a library makes of that. When its time is over the
    system ends it (setitimer(2), SIGPROF): nothing in this process could interrupt a decoder.
    """
    if sys.platform == "win32":
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    if sys.platform == "linux":
        limit = -1 if memory is None else _pages(_DATA) + memory + _OWN_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, -1))


def _pages(field: int) -> int:
    """Bytes that this process has of one kind; 0 where the system doesn't tell."""
    try:
        with open(_STATM, "rb") as file:
            return int(file.read().split()[field]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def write(results: BinaryIO, result: dict[str, Any], pixels: bytes = b"") -> None:
    left = memoryview(json.dumps(result | {"pixels": len(pixels)}).encode() + b"\n" + pixels)
    while left:
        left = left[results.write(left) :]


if __name__ == "__main__":
    main()
