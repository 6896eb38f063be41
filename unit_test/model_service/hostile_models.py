"""Hostile SavedModels and what they do. This is a program that uses the real TensorFlow; never import it.

`python -m unit_test.model_service.hostile_models FOLDER` writes a secret file, and one model for each way to read it or
to write a file beside it. It loads each model with and without the graph check, and calls what it could load. For each
model it prints JSON:

    {"refused": why the check rejected it, or null, "harm": what it did without the check, or null}
"""

# mypy: disable-error-code="untyped-decorator, misc"
# TensorFlow ships no types.

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_service.engines.tensorflow import TensorFlowEngine, open_session
from model_service.errors import Failure
from model_service.models.saved_model import read_message, read_saved_model
from serving_common.tensorflow_protos import load_tensorflow

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
tf: Any = load_tensorflow()
v1 = tf.compat.v1
raw = tf.raw_ops

SECRET = "the-secret"
FOLDER = Path(sys.argv[1]).resolve()
SECRET_FILE, WRITTEN = FOLDER / "secret.txt", FOLDER / "written"
Outputs = dict[str, Any]
GRAPHS: list[Any] = []


class Model:
    """What a case adds to the graph: the outputs of its one signature, and what runs at load."""

    def __init__(self) -> None:
        self.outputs: Outputs = {}
        self.at_load: Any = None
        self.assets: Any = None


def save(name: str, build: Callable[[Model], None]) -> Path:
    folder = FOLDER / name / "1"
    with v1.Graph().as_default(), v1.Session() as session:
        value = v1.placeholder(tf.float32, [None], name="value")
        weights = v1.get_variable("weights", initializer=[1.0, 2.0])
        model = Model()
        model.outputs["value"] = value + weights[0]
        build(model)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"value": value}, model.outputs)
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, assets_collection=model.assets, main_op=model.at_load
        )
        builder.save()
        # Keep the graph: its Python functions would be deleted with it.
        GRAPHS.append(session.graph)
    return folder


class Vocabulary(tf.Module):
    """Variables, and a table from an asset, each read by a function, as TensorFlow 2 exports them."""

    def __init__(self) -> None:
        self.weights = tf.Variable([1.0, 2.0])
        self.asset = tf.saved_model.Asset(str(SECRET_FILE))
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                self.asset, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
            ),
            "",
        )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="value")])
    def serving_default(self, value: Any) -> Any:
        word = self.table.lookup(tf.constant([0], tf.int64))
        return {"value": value + self.weights[0], "word": word}


def save_as_version_2(name: str, change: Callable[[Any], None] | None) -> Path:
    folder = FOLDER / name / "1"
    model = Vocabulary()
    tf.saved_model.save(model, str(folder), {"serving_default": model.serving_default})
    if change:
        edit(folder, change)
    return folder


def node_of(graph: Any, name: str) -> Any:
    (node,) = (node for node in graph.graph_def.node if node.name == name)
    return node


def add_constant(graph: Any, value: Any) -> str:
    """Add a constant to the graph, and return its name."""
    tensor = tf.make_tensor_proto(value)
    node = graph.graph_def.node.add(name=f"constant_{len(graph.graph_def.node)}", op="Const")
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    name: str = node.name
    return name


def keeps_another_name_for_its_asset(message: Any) -> None:
    (graph,) = message.meta_graphs
    (asset,) = graph.asset_file_def
    (assign,) = (node for node in graph.graph_def.node if asset.tensor_info.name.split(":")[0] in node.input)
    assign.input[1] = add_constant(graph, str(SECRET_FILE))


def restores_from_elsewhere(message: Any) -> None:
    (graph,) = message.meta_graphs
    other = FOLDER / "version_2" / "1" / "variables" / "variables"
    node_of(graph, graph.saver_def.restore_op_name).input[0] = add_constant(graph, str(other))
    # An empty file shows which variables were read.
    Path(FOLDER, "restores_from_elsewhere", "1", "variables", "variables.data-00000-of-00001").write_bytes(b"")


def restores_in_the_place_of_another(message: Any) -> None:
    (graph,) = message.meta_graphs
    name = node_of(graph, graph.saver_def.restore_op_name).attr["f"].func.name
    (function,) = (one for one in graph.graph_def.library.function if one.signature.name == name)
    function.attr["api_implements"].s = b"anything"


