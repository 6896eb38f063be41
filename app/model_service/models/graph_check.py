"""Checks that a SavedModel's graph only computes: `--refuse_unsafe_operations`.

TensorFlow's operations can read and write files, call Python, open connections and end the process. A SavedModel may
use any of them, also while it is loaded. A list of forbidden operations would be incomplete after TensorFlow's next
release. So there is a list of allowed ones (allowed_operations.py). TensorFlow's loader needs four more. They are
allowed only in the part of the graph where the loader uses them, and only with the file name that the loader passes:

- RestoreV2 reads the variables. Its file name is the tensor that the graph's `saver_def` names.
- InitializeTableFromTextFile reads an asset when the model is loaded. Its file name is the tensor of the asset.
- SaveV2 and MergeV2Checkpoints write variables. Every export has them, but nothing that a server runs may reach them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from model_service.errors import StartError, one_line
from model_service.models.allowed_operations import ALLOWED
from serving_common.tensorflow_protos import DecodeError, meta_graph_pb2

# The parts of a graph that a server runs, and in which of them an operation with a file is allowed (None: nowhere).
_SERVING, _INIT, _RESTORE = "serving", "init", "restore"
_WITH_FILES = {
    "RestoreV2": _RESTORE,
    "InitializeTableFromTextFile": _INIT,
    "InitializeTableFromTextFileV2": _INIT,
    "SaveV2": None,
    "MergeV2Checkpoints": None,
}
# Which input of these operations is the file name.
_FILE_INPUT = {"RestoreV2": 0, "InitializeTableFromTextFile": 1, "InitializeTableFromTextFileV2": 1}
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_HARMLESS_USES = frozenset({"ReadVariableOp", "VarIsInitializedOp", "DisableCopyOnRead"})

_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_ASSET_COLLECTION = "saved_model_assets"

# Stands for the main graph among the names of functions.
_MAIN = ""


def check_graph(graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Raise StartError if the graph or one of its functions has an operation that may do more than compute."""
    _Check(graph).check()


class _Check:
    def __init__(self, graph: meta_graph_pb2.MetaGraphDef) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.graph_def.node}
        self._functions = {function.signature.name: function for function in graph.graph_def.library.function}
        self._files: dict[str, set[str]] = {}
        self._reached: dict[str, tuple[set[str], set[str]]] = {}
        self._proven: dict[str, set[tuple[str, str]]] = {_INIT: set(), _RESTORE: set()}
        self._callers: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        self._uses: dict[str, list[Any]] = defaultdict(list)
        self._variables: Counter[str] = Counter()

    def check(self) -> None:
        special = []
        for place, node in self._all_nodes():
            if node.op in _WITH_FILES:
                special.append((place, node))
            elif node.op not in ALLOWED and node.op not in self._functions:
                raise _refused(place, node, "it may do more than compute")
        for function in self._functions:
            # TensorFlow rejects this too. Here the check would take the operation for a call of the function.
            if function in _WITH_FILES or not function:
                raise StartError(f"The graph has a function with the name of an operation, {_quoted(function)}.")
        if not special and not self._graph.asset_file_def:
            return
        self._prepare()
        for place, node in special:
            self._check_special(place, node)

    def _prepare(self) -> None:
        graph, saver = self._graph, self._graph.saver_def
        assets = _assets(graph)
        for asset in assets:
            if not _is_plain(asset.filename):
                raise StartError(f"The asset {_quoted(asset.filename)} lies outside of the model's folder assets.")
        self._files = {
            _RESTORE: {_node(saver.filename_tensor_name)},
            _INIT: {_node(asset.tensor_info.name) for asset in assets},
        }
        for place, node in self._all_nodes():
            for function in self._calls(node):
                self._callers[function].append((place, node))
            if node.op == "VarHandleOp":
                self._variables[_variable(node)] += 1
        for node in self._nodes.values():
            for tensor in node.input:
                if not tensor.startswith("^"):
                    self._uses[_node(tensor)].append(node)
        self._reached = {
            role: self._reach(roots)
            for role, roots in (
                (_SERVING, _serving_roots(graph)),
                (_INIT, _init_roots(graph)),
                (_RESTORE, [saver.restore_op_name]),
            )
        }

    def _check_special(self, place: str, node: Any) -> None:
        roles = {
            role
            for role, (nodes, functions) in self._reached.items()
            if (place in functions if place else node.name in nodes)
        }
        role = _WITH_FILES[node.op]
        if roles - {role}:
            raise _refused(place, node, f"it is run for {', '.join(sorted(roles - {role}))}")
        if place and "api_implements" in self._functions[place].attr:
            raise _refused(place, node, "TensorFlow may run its function in the place of another")
        if role in roles and role is not None:
            index = _FILE_INPUT[node.op]
            if len(node.input) <= index or not self._comes_from(place, node.input[index], role):
                raise _refused(place, node, "its file is not the one that the loader names")

    def _all_nodes(self) -> Iterator[tuple[str, Any]]:
        for node in self._graph.graph_def.node:
            yield _MAIN, node
        for name, function in self._functions.items():
            for node in function.node_def:
                yield name, node

    def _reach(self, roots: Iterable[str]) -> tuple[set[str], set[str]]:
        """Return the nodes of the main graph that run for the outputs `roots`, and the functions that these call."""
        nodes: set[str] = set()
        functions: set[str] = set()
        pending = [_node(root) for root in roots]
        called: list[str] = []
        while pending:
            name = pending.pop()
            if name in self._nodes and name not in nodes:
                nodes.add(name)
                pending += map(_node, self._nodes[name].input)
                called += self._calls(self._nodes[name])
        while called:
            name = called.pop()
            if name in self._functions and name not in functions:
                functions.add(name)
                for node in self._functions[name].node_def:
                    called += self._calls(node)
        return nodes, functions

    def _calls(self, node: Any) -> Iterator[str]:
        yield node.op
        yield from _named_functions(node.attr)

    def _comes_from(self, place: str, tensor: str, role: str) -> bool:
        """Return whether the value of `tensor` is always a file name that the loader passes in for `role`."""
        pending, seen = [(place, tensor)], self._proven[role]
        while pending:
            one = pending.pop()
            if one not in seen:
                seen.add(one)
                sources = self._sources(*one, self._files[role])
                if sources is None:
                    return False
                pending += sources
        return True

    def _sources(self, place: str, tensor: str, files: set[str]) -> list[tuple[str, str]] | None:
        """Return the tensors that `tensor` gets its value from: none for one of `files`, None if that is not known."""
        if place:
            arguments = [argument.name for argument in self._functions[place].signature.input_arg]
            if tensor not in arguments or not self._callers[place]:
                return None
            index = arguments.index(tensor)
            if any(node.op not in (*_CALLS, place) or len(node.input) <= index for _, node in self._callers[place]):
                return None
            return [(where, node.input[index]) for where, node in self._callers[place]]
        name = _node(tensor)
        if name in files:
            return []
        node = self._nodes.get(name)
        if node is None or not node.input:
            return None
        if node.op == "Identity":
            return [(_MAIN, node.input[0])]
        return self._assigned(_node(node.input[0])) if node.op == "ReadVariableOp" else None

    def _assigned(self, handle: str) -> list[tuple[str, str]] | None:
        """Return the values of a variable, None if not known. TensorFlow 2 keeps an asset's name in a variable."""
        if handle not in self._nodes or self._variables[_variable(self._nodes[handle])] != 1:
            return None
        assigned = []
        for use in self._uses[handle]:
            if use.op == "AssignVariableOp" and len(use.input) > 1 and _node(use.input[0]) == handle:
                assigned.append((_MAIN, use.input[1]))
            elif use.op not in _HARMLESS_USES:
                return None
        return assigned


