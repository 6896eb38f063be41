"""Fuzzes the preprocess service's decoders, guided by coverage (atheris, on Linux).

    python -m venv fuzzing && fuzzing/bin/pip install -r requirements.txt atheris==3.0.0
    fuzzing/bin/python -m tools.fuzz_decoder --seconds 600
    fuzzing/bin/python -m tools.fuzz_decoder --seeds FOLDER --corpus FOLDER
    fuzzing/bin/python -m tools.fuzz_decoder --input crash-0123456789abcdef

Photos, base64, JSON and forms are processed as in the service, but without the network and the model. A finding is an
exception other than ServiceError, an answer that can't be written as JSON, an invalid tensor, or more than 2 s or 500
MB for one input. It ends the run with status 77 and is saved as crash-* in the folder of --findings.

The HTTP API has another fuzzer. With a running pair (python run.py serve), for ten minutes:

    fuzzing/bin/pip install schemathesis==4.32.5
    fuzzing/bin/schemathesis --config-file unit_test/preprocess_service/schemathesis.toml \\
        run http://127.0.0.1:7998/openapi.json --max-time 600 --workers 2 \\
        --continue-on-failure --generation-database none --warnings off
"""

import argparse
import asyncio
import gzip
import io
import json
import logging
import random
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Nothing else has its folder on the path, and it has no types.
import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]
import numpy as np

# The fuzzer sees only instrumented Python modules, and no C code.
with atheris.instrument_imports(include=["PIL", "pi_heif", "python_multipart", "preprocess_service.app"]):
    import pi_heif
    from PIL import Image, ImageFile, PngImagePlugin  # noqa: F401 - likewise

    from preprocess_service.app import utils
    from preprocess_service.app.api import request_body
    from preprocess_service.app.errors import Overloaded
    from preprocess_service.app.server.incoming_bodies import IncomingBodies, IncomingBody
    from tools.service import PROJECT, ServiceError, decode_image, read_config, to_tensor
from starlette.requests import Request

CONFIG = read_config(None)
LIMIT_SECONDS = 2.0
# The service itself needs 89 MB; together it stays under 600.
LIMIT_MEGABYTES = 500.0
# Longer inputs make the fuzzer slower and hardly find more.
LONGEST_INPUT = 100_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Finding(Exception):
    """An input that the service does not handle."""


def photo(data: bytes) -> None:
    """Decode the bytes of a file to the tensor, and check it."""
    picture = CONFIG.picture
    tensor = to_tensor(decode_image(data, CONFIG.limits.pixels, picture), picture)
    lowest, highest = CONFIG.input_range
    if tensor.shape != (*CONFIG.size, 3) or tensor.dtype != np.float32:
        raise Finding(f"a tensor {tensor.shape} {tensor.dtype}")
    if not (np.isfinite(tensor).all() and tensor.min() >= lowest - 1e-4 and tensor.max() <= highest + 1e-4):
        raise Finding(f"values from {tensor.min()} to {tensor.max()}")


def base64(data: bytes) -> None:
    """Decode text as it is in the JSON."""
    if not utils.decode_base64(data.decode("utf-8", "replace")):
        raise Finding("base64 was accepted and has no bytes")