EDITS: dict[str, Callable[[Any], None] | None] = {
    "version_2": None,
    **{
        change.__name__: change
        for change in (
            keeps_another_name_for_its_asset,
            restores_from_elsewhere,
            restores_in_the_place_of_another,
        )
    },
}


def edit(folder: Path, change: Callable[[Any], None]) -> None:
    message = read_message(folder)
    change(message)
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())


def secret() -> Any:
    return v1.constant(str(SECRET_FILE))


def harmless(_: Model) -> None:
    pass


def vocabulary(model: Model) -> None:
    """Allowed: a table from an asset, filled at load."""
    name = v1.constant(str(SECRET_FILE))
    v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, name)
    model.assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
    model.outputs["word"] = _table(name).lookup(v1.constant([0], tf.int64))
    model.at_load = v1.tables_initializer()


def _table(name: Any) -> Any:
    return v1.lookup.StaticHashTable(
        v1.lookup.TextFileInitializer(
            name, tf.int64, v1.lookup.TextFileIndex.LINE_NUMBER, tf.string, v1.lookup.TextFileIndex.WHOLE_LINE
        ),
        "",
    )


def reads_at_a_call(model: Model) -> None:
    model.outputs["read"] = v1.read_file(secret())


def reads_in_a_function(model: Model) -> None:
    @tf.function
    def read() -> Any:
        return tf.cond(tf.constant(True), lambda: tf.io.read_file(str(SECRET_FILE)), lambda: tf.constant(""))

    model.outputs["read"] = read()


def reads_lines(model: Model) -> None:
    model.outputs["read"] = raw.ReaderReadV2(reader_handle=raw.TextLineReaderV2(), queue_handle=_queue(model))[1]


def _queue(model: Model) -> Any:
    queue = raw.FIFOQueueV2(component_types=[tf.string])
    with v1.control_dependencies([raw.QueueEnqueueV2(handle=queue, components=[secret()])]):
        return tf.identity(queue)


def reads_a_data_set(model: Model) -> None:
    lines = v1.data.TextLineDataset(str(SECRET_FILE))
    model.outputs["read"] = tf.data.experimental.get_single_element(lines.take(1))


def lists_files(model: Model) -> None:
    model.outputs["read"] = v1.matching_files(str(SECRET_FILE))


def maps_a_file(model: Model) -> None:
    model.outputs["read"] = raw.ImmutableConst(dtype=tf.uint8, shape=[4], memory_region_name=str(SECRET_FILE))


def reads_a_table_of_no_asset(model: Model) -> None:
    model.outputs["word"] = _table(secret()).lookup(v1.constant([0], tf.int64))
    model.at_load = v1.tables_initializer()


def fills_a_table_at_a_call(model: Model) -> None:
    table = _table(secret())
    with v1.control_dependencies([table.initializer]):
        model.outputs["read"] = table.lookup(v1.constant([0], tf.int64))


def has_an_asset_elsewhere(model: Model) -> None:
    vocabulary(model)


def _move_asset(message: Any) -> None:
    (graph,) = message.meta_graphs
    collection = graph.collection_def["saved_model_assets"].any_list.value
    asset = graph.asset_file_def.add()
    collection[0].Unpack(asset)
    asset.filename = f"../../../{SECRET_FILE.name}"


def writes_at_the_load(model: Model) -> None:
    model.at_load = raw.WriteFile(filename=str(WRITTEN), contents="x")


def saves_at_the_load(model: Model) -> None:
    model.at_load = raw.SaveV2(
        prefix=str(WRITTEN), tensor_names=["x"], shape_and_slices=[""], tensors=[v1.constant([1.0])]
    )


def saves_at_a_call(model: Model) -> None:
    saving = raw.SaveV2(prefix=str(WRITTEN), tensor_names=["x"], shape_and_slices=[""], tensors=[v1.constant([1.0])])
    with v1.control_dependencies([saving]):
        model.outputs["read"] = v1.constant("")


def prints_into_a_file(model: Model) -> None:
    model.at_load = raw.PrintV2(input="x", output_stream=f"file://{WRITTEN}")


def debugs_into_a_file(model: Model) -> None:
    debugged = raw.DebugIdentity(input=v1.constant(1.0), tensor_name="x:0", debug_urls=[f"file://{WRITTEN}"])
    model.at_load = tf.group(debugged)


