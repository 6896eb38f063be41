"""The program that decodes pictures, started by ``decoder_process``. It gets tasks on stdin, and writes to stdout.

Pictures from clients are decoded in this process, not in the service. The operating system ends this process if a
picture takes too much time, and denies it memory that was not granted. Then the service starts a new one. This process
has no API keys, no connections and no pictures of other clients. The service treats its output as untrusted: it accepts
only text, numbers and pixels.

A task is a line of JSON, followed by a picture of ``size`` bytes. A result is a line of JSON, followed by ``pixels``
bytes of pixels.
"""

import json
import os
import signal
import sys
import warnings
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

# Set before numpy is imported: its linear algebra, which is not used here, would allocate memory for each core.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

from PIL import AvifImagePlugin, Image

from preprocess_service.app.errors import ImageTooLarge, ServiceError
from preprocess_service.app.imaging.decode_cost import DecodeCost, webp_cost, webp_size
from preprocess_service.app.imaging.downscale import resized_pixels
from preprocess_service.app.imaging.resize import in_float, resize
from preprocess_service.app.utils import Header, decode_base64, decode_open, open_image
from serving_common.malloc import configure_malloc, trim_malloc

if sys.platform != "win32":  # Windows has no such limits.
    import resource

# On Linux: the memory of this process in pages (proc(5), statm).
_STATM = "/proc/self/statm"
_RESIDENT, _DATA = 1, 5
# A process that keeps more memory than this after a picture is replaced: a library holds it, or it is fragmented.
_KEPT_BYTES = 8_000_000
# Added to the granted memory: this program needs it to report that memory ran out.
_OWN_BYTES = 2_000_000


def main() -> None:
    # Ctrl-C in a terminal signals all processes. The service ends this process when its requests are finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Results go to a copy of stdout. stdout itself becomes stderr, so that output of libraries does not mix with them.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    configure_malloc(mmap_threshold=1 << 20, trim_threshold=16 << 20)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # Load all modules of Pillow now: later they would count as memory of a picture.
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
    """Decode one picture within ``memory`` bytes and ``seconds`` of CPU time.

    Returns:
        The result and the pixels. One of these is set: the pixels, ``[height, width, 3]`` of the geometry's dtype, with
        ``size``, the upright photo's width and height; ``error``, the ``ServiceError`` to answer with; ``needs``, the
        cost if it is above the grant.
    """
    picture = cast(Any, SimpleNamespace(**task["geometry"]))
    result: dict[str, Any] = {}

    def on_header(header: Header) -> None:
        result["header"] = [header.format, header.width, header.height]

    try:
        if task["is_base64"]:
            data = decode_base64(data.decode("ascii"))
        # Twice the file in addition: some decoders keep copies of it.
        _limit(task["memory"] + 2 * len(data), task["seconds"])
        if size := webp_size(data):
            cost = webp_cost(size, resized_pixels(size, picture), in_float(picture))
            if not _is_granted(cost, task):
                return {"header": ["WEBP", *size], "needs": asdict(cost)}, b""
        with open_image(data, task["max_pixels"], picture, on_header) as opened:
            if not _is_granted(opened.cost, task):
                return result | {"needs": asdict(opened.cost)}, b""
            image, result["size"] = decode_open(opened, picture)
        return result, resize(image, picture).tobytes()
    except ServiceError as exc:
        return result | {"error": [type(exc).__name__, exc.message, exc.values]}, b""
    except MemoryError:
        return result | {"error": ["ImageTooLarge", "image_memory", {}]}, b""
    finally:
        _limit(None, 0)


def _is_granted(cost: DecodeCost, task: dict[str, Any]) -> bool:
    """Return whether the grant is enough. Raises ImageTooLarge if the picture needs more than can ever be granted."""
    if cost.memory_bytes > task["max_memory"]:
        raise ImageTooLarge("image_memory")
    return bool(cost.memory_bytes <= task["memory"] and cost.pixels <= task["pixels"])


def _limit(memory: int | None, seconds: float) -> None:
    """Limit the memory and the CPU time of this process.

    Without memory, an allocation fails with a MemoryError or with an error of the library. At the end of the time the
    system ends this process (setitimer(2), SIGPROF), because nothing inside the process can interrupt a decoder.

    Args:
        memory: bytes beyond the current memory; None: no limit.
        seconds: CPU time; 0: no limit.
    """
    if sys.platform == "win32":
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    if sys.platform == "linux":
        limit = -1 if memory is None else _pages(_DATA) + memory + _OWN_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, -1))


def _pages(field: int) -> int:
    """Return one of the memory sizes of this process in bytes; 0 if the system has no such file."""
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
