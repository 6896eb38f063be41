"""Writes a version folder, and compares what it will be served as with what the framework says."""

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

# Of the served model's answers from the framework's: what is worth a warning, and what is another model.
_WORTH_TELLING, _TOO_FAR, _TOO_FAR_QUANTISED = 1e-3, 1e-2, 0.1
# Of a photo's answer in a batch from that alone.
_SAME = 1e-4
_COMPARED, _GOLDEN, _FEWEST_GOLDEN = 5, 3, 2
_MOST_NAMED = 5
_ORIGINAL_BYTES = 1 << 20


def write_version(
    network: Network, folder: Path, export: Export, way: Candidate, labels: Sequence[str], photos: Sequence[Photo]
) -> tuple[str, list[str]]:
    """Write the network, its recipe, labels and golden photos into `folder`; the largest difference, and warnings.

    Raises ImportProblem where it would be served as another model than it is.
    """
    compared = [*photos, *made_photos(max(0, _COMPARED - len(photos)))]
    pixels = [way.pixels(photo.image) for photo in compared]
    expected = _framework(network, export, pixels)
    served, notes = _write(network, folder, export, pixels)
    difference = float(np.abs(served - expected).max())
    if not difference <= (_TOO_FAR_QUANTISED if network.is_quantised else _TOO_FAR):
        raise ImportProblem(f"what would be served differs from {network.framework} by {difference:.3f}: not imported")
    if network.is_quantised:
        notes.append(f"it computes in 8 bits, which differs from {network.framework} by up to {difference:.3f}")
    elif difference > _WORTH_TELLING:
        notes.append(f"what is served differs from {network.framework} by {difference:.4f}")
    golden = numbered(_golden(network, export, way, photos))
    arrays = [way.pixels(photo.image) for photo in golden]
    # The check at the start compares with what is served: in 8 bits the framework's answer is another one.
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
    """Write with an open batch, or one of 1 where the network allows no other; what is served, and notes."""
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
    """What TensorFlow Serving can't do with the version; what it could not do with any is the network's own note."""
    if network.spec.channels_first and not (folder / "openvino").exists():
        try:
            run_saved_model(folder, pixels[:1])
        except ImportProblem:
            return ["it needs the embedded model server: TensorFlow Serving can't compute channels first on a CPU"]
    return []


def _engine(folder: Path) -> Callable[[Sequence[Array], int], NDArray[np.float64]]:
    """The embedded model server's engine, safety checks included: the answers for photos, so many at a time."""
    model = read_saved_model(folder, 1, refuse_unsafe=True)
    engine = openvino_engine.load(model, model.signatures[DEFAULT_SIGNATURE], Threads(compute=2, streams=1))

    def serve(pixels: Sequence[Array], batch: int) -> NDArray[np.float64]:
        starts = range(0, len(pixels), batch)
        inputs = [{INPUT_NAME: np.stack(pixels[start : start + batch])} for start in starts]
        return np.concatenate([engine.run(one, [OUTPUT_NAME])[OUTPUT_NAME] for one in inputs]).astype(np.float64)

    return serve


def _golden(network: Network, export: Export, way: Candidate, photos: Sequence[Photo]) -> list[Photo]:
    """Photos that travel with the model: the given ones first, in small files where that changes little."""
    chosen = []
    for photo in photos[:_GOLDEN]:
        small = smaller(photo)
        before, after = _framework(network, export, [way.pixels(photo.image), way.pixels(small.image)])
        unchanged = np.abs(before - after).max() < 5e-3
        chosen.append(small if unchanged or len(photo.data) > _ORIGINAL_BYTES else photo)
    return [*chosen, *made_photos(max(0, _FEWEST_GOLDEN - len(chosen)))]


def _with_answer(photo: Photo, answer: NDArray[np.float64], labels: Sequence[str]) -> GoldenPhoto:
    largest = np.argsort(-answer)[:_MOST_NAMED]
    # What float32 makes of a certain answer may be a little above 1.
    named = {labels[index]: round(min(max(float(answer[index]), 0.0), 1.0), 6) for index in largest}
    return GoldenPhoto(photo.name, photo.data, named)
