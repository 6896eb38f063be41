"""Writes a SavedModel version folder: one flat graph of constants, signature `serving_default`, no variables."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warmup_requests import write_warmup

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
DOMAIN_NAME = "domain_score"


class ExportError(Exception):
    """The version folder can't be written."""


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
    target: Path, size: tuple[int, int], outputs: Callable[[Any], dict[str, Any]], warm: bool = False
) -> None:
    """Writes the graph that `outputs` builds on a float32 input `image` [batch, height, width, 3] to `target`.

    `size` is (height, width); `outputs` maps the input tensor to named output tensors. The graph is flat, without
    functions or variables, so that TensorFlow Serving and OpenVINO both see the signature's names as they stand.
    `warm` adds the warm-up file; the name in its request is that of the folder above `target`.
    """
    # What TensorFlow says of missing GPUs and of this flat kind of graph being an old one is of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    v1 = tf.compat.v1
    with folder_written_beside(target) as folder, tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, [None, *size, 3], name=INPUT_NAME)
        named = {name: tf.identity(tensor, name=name) for name, tensor in outputs(image).items()}
        signature = v1.saved_model.predict_signature_def({INPUT_NAME: image}, named)
        try:
            builder = v1.saved_model.Builder(str(folder))
            builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
            builder.save()
            # Made for variables, of which there are none; git would not keep it, so nobody shall see it.
            (folder / "variables").rmdir()
            if warm:
                write_warmup(folder, size, INPUT_NAME, target.parent.name)
        except tf.errors.OpError as exc:
            raise ExportError(f"{target}: {exc.message}") from exc
