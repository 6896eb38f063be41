"""Computes pooled backbone features of photos with OpenVINO. They are cached, so a stopped run can be continued."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from tools.evaluation.photos import Photo
from tools.inference import import_openvino

Array = NDArray[np.float32]

# A stopped run loses at most this many photos. A chunk with four views has 3 MB.
PHOTOS_PER_CHUNK = 256


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
    """`values` float32 [photos, views, features] of the readable `photos`; `broken` maps other names to the reason."""

    photos: list[Photo]
    values: Array
    broken: dict[str, str]


@dataclass(frozen=True)
class _Chunk:
    """PHOTOS_PER_CHUNK photos: the reason for each broken one ("" for the others), and the features of the others."""

    reasons: list[str]
    values: Array


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


def _photo_features(photo: Photo, extraction: Extraction, backbone: _Backbone) -> Array | str:
    """Return float32 [views, features], or the reason why the photo is broken."""
    try:
        data = photo.path.read_bytes()
        image = extraction.decode(data)
    # Decoders raise different exceptions for broken files. In each case the photo is skipped.
    except Exception as exc:
        return str(exc)
    # The seed comes from the bytes, so a photo's views do not depend on the other photos.
    random = np.random.default_rng([extraction.seed, int.from_bytes(hashlib.sha256(data).digest()[:8], "big")])
    return backbone(np.stack([extraction.prepare(view) for view in extraction.views(image, random)]))


def _parts(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    return (photos[start : start + PHOTOS_PER_CHUNK] for start in range(0, len(photos), PHOTOS_PER_CHUNK))


def _chunk_file(cache: Path, chunk: Sequence[Photo], extraction: Extraction) -> Path:
    files = [(str(photo.path), photo.path.stat().st_size, photo.path.stat().st_mtime_ns) for photo in chunk]
    text = json.dumps([dict(extraction.fingerprint), extraction.seed, files], sort_keys=True)
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def _read_chunk(path: Path) -> _Chunk | None:
    if not path.is_file():
        return None
    with np.load(path) as stored:
        return _Chunk(stored["reasons"].tolist(), stored["values"].astype(np.float32))


def _write_chunk(path: Path, chunk: _Chunk) -> None:
    """Write the chunk atomically, as float16: its rounding of 0.05 % is far below the effect of a random view."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.part.npz")
    try:
        np.savez(scratch, reasons=np.array(chunk.reasons), values=chunk.values.astype(np.float16))
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
    values = np.stack(good) if good else np.zeros((0, 0, 0), np.float32)
    # The same values as after reading the cache, so that both runs give exactly the same model.
    return _Chunk(reasons, values.astype(np.float16).astype(np.float32))


def extract(photos: Sequence[Photo], extraction: Extraction, cache: Path, workers: int, title: str) -> Features:
    """Return the features of all readable photos, in order, with a progress bar. Chunks in `cache` are used."""
    backbone: _Backbone | None = None
    chunks = []
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(photos), desc=title, unit="photo") as bar:
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
    return _join(photos, chunks)


def _join(photos: Sequence[Photo], chunks: Sequence[_Chunk]) -> Features:
    reasons = [reason for chunk in chunks for reason in chunk.reasons]
    kept = [photo for photo, reason in zip(photos, reasons, strict=True) if not reason]
    broken = {str(photo.path): reason for photo, reason in zip(photos, reasons, strict=True) if reason}
    values = [chunk.values for chunk in chunks if chunk.values.size]
    return Features(kept, np.concatenate(values) if values else np.zeros((0, 0, 0), np.float32), broken)