def _named_functions(attributes: Any) -> Iterator[str]:
    for value in attributes.values():
        for function in (*([value.func] if value.HasField("func") else []), *value.list.func):
            yield function.name
            yield from _named_functions(function.attr)


def _serving_roots(graph: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    for signature in graph.signature_def.values():
        # A name without a number is an operation and no tensor. No client can request it.
        yield from (info.name for info in signature.outputs.values() if ":" in info.name)


def _init_roots(graph: meta_graph_pb2.MetaGraphDef) -> Iterator[str]:
    if _INIT_SIGNATURE in graph.signature_def:
        yield from (info.name for info in graph.signature_def[_INIT_SIGNATURE].outputs.values())
    for key in _INIT_COLLECTIONS:
        if key in graph.collection_def:
            yield from graph.collection_def[key].node_list.value


def _assets(graph: meta_graph_pb2.MetaGraphDef) -> list[Any]:
    if graph.asset_file_def or _ASSET_COLLECTION not in graph.collection_def:
        return list(graph.asset_file_def)
    assets = []
    for packed in graph.collection_def[_ASSET_COLLECTION].any_list.value:
        try:
            assets.append(meta_graph_pb2.AssetFileDef.FromString(packed.value))
        except DecodeError as exc:
            raise StartError("The graph names an asset that can't be read: export the model again.") from exc
    return assets


def _is_plain(name: str) -> bool:
    """Return whether a file with this name is inside the folder in which TensorFlow looks for it."""
    path = PurePosixPath(name)
    return bool(name) and "\\" not in name and "://" not in name and not path.is_absolute() and ".." not in path.parts


def _variable(handle: Any) -> str:
    """Return the name of a handle's variable: its shared name, or the handle's own if it has none."""
    shared: bytes = handle.attr["shared_name"].s if "shared_name" in handle.attr else b""
    return shared.decode(errors="replace") or handle.name


def _node(tensor: str) -> str:
    """Return the name of the node that computes a tensor, or that a control dependency names."""
    return tensor.removeprefix("^").partition(":")[0]


def _quoted(name: str) -> str:
    # The author of the graph chose this name, and it is logged: make it short and one line.
    return f'"{one_line(name[:100])}"'


def _refused(place: str, node: Any, reason: str) -> StartError:
    where = f" in the function {_quoted(place)}" if place else ""
    return StartError(
        f"--refuse_unsafe_operations: the graph has the operation {_quoted(node.op)} ({_quoted(node.name)}{where}), "
        f"and {reason}. Serve a model without that flag only if you trust its author."
    )
