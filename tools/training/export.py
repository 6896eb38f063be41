"""Writes the version folder of a SavedModel: one flat graph of constants without variables, one or two signatures.

`serving_default` has a float32 input, as the network. `pixels`, if the recipe is known, has a uint8 input, which is a
quarter of the bytes. The graph scales it with the values of the training, so a client can't use wrong ones.
"""

import contextlib
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
ATTENTION_NAME = "attention"


class ExportError(Exception):
    """The version folder can't be written."""


@dataclass(frozen=True)
class Scaling:
    """The scaling of a pixel, 0 to 255: pixel * scale + offset, in float32."""

    scale: float
    offset: float


def next_version(model_folder: Path) -> int:
    """Return the highest version in `model_folder` plus 1; 1 if there is none."""
    names = [path.name for path in model_folder.iterdir()] if model_folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0) + 1


@contextmanager
def folder_written_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`. It is renamed to `target` if the block succeeds, otherwise deleted.

    So a model server that polls the parent folder sees the complete version or none. Folders above it that are made
    here are deleted again, too. Raises ExportError.
    """
    if target.exists():
        raise ExportError(f"{target} exists already: choose another --version or move it away")
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name begins with a dot, so a polling model server ignores it: only integers are versions.
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as exc:
        _remove_empty(made)
        raise ExportError(f"{target.parent}: {exc.strerror}") from exc
    try:
        yield scratch / "model"
        (scratch / "model").replace(target)
    except OSError as exc:
        raise ExportError(f"{target}: {exc.strerror or exc}") from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders that are empty; the innermost one comes first."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_saved_model(
    target: Path,
    size: tuple[int, int],
    outputs: Callable[[Any], dict[str, Any]],
    warm: bool = False,
    scaling: Scaling | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write to `target` the graph that `outputs` builds on a float32 input `image` [batch, height, width, 3].

    `size` is (height, width); `outputs` maps the input tensor to named output tensors. The graph is flat, without
    functions or variables, so that TensorFlow Serving and OpenVINO both see the names of the signatures unchanged.
    `scaling` adds the signature `pixels`: uint8 [batch, height, width, 3], with the same outputs and constants.
    `finish` adds the other files of the folder.
    `warm` adds the warm-up file; the model name in its request is that of `target`'s parent. Raises ExportError.
    """
    # Hides TensorFlow's messages about missing GPUs and about this old kind of graph.
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
            # The folder is for variables and is empty. Git does not keep empty folders.
            (folder / "variables").rmdir()
            if warm:
                # The preprocess service calls `pixels` if the model has it, so only that is warmed up.
                name = PIXELS_SIGNATURE if scaling else DEFAULT_SIGNATURE
                write_warmup(folder, name, signatures[name], target.parent.name)
            if finish:
                finish(folder)
        except tf.errors.OpError as exc:
            raise ExportError(f"{target}: {exc.message}") from exc


def _pixels_signature(image: Any, named: dict[str, Any], scaling: Scaling) -> Any:
    """Add operations from uint8 [batch, height, width, 3] to the outputs `named`; return their SignatureDef.

    Without functions, one operation can't serve two inputs. So the operations between input and outputs are duplicated.
    They are small; the weights, which are most of the file, are shared.
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
    """Return a GraphDef of the operations that depend on `image`, and the names of the other tensors that they read."""
    import tensorflow as tf

    # Without its versions it would be read as a graph of TensorFlow's first release.
    operations = tf.compat.v1.GraphDef(versions=image.graph.graph_def_versions)
    depending, beside = {image.name}, set()
    # In the order of creation, so each operation comes after its inputs.
    for operation in image.graph.get_operations():
        read = {tensor.name for tensor in operation.inputs}
        if read & depending:
            operations.node.append(operation.node_def)
            depending |= {tensor.name for tensor in operation.outputs}
            beside |= read - depending
    return operations, beside
