"""Computes pooled backbone features of photos with OpenVINO. They are cached, so a stopped run can be continued."""

import contextlib
import hashlib
import json
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from tools.evaluation.photos import Photo
from tools.inference import import_openvino

Array = NDArray[np.float32]
# As they are cached: the rounding of 0.05 % is far below the effect of a random view.
Values = NDArray[np.float16]

# A stopped run loses at most this many photos. A chunk with four views has 3 MB.
PHOTOS_PER_CHUNK = 256
# One photo in this many ends its chunk early, by its path. So added or removed photos change only the chunk around
# them, and the features of all others are read from the cache.
CHUNK_ENDS = 128
# Pixels on each side of a photo's sketch.
SKETCH_SIDE = 8
_BAR = "{desc}: {percentage:3.0f} % |{bar}| {n_fmt} of {total_fmt} photos, {remaining} left"


@dataclass(frozen=True)
class Extraction:
    """The settings of the feature extraction.

    `decode` converts a file's bytes to an RGB image and raises an error for a broken one. `views` returns the images of
    a photo, given its random generator. `prepare` converts each to the network's float32 [height, width, 3].
    `fingerprint` identifies all of these: cached features are used only with the same fingerprint.
    """

    model: Path
    decode: Callable[[bytes], Image.Image]
    views: Callable[[Image.Image, np.random.Generator], list[Image.Image]]
    prepare: Callable[[Image.Image], Array]
    fingerprint: Mapping[str, object]
    seed: int = 0


@dataclass(frozen=True)
class Features:
    """`values` float16 [photos, views, features] of the readable `photos`; `broken` maps other names to the reason.

    `digests` is uint64 [photos]: equal for files with the same bytes. `sketches` is float16 [photos, SKETCH_SIDE ** 2]:
    the photo in few grey pixels, with mean 0 and norm 1.
    """

    photos: list[Photo]
    values: Values
    broken: dict[str, str]
    digests: NDArray[np.uint64]
    sketches: Values


@dataclass(frozen=True)
class _Chunk:
    """Some photos: the reason for each broken one ("" for the others), and the results for the others."""

    reasons: list[str]
    values: Values
    digests: NDArray[np.uint64]
    sketches: Values


def fastest_device(available: Sequence[str]) -> str:
    """Return GPU if OpenVINO's `available` devices include one, else CPU."""
    return "GPU" if any(name.startswith("GPU") for name in available) else "CPU"


class _Backbone:
    """The feature graph in OpenVINO, with one stream per worker and one infer request per thread."""

    def __init__(self, model: Path, workers: int) -> None:
        core = import_openvino().Core()
        device = fastest_device(core.available_devices)
        # float32: on processors with bfloat16, OpenVINO would use that, with an error of 2 % here.
        settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": workers}
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = workers
        self._compiled = core.compile_model(str(model), device, settings)
        self._local = threading.local()

    def __call__(self, batch: Array) -> Array:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return np.array(self._local.request.infer([batch])[0])


def _sketch(picture: Array) -> Values:
    """Return float16 [SKETCH_SIDE ** 2] of float32 [height, width, 3]."""
    height, width = (side // SKETCH_SIDE for side in picture.shape[:2])
    grey = picture[: height * SKETCH_SIDE, : width * SKETCH_SIDE].mean(2)
    small = grey.reshape(SKETCH_SIDE, height, SKETCH_SIDE, width).mean((1, 3)).ravel()
    centred = small - small.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), np.float16)


def _photo_features(photo: Photo, extraction: Extraction, backbone: _Backbone) -> tuple[Values, int, Values] | str:
    """Return float16 [views, features], digest and sketch, or the reason why the photo is broken."""
    try:
        data = photo.path.read_bytes()
        image = extraction.decode(data)
    # Decoders raise different exceptions for broken files. In each case the photo is skipped.
    except Exception as exc:
        # Not an empty text, which would mean that the photo is readable.
        return (exc.strerror if isinstance(exc, OSError) else str(exc)) or type(exc).__name__
    # The seed comes from the bytes, so a photo's views do not depend on the other photos.
    digest = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    random = np.random.default_rng([extraction.seed, digest])
    pictures = np.stack([extraction.prepare(view) for view in extraction.views(image, random)])
    return backbone(pictures).astype(np.float16), digest, _sketch(pictures[0])


