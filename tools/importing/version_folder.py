"""Writes a version folder, and compares the served answers with the framework's answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_service.engines import openvino as openvino_engine
from model_service.engines.parallelism import Threads
from model_service.errors import Failure
from model_service.models.saved_model import read_saved_model
from preprocess_service.app.recipe import RecipeError
from tools.importing.frameworks.graph import run_saved_model
from tools.importing.network import Array, Export, ImportProblem, Network, prepare, probabilities
from tools.importing.photos import Photo, made_photos, numbered, smaller
from tools.importing.ways import Candidate
from tools.model_folder import GoldenPhoto, write_recipe
from tools.training.export import DEFAULT_SIGNATURE, INPUT_NAME, OUTPUT_NAME

# Differences between the served answers and the framework's: above the first there is a note, above the second (the
# third for 8 bits) an error.
_WORTH_TELLING, _TOO_FAR, _TOO_FAR_QUANTISED = 1e-3, 1e-2, 0.1
# The allowed difference between a photo's answer in a batch and its answer alone.
_SAME = 1e-4
_COMPARED, _GOLDEN, _FEWEST_GOLDEN = 5, 3, 2
_MOST_NAMED = 5
_ORIGINAL_BYTES = 1 << 20


def write_version(
    network: Network, folder: Path, export: Export, way: Candidate, labels: Sequence[str], photos: Sequence[Photo]
) -> tuple[str, list[str]]:
    """Write the network, its recipe, labels and golden photos into `folder`.

    Returns:
        The largest difference as text, and notes.

    Raises:
        ImportProblem: the served answers would differ from the framework's.
    """
    compared = [*photos, *made_photos(max(0, _COMPARED - len(photos)))]
    pixels = [way.pixels(photo.image) for photo in compared]
    expected = _framework(network, export, pixels)
    served, notes = _write(network, folder, export, pixels)
    difference = float(np.abs(served - expected).max())
    if not difference <= (_TOO_FAR_QUANTISED if network.is_quantised else _TOO_FAR):
        raise ImportProblem(f"the served answers differ from {network.framework} by {difference:.3f}: not imported")
    if network.is_quantised:
        notes.append(f"it computes in 8 bits; the answers differ from {network.framework} by up to {difference:.3f}")
    elif difference > _WORTH_TELLING:
        notes.append(f"the served answers differ from {network.framework} by {difference:.4f}")
    golden = _golden(network, export, way, photos)
    arrays = [way.pixels(photo.image) for photo in golden]
    # The golden check compares with the served answers. In 8 bits they differ from the framework's.
    answers = _engine(folder)(arrays, 1) if network.is_quantised else _framework(network, export, arrays)
    with_answers = [_with_answer(photo, answer, labels) for photo, answer in zip(golden, answers, strict=True)]
    try:
        write_recipe(folder, way.config, labels, with_answers)
    except RecipeError as exc:
        raise ImportProblem(str(exc)) from exc
    made = len(compared) - len(photos)
    which = " and ".join([f"{len(photos)} given"] * bool(photos) + [f"{made} made"] * bool(made))
    return f"{difference:.1e} from {network.framework}, on {which} photos", notes


def _framework(network: Network, export: Export, pixels: Sequence[Array]) -> NDArray[np.float64]:
    values = np.stack([prepare(one, export.numbers, network.spec.channels) for one in pixels])
    answers: NDArray[np.float64] = probabilities(network.run(values)[export.output], export.activation)
    return answers


def _write(
    network: Network, folder: Path, export: Export, pixels: Sequence[Array]
) -> tuple[NDArray[np.float64], list[str]]:
    """Write with an open batch, or with a batch of 1 if the network needs it. Return the served answers, and notes."""
    reasons = []
    for batch in (None, 1):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            network.write(folder, replace(export, batch=batch))
            serve = _engine(folder)
            alone = serve(pixels, 1)
            together = alone if batch else serve(pixels, len(pixels))
        except (openvino_engine.Unsupported, Failure, ValueError, RuntimeError) as exc:
            reasons.append(str(exc))
            continue
        if np.abs(together - alone).max() <= _SAME:
            return alone, [*_serving_notes(network, folder, pixels), *["its batch is fixed to 1"] * bool(batch)]
        reasons.append("photos of one batch change each other's answers")
    if (folder / "openvino").exists():
        raise ImportProblem(f"OpenVINO can't compute it: {reasons[-1]}")
    shutil.rmtree(folder, ignore_errors=True)
    network.write(folder, export)
    return run_saved_model(folder, pixels), [f"only TensorFlow Serving can compute it: {reasons[0]}"]


def _serving_notes(network: Network, folder: Path, pixels: Sequence[Array]) -> list[str]:
    """Return a note if TensorFlow Serving can't compute this version. The format's own notes are in the network."""
    if network.spec.channels_first and not (folder / "openvino").exists():
        try:
            run_saved_model(folder, pixels[:1])
        except ImportProblem:
            return ["it needs the embedded model server: TensorFlow Serving can't compute channels first on a CPU"]
    return []


def _engine(folder: Path) -> Callable[[Sequence[Array], int], NDArray[np.float64]]:
    """Return a function that computes answers with the embedded model server's engine, including its safety checks.

    Its arguments are the photos and the batch size.
    """
    model = read_saved_model(folder, 1, refuse_unsafe=True)
    engine = openvino_engine.load(model, model.signatures[DEFAULT_SIGNATURE], Threads(compute=2, streams=1))

    def serve(pixels: Sequence[Array], batch: int) -> NDArray[np.float64]:
        starts = range(0, len(pixels), batch)
        inputs = [{INPUT_NAME: np.stack(pixels[start : start + batch])} for start in starts]
        return np.concatenate([engine.run(one, [OUTPUT_NAME])[OUTPUT_NAME] for one in inputs]).astype(np.float64)

    return serve


def _golden(network: Network, export: Export, way: Candidate, photos: Sequence[Photo]) -> list[Photo]:
    """Return the golden photos: the given ones first, as small files if that changes the answer little."""
    chosen = []
    for photo in photos[:_GOLDEN]:
        small = smaller(photo)
        before, after = _framework(network, export, [way.pixels(photo.image), way.pixels(small.image)])
        unchanged = np.abs(before - after).max() < 5e-3
        chosen.append(small if unchanged or len(photo.data) > _ORIGINAL_BYTES else photo)
    return [*numbered(chosen), *made_photos(max(0, _FEWEST_GOLDEN - len(chosen)))]


def _with_answer(photo: Photo, answer: NDArray[np.float64], labels: Sequence[str]) -> GoldenPhoto:
    largest = np.argsort(-answer)[:_MOST_NAMED]
    # In float32, a probability may be slightly above 1.
    named = {labels[index]: round(min(max(float(answer[index]), 0.0), 1.0), 6) for index in largest}
    return GoldenPhoto(photo.name, photo.data, named)
