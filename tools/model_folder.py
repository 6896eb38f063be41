"""Writes the recipe of a model version into its folder: as files for people, and into the model itself.

    assets.extra/preprocessor_config.json    how a photo becomes the model's input
    assets.extra/labels.txt                  one label per line, in the order of the model's outputs
    assets.extra/golden/                     photos, and golden.json with the probabilities expected for each
    saved_model.pb                           the same content, as a signature that returns a constant

    python -m tools.model_folder prev_trained_models/NAME/1    writes the current files into saved_model.pb

The services share no disk: the preprocess service asks the model server for that signature. TensorFlow is not needed.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pybase64

from preprocess_service.app.recipe import (
    SIGNATURE,
    SIGNATURE_INPUT,
    SIGNATURE_OUTPUT,
    Recipe,
    RecipeError,
    parse_recipe,
)
from serving_common.tensorflow_protos import DecodeError, meta_graph_pb2, saved_model_pb2, types_pb2

PREDICT_METHOD = "tensorflow/serving/predict"
# The prefix of the nodes that this module adds to a graph.
_PREFIX = f"{SIGNATURE}/"


@dataclass(frozen=True)
class GoldenPhoto:
    """A photo's file, and its largest expected probabilities by label."""

    name: str
    data: bytes
    probabilities: Mapping[str, float]


def write_recipe(
    folder: Path,
    preprocessor_config: Mapping[str, Any],
    labels: Sequence[str],
    golden: Sequence[GoldenPhoto] = (),
) -> Recipe:
    """Write the recipe into a version folder with a ``saved_model.pb``. It replaces an older recipe.

    Raises:
        RecipeError: the recipe is invalid; nothing is written.
        OSError: a file can't be read or written.
    """
    document = _document(preprocessor_config, labels, golden)
    recipe = parse_recipe(document)
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    _write_files(folder / "assets.extra", preprocessor_config, labels, golden)
    for meta_graph in model.meta_graphs:
        _embed(meta_graph, json.dumps(document, ensure_ascii=False).encode())
    path.write_bytes(model.SerializeToString(deterministic=True))
    return recipe


def _document(
    preprocessor_config: Mapping[str, Any], labels: Sequence[str], golden: Sequence[GoldenPhoto]
) -> dict[str, Any]:
    return {
        "preprocessor_config": dict(preprocessor_config),
        "labels": list(labels),
        "golden": [
            {
                "name": photo.name,
                "photo": pybase64.b64encode_as_string(photo.data),
                "probabilities": dict(photo.probabilities),
            }
            for photo in golden
        ],
    }


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe of a version folder from its files.

    Raises:
        RecipeError: there is no recipe, or it is invalid.
    """
    config, labels, golden = _read_files(folder / "assets.extra")
    return parse_recipe(_document(config, labels, golden))


def _read_files(extra: Path) -> tuple[dict[str, Any], list[str], list[GoldenPhoto]]:
    try:
        config = json.loads((extra / "preprocessor_config.json").read_text(encoding="utf-8"))
        labels = (extra / "labels.txt").read_text(encoding="utf-8").splitlines()
        expected = {}
        if (extra / "golden").is_dir():
            expected = json.loads((extra / "golden" / "golden.json").read_text(encoding="utf-8"))
        golden = [
            GoldenPhoto(name, (extra / "golden" / Path(name).name).read_bytes(), probabilities)
            for name, probabilities in expected.items()
        ]
    except (OSError, ValueError, AttributeError) as exc:
        raise RecipeError(f"{extra}: {exc}") from exc
    return config, labels, golden


def _write_files(
    extra: Path, preprocessor_config: Mapping[str, Any], labels: Sequence[str], golden: Sequence[GoldenPhoto]
) -> None:
    extra.mkdir(exist_ok=True)
    _write_json(extra / "preprocessor_config.json", dict(preprocessor_config))
    (extra / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    shutil.rmtree(extra / "golden", ignore_errors=True)
    if golden:
        (extra / "golden").mkdir()
        for photo in golden:
            (extra / "golden" / photo.name).write_bytes(photo.data)
        _write_json(extra / "golden" / "golden.json", {photo.name: dict(photo.probabilities) for photo in golden})


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _embed(meta_graph: meta_graph_pb2.MetaGraphDef, document: bytes) -> None:
    """Add a signature that returns ``document`` once for each value of its input, and the nodes for it.

    TensorFlow Serving's batching needs the input: it rejects a request without one, and needs as many rows in the
    output as in the input.
    """
    graph = meta_graph.graph_def
    kept = [node for node in graph.node if node.name != SIGNATURE and not node.name.startswith(_PREFIX)]
    del graph.node[:]
    graph.node.extend(kept)

    count = graph.node.add(name=_PREFIX + SIGNATURE_INPUT, op="Placeholder")
    count.attr["dtype"].type = types_pb2.DT_INT32
    count.attr["shape"].shape.dim.add(size=-1)

    shape = graph.node.add(name=_PREFIX + "shape", op="Shape", input=[count.name])
    shape.attr["T"].type = shape.attr["out_type"].type = types_pb2.DT_INT32

    value = graph.node.add(name=_PREFIX + "value", op="Const")
    value.attr["dtype"].type = types_pb2.DT_STRING
    value.attr["value"].tensor.dtype = types_pb2.DT_STRING
    value.attr["value"].tensor.tensor_shape.SetInParent()
    value.attr["value"].tensor.string_val.append(document)

    fill = graph.node.add(name=SIGNATURE, op="Fill", input=[shape.name, value.name])
    fill.attr["T"].type = types_pb2.DT_STRING
    fill.attr["index_type"].type = types_pb2.DT_INT32

    signature = meta_graph.signature_def[SIGNATURE]
    signature.Clear()
    signature.method_name = PREDICT_METHOD
    for aliases, alias, node, dtype in (
        (signature.inputs, SIGNATURE_INPUT, count, types_pb2.DT_INT32),
        (signature.outputs, SIGNATURE_OUTPUT, fill, types_pb2.DT_STRING),
    ):
        aliases[alias].name = f"{node.name}:0"
        aliases[alias].dtype = dtype
        aliases[alias].tensor_shape.dim.add(size=-1)


def main() -> int:
    """Return 0, or 1 if a file can't be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the version's folder, with saved_model.pb")
    options = parser.parse_args()
    try:
        recipe = write_recipe(options.folder, *_read_files(options.folder / "assets.extra"))
    except (OSError, DecodeError, RecipeError) as exc:
        print(f"model_folder: {exc}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {len(recipe.labels)} labels and {len(recipe.golden)} golden photos are in the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
