"""Checks that a graph ends: a cycle of nodes or of functions would keep the loader busy for ever, or end the process.

OpenVINO follows a cycle without a limit, and TensorFlow refuses it.
"""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from grpc import StatusCode

from model_service.errors import StartError

# TensorFlow's loops of version 1 lead back through this operation, and only through it.
_LOOPS = frozenset({"NextIteration", "RefNextIteration"})


def check_order(graph: Any) -> None:
    """Raise StartError if a name stands for two nodes, or if nodes or functions of a MetaGraphDef form a cycle."""
    _check_nodes(graph.graph_def.node)
    library = graph.graph_def.library.function
    names = {function.signature.name for function in library}
    for function in library:
        _check_nodes(function.node_def)
    _check_cycles({one.signature.name: names.intersection(_called(one.node_def)) for one in library}, "function")


def _check_nodes(nodes: Iterable[Any]) -> None:
    loops: set[str] = set()
    inputs: dict[str, Iterable[str]] = {}
    for node in nodes:
        if node.name in inputs:
            raise _refused(f"the name {node.name} stands for two nodes")
        inputs[node.name] = node.input
        if node.op in _LOOPS:
            loops.add(node.name)
    _check_cycles(
        # An input is `node`, `node:1`, `node:output:1`, or `^node`.
        {name: {one.partition(":")[0].removeprefix("^") for one in given} - loops for name, given in inputs.items()},
        "node",
    )


def _check_cycles(before: dict[str, set[str]], what: str) -> None:
    try:
        TopologicalSorter(before).prepare()
    except CycleError as exc:
        raise _refused(f"the {what} {exc.args[1][0]} needs its own result") from exc


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield value.func.name
            yield from (function.name for function in value.list.func)


def _refused(reason: str) -> StartError:
    return StartError(f"The graph can't be computed: {reason}. Export the model again.", StatusCode.INVALID_ARGUMENT)