def _parts(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    start = 0
    for end, photo in enumerate(photos, start=1):
        ends = zlib.crc32(os.fsencode(photo.path.name)) % CHUNK_ENDS == 0
        if ends or end - start == PHOTOS_PER_CHUNK or end == len(photos):
            yield photos[start:end]
            start = end


def _state(path: Path) -> tuple[str, int, int]:
    """Return what changes when the file changes."""
    try:
        found = path.stat()
    except OSError:
        # Reading it gives the reason.
        return str(path), -1, -1
    return str(path), found.st_size, found.st_mtime_ns


def _chunk_file(cache: Path, chunk: Sequence[Photo], extraction: Extraction) -> Path:
    files = [_state(photo.path) for photo in chunk]
    text = json.dumps([dict(extraction.fingerprint), extraction.seed, files], sort_keys=True)
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def _read_chunk(path: Path) -> _Chunk | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            chunk = _Chunk(stored["reasons"].tolist(), stored["values"], stored["digests"], stored["sketches"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        # A damaged file; it is computed and written again.
        return None
    with contextlib.suppress(OSError):
        # What was not used for long is deleted first.
        path.touch()
    return chunk


def _write_chunk(path: Path, chunk: _Chunk) -> None:
    """Write the chunk atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.part.npz")
    try:
        reasons = np.array(chunk.reasons)
        np.savez(scratch, reasons=reasons, values=chunk.values, digests=chunk.digests, sketches=chunk.sketches)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _compute_chunk(
    photos: Sequence[Photo], extraction: Extraction, backbone: _Backbone, pool: ThreadPoolExecutor, bar: Any
) -> _Chunk:
    rows = []
    for row in pool.map(lambda photo: _photo_features(photo, extraction, backbone), photos):
        rows.append(row)
        bar.update()
    good = [row for row in rows if not isinstance(row, str)]
    reasons = [row if isinstance(row, str) else "" for row in rows]
    if not good:
        return _no_photos(reasons)
    values, digests, sketches = zip(*good, strict=True)
    return _Chunk(reasons, np.stack(values), np.array(digests, np.uint64), np.stack(sketches))


def _no_photos(reasons: list[str]) -> _Chunk:
    return _Chunk(
        reasons, np.zeros((0, 0, 0), np.float16), np.zeros(0, np.uint64), np.zeros((0, SKETCH_SIDE**2), np.float16)
    )


def extract(photos: Sequence[Photo], extraction: Extraction, cache: Path, workers: int, title: str) -> Features:
    """Return the features of all readable photos, in order, with a progress bar. Chunks in `cache` are used."""
    backbone: _Backbone | None = None
    chunks = []
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(photos), desc=title, bar_format=_BAR) as bar:
        try:
            for part in _parts(photos):
                path = _chunk_file(cache, part, extraction)
                chunk = _read_chunk(path)
                if chunk is None:
                    backbone = backbone or _Backbone(extraction.model, workers)
                    chunk = _compute_chunk(part, extraction, backbone, pool, bar)
                    _write_chunk(path, chunk)
                else:
                    bar.update(len(part))
                chunks.append(chunk)
        except BaseException:
            # Otherwise a stopped run would first compute the rest of the chunk.
            pool.shutdown(cancel_futures=True)
            raise
    return _join(photos, chunks)


def _without_send(reason: str) -> str:
    """Return a message of the service without the sentences that ask its client to send another file."""
    kept = [part for part in re.split(r"(?<=\.) ", reason) if not re.search(r"\bsend\b", part, re.IGNORECASE)]
    return " ".join(kept) or reason


def _join(photos: Sequence[Photo], chunks: Sequence[_Chunk]) -> Features:
    reasons = [reason for chunk in chunks for reason in chunk.reasons]
    kept = [photo for photo, reason in zip(photos, reasons, strict=True) if not reason]
    broken = {str(photo.path): _without_send(why) for photo, why in zip(photos, reasons, strict=True) if why}
    full = [chunk for chunk in chunks if chunk.values.size] or [_no_photos([])]
    return Features(
        kept,
        np.concatenate([chunk.values for chunk in full]),
        broken,
        np.concatenate([chunk.digests for chunk in full]),
        np.concatenate([chunk.sketches for chunk in full]),
    )