def body(data: bytes) -> None:
    """Read a request body that is sent in two parts.

    The first line of `data` is its Content-Encoding, a tab, and its media type. The first two may be missing.
    """
    first, _, content = data.partition(b"\n")
    parts = [content[: len(content) // 2], content[len(content) // 2 :]]
    for read in (request_body.read_photo, request_body.read_batch):
        try:
            room = IncomingBody(IncomingBodies(CONFIG.limits, max_reading=1, overloaded=Overloaded))
            sent = EVENTS.run_until_complete(read(request(first, parts), CONFIG.limits, room))
        except ServiceError as exc:
            check_answer(exc)
            continue
        photos = sent[0]
        for item in photos if isinstance(photos, list) else [photos]:
            if isinstance(item, ServiceError):
                check_answer(item)
            elif not isinstance(item, (str, bytes)):
                raise Finding(f"a photo that is {type(item)}")


def request(first: bytes, parts: list[bytes]) -> Request:
    """Return a POST request with these parts. `first` is a coding and a tab, which may be missing, and a media type."""
    coding, _, media_type = first.rpartition(b"\t")
    headers = [(b"content-type", media_type), (b"content-encoding", coding)]
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    waiting = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(waiting)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def check_answer(error: ServiceError) -> None:
    """Check that the error can be sent as JSON in UTF-8 in both languages; raises UnicodeEncodeError."""
    for language in ("en", "pt"):
        json.dumps(error.text(language), ensure_ascii=False).encode()


TARGETS = (photo, base64, body)
EVENTS = asyncio.new_event_loop()


def one_input(data: bytes) -> None:
    """Run one input. Its first byte chooses the target. Raises the finding."""
    target = TARGETS[data[0] % len(TARGETS)] if data else photo
    before = memory("VmRSS", reset=True)
    wall, processor = time.monotonic(), time.process_time()
    try:
        target(data[1:])
    except ServiceError as exc:
        check_answer(exc)
    # The smaller value: other programs lengthen the wall time, and a decoder's threads add to the CPU time.
    seconds = min(time.monotonic() - wall, time.process_time() - processor)
    if seconds > LIMIT_SECONDS:
        raise Finding(f"took {seconds:.1f} s")
    megabytes = memory("VmHWM") - before
    if megabytes > LIMIT_MEGABYTES:
        raise Finding(f"took {megabytes:.0f} MB")


def memory(field: str, reset: bool = False) -> float:
    """Return megabytes of this process: VmRSS is the present value, VmHWM the maximum since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split(maxsplit=1)[0]) / 1024


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Return a mutation of an input. Half of the PNGs get right checksums: wrong ones stop the decoder early."""
    changed: bytes = atheris.Mutate(data, max_size)
    if changed[1:9] == PNG_SIGNATURE and random.Random(seed).random() < 0.5:
        return changed[:9] + b"".join(with_right_checksums(changed[9:]))
    return changed


def with_right_checksums(data: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG with right checksums, and then the rest after the last complete chunk unchanged."""
    while len(data) >= 12:
        length = struct.unpack(">I", data[:4])[0]
        if length > len(data) - 12:
            break
        chunk = data[4 : 8 + length]
        yield data[:4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        data = data[12 + length :]
    yield data


def made_photos() -> Iterator[bytes]:
    """Yield a small picture in every format that Pillow writes, in all modes and with all relevant options."""
    base = Image.linear_gradient("L").resize((24, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [Image.new("RGB", base.size, "red")]}
    compressions = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "zstd", "webp", "lzma")
    variants: list[tuple[str, str, dict[str, Any]]] = [
        *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
        *(("JPEG", "RGB", options) for options in ({"progressive": True}, {"exif": exif}, {"subsampling": 2})),
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")),
        *(("PNG", "RGB", options) for options in (frames, {"exif": exif}, {"transparency": (0, 0, 0)})),
        ("PNG", "P", {"transparency": 3}),
        *(("WEBP", mode, options) for mode in ("RGB", "RGBA") for options in ({}, {"lossless": True}, frames)),
        *(("GIF", mode, options) for mode in ("L", "P") for options in ({}, frames, {"transparency": 3})),
        *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(
            ("TIFF", mode, {})
            for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
        ),
        *(("TIFF", "1" if name == "group4" else "RGB", {"compression": name}) for name in compressions),
        *(("AVIF", mode, {"exif": exif}) for mode in ("RGB", "RGBA")),
        ("AVIF", "RGB", frames),
    ]
    for name, mode, options in variants:
        stream = io.BytesIO()
        try:
            # Pillow converts to "I;16" only from "I".
            (base.convert("I") if mode == "I;16" else base).convert(mode).save(stream, name, **options)
        except (OSError, ValueError, KeyError):
            # This build of Pillow lacks the codec.
            continue
        yield stream.getvalue()


def made_texts() -> Iterator[bytes]:
    """Yield normal and broken base64 and bodies. The first byte names their target."""
    small = b"R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    for text in (small, b"data:image/gif;base64," + small, b"data:;a=b;base64,QUJD", b"Q-_D\n QQ"):
        yield b"\x01" + text
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.gif"\r\nContent-Type: image/gif\r\n\r\n'
    photo_part = part + b"GIF89a\r\n"
    for content in (
        b'application/json\n{"image_b64": "' + small + b'"}',
        b'application/json\n{"images_b64": ["' + small + b'", 7, null, {"a": [1e999, "\\ud83d\\ude00"]}]}',
        b'application/problem+json; charset=utf-8\n{"image_b64": "QUJD", "\\u0000": 1}',
        b"application/octet-stream\nGIF89a",
        b"text/plain\nQUJD",
        b"multipart/form-data; boundary=b\n" + photo_part + b"--b--\r\n",
        b"multipart/form-data; boundary=b\n" + photo_part + photo_part + b"--b--\r\n",
        b"multipart/form-data; boundary=b; charset=utf-16\n" + photo_part.replace(b"file", b"foto") + b"--b--\r\n",
        b"multipart/form-data; boundary=b; charset=utf-7\n" + photo_part.replace(b"file", b"+2AA-") + b"--b--\r\n",
        b"multipart/form-data\n" + photo_part,
        b"gzip\timage/gif\n" + gzip.compress(b"GIF89a", mtime=0),
        b"deflate\timage/gif\n" + zlib.compress(b"GIF89a"),
        b"application/json\n" + '{"image_b64": "QUJD"}'.encode("utf-16"),
    ):
        yield b"\x02" + content


def write_seeds(folder: Path, sources: list[Path]) -> None:
    """Write all start inputs into `folder`, except those that are too long."""
    photos = [path.read_bytes() for source in sources for path in sorted(source.rglob("*")) if path.is_file()]
    inputs = [b"\x00" + data for data in (*made_photos(), *photos)] + list(made_texts())
    for number, data in enumerate(inputs):
        if len(data) <= LONGEST_INPUT:
            (folder / f"{number:05}").write_bytes(data)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="duration (default: %(default)s)")
    parser.add_argument("--seeds", type=Path, action="append", default=[], help="folder with more files to start with")
    parser.add_argument("--corpus", type=Path, help="folder for the found inputs, also used by the next run")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()), help="(default: %(default)s)")
    parser.add_argument("--input", type=Path, help="run only this input, for example a former finding")
    return parser.parse_args()


def main() -> None:
    """Run the fuzzer. libFuzzer ends the process itself, with status 77 after a finding."""
    options = parse_arguments()
    # The libraries' messages about broken inputs are expected.
    logging.disable()
    warnings.simplefilter("ignore")
    pi_heif.options.DECODE_THREADS = 1
    if options.input:
        one_input(options.input.read_bytes())
        return
    with tempfile.TemporaryDirectory() as seeds:
        write_seeds(Path(seeds), [PROJECT / "images", *options.seeds])
        folders = [str(options.corpus), seeds] if options.corpus else [seeds]
        flags = [
            f"-max_total_time={options.seconds}",
            f"-artifact_prefix={options.findings}/",
            f"-max_len={LONGEST_INPUT}",
            # Above our own limits, for inputs that never return.
            "-timeout=60",
            "-rss_limit_mb=2000",
        ]
        atheris.Setup([sys.argv[0], *flags, *folders], one_input, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