def restores_the_weights_of_another(model: Model) -> None:
    other = raw.RestoreV2(
        prefix=str(FOLDER / "harmless" / "1" / "variables" / "variables"),
        tensor_names=["weights"],
        shape_and_slices=[""],
        dtypes=[tf.float32],
    )
    model.outputs["read"] = tf.cond(other[0][0] > 0, lambda: v1.constant(SECRET), lambda: v1.constant(""))


def _save_while_restoring(message: Any) -> None:
    """The operation that the loader runs to restore the variables also saves them."""
    (graph,) = message.meta_graphs
    saving = node_of(graph, "save/SaveV2")
    # Save a constant, not the variable: the variable may exist only after it has been restored.
    saving.input[0], saving.input[3] = add_constant(graph, str(WRITTEN)), add_constant(graph, [1.0, 2.0])
    node_of(graph, graph.saver_def.restore_op_name).input.append("^save/SaveV2")


def calls_python(model: Model) -> None:
    model.outputs["read"] = v1.py_func(lambda: SECRET, [], tf.string)


def ends_the_process(model: Model) -> None:
    with v1.control_dependencies([raw.Abort(exit_without_error=True)]):
        model.outputs["ended"] = v1.constant("")


CASES: dict[Callable[[Model], None], Callable[[Any], None] | None] = {
    harmless: None,
    vocabulary: None,
    reads_at_a_call: None,
    reads_in_a_function: None,
    reads_lines: None,
    reads_a_data_set: None,
    lists_files: None,
    maps_a_file: None,
    reads_a_table_of_no_asset: None,
    fills_a_table_at_a_call: None,
    has_an_asset_elsewhere: _move_asset,
    writes_at_the_load: None,
    saves_at_the_load: None,
    saves_at_a_call: None,
    prints_into_a_file: None,
    debugs_into_a_file: None,
    restores_the_weights_of_another: None,
    calls_python: None,
    ends_the_process: None,
}


def two_graphs(folder: Path) -> None:
    """The first graph has the tag twice. Loaders that compare sets of tags take it, and not the second one."""
    shutil.copytree(FOLDER / "harmless", folder.parent)
    hostile = read_message(FOLDER / "writes_at_the_load" / "1").meta_graphs[0]
    hostile.meta_info_def.tags.append("serve")

    def put_first(message: Any) -> None:
        message.meta_graphs.insert(0, hostile)

    edit(folder, put_first)


def attempt(folder: Path, is_checked: bool) -> tuple[str | None, str | None]:
    """Return why the model was rejected, and what it did."""
    shutil.rmtree(WRITTEN, ignore_errors=True)
    read, refused = "", None
    try:
        model = read_saved_model(folder, 1, is_checked)
        session = open_session(model, 1)
        signature = model.signatures["serving_default"]
        if "ended" not in signature.outputs:
            engine = TensorFlowEngine(session, signature, 1)
            outputs = [name for name in signature.outputs if name not in ("value",)]
            read = str(engine.run({"value": np.zeros(1, np.float32)}, [*outputs, "value"]))
        else:
            read = SECRET
    except Failure as exc:
        refused = str(exc)
    written = [path.name for path in FOLDER.glob("written*")]
    for path in FOLDER.glob("written*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if written:
        return refused, f"wrote {written}"
    return refused, "read" if SECRET in read or "secret.txt" in read or "116, 104, 101" in read.replace(
        "  ", " "
    ) else None


def main() -> None:
    SECRET_FILE.write_text(f"{SECRET}\n")
    folders = {}
    for build, change in CASES.items():
        folders[build.__name__] = save(build.__name__, build)
        if change:
            edit(folders[build.__name__], change)
    folders["saves_while_restoring"] = save("saves_while_restoring", harmless)
    edit(folders["saves_while_restoring"], _save_while_restoring)
    folders |= {name: save_as_version_2(name, change) for name, change in EDITS.items()}
    folders["two_graphs"] = FOLDER / "two_graphs" / "1"
    two_graphs(folders["two_graphs"])
    found = {}
    for name, folder in folders.items():
        refused, harm = attempt(folder, is_checked=True)
        found[name] = {
            "refused": refused,
            "harm_checked": harm,
            "unchecked": (unchecked := attempt(folder, is_checked=False))[0],
            "harm": unchecked[1],
        }
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
