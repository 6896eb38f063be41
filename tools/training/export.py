"""Writes a SavedModel version folder: one flat graph of constants, no variables, one signature or two.

`serving_default` takes float32, as the network does. `pixels`, where the recipe is known, takes the photo as it is, in
a quarter of the bytes, and scales it in the graph: by what the network was trained with, whatever a client believes.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.training.warmup_requests import write_warmup

DEFAULT_SIGNATURE = "serving_default"
PIXELS_SIGNATURE = "pixels"
INPUT_NAME = "image"
PIXELS_NAME = "pixels"
OUTPUT_NAME = "probabilities"
DOMAIN_NAME = "domain_score"


class ExportError(Exception):
    """The version folder can't be written."""


@dataclass(frozen=True)
class Scaling:
    """What becomes of a pixel, 0 to 255: pixel * scale + offset, in float32."""

    scale: float
    offset: float


def next_version(model_folder: Path) -> int:
    """One more than the highest version in `model_folder`; 1 where there is none."""
    names = [path.name for path in model_folder.iterdir()] if model_folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0) + 1


@contextmanager
def folder_written_beside(target: Path) -> Iterator[Path]:
    """A scratch folder beside `target` that takes its name when the block ends well, and vanishes when not.

    A model server that polls the parent sees the whole version or none. Raises ExportError.
    """
    if target.exists():
        raise ExportError(f"{target} exists already: choose another --version or move it away")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The dot keeps a polling model server away: only names that are integers are versions.
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as exc:
        raise ExportError(f"{target.parent}: {exc.strerror}") from exc
    try:
        yield scratch / "model"
        (scratch / "model").replace(target)
    except OSError as exc:
        raise ExportError(f"{target}: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_saved_model(
    target: Path,
    size: tuple[int, int],
    outputs: Callable[[Any], dict[str, Any]],
    warm: bool = False,
    scaling: Scaling | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Writes the graph that `outputs` builds on a float32 input `image` [batch, height, width, 3] to `target`.

    `size` is (height, width); `outputs` maps the input tensor to named output tensors. The graph is flat, without
    functions or variables, so that TensorFlow Serving and OpenVINO both see the signatures' names as they stand.
    `scaling` adds the signature `pixels`: uint8 [batch, height, width, 3], the same outputs from the same constants.
    `finish` adds what else belongs into the folder.
    `warm` adds the warm-up file; the name in its request is that of the folder above `target`. Raises ExportError.
    """
    # What TensorFlow says of missing GPUs and of this flat kind of graph being an old one is of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    v1 = tf.compat.v1
    with folder_written_beside(target) as folder, tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, [None, *size, 3], name=INPUT_NAME)
        named = {name: tf.identity(tensor, name=name) for name, tensor in outputs(image).items()}
        signatures = {DEFAULT_SIGNATURE: v1.saved_model.predict_signature_def({INPUT_NAME: image}, named)}
        if scaling:
            signatures[PIXELS_SIGNATURE] = _pixels_signature(image, named, scaling)
        try:
            builder = v1.saved_model.Builder(str(folder))
            builder.add_meta_graph_and_variables(session, ["serve"], signatures)
            builder.save()
            # Made for variables, of which there are none; git would not keep it, so nobody shall see it.
            (folder / "variables").rmdir()
            if warm:
                # The preprocess service asks for pixels where it can; what nobody asks for needs no warming.
                name = PIXELS_SIGNATURE if scaling else DEFAULT_SIGNATURE
                write_warmup(folder, name, signatures[name], target.parent.name)
            if finish:
                finish(folder)
        except tf.errors.OpError as exc:
            raise ExportError(f"{target}: {exc.message}") from exc


def _pixels_signature(image: Any, named: dict[str, Any], scaling: Scaling) -> Any:
    """Adds to the graph what leads from uint8 [batch, height, width, 3] to outputs as `named`; its SignatureDef.

    A graph without functions can't use an operation for two inputs, so those that the picture runs through are there
    twice. They are small; the weights, which are nearly all of the file, serve both.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    pixels = v1.placeholder(tf.uint8, image.shape, name=PIXELS_NAME)
    operations, beside = _depending_on(image)
    given = {name: image.graph.get_tensor_by_name(name) for name in beside}
    given[image.name] = tf.cast(pixels, tf.float32) * scaling.scale + scaling.offset
    wanted = [tensor.name for tensor in named.values()]
    again = tf.import_graph_def(operations, given, wanted, name=f"from_{PIXELS_NAME}")
    return v1.saved_model.predict_signature_def({PIXELS_NAME: pixels}, dict(zip(named, again, strict=True)))


def _depending_on(image: Any) -> tuple[Any, set[str]]:
    """A GraphDef of the operations that compute from `image`, and the names of the tensors that they read beside it."""
    import tensorflow as tf

    # Without its versions it would be read as a graph of TensorFlow's first days.
    operations = tf.compat.v1.GraphDef(versions=image.graph.graph_def_versions)
    depending, beside = {image.name}, set()
    # In the order in which they were made, so each comes after what it reads.
    for operation in image.graph.get_operations():
        read = {tensor.name for tensor in operation.inputs}
        if read & depending:
            operations.node.append(operation.node_def)
            depending |= {tensor.name for tensor in operation.outputs}
            beside |= read - depending
    return operations, beside
