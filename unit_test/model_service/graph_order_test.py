"""Tests that a graph that would never end is refused before an engine reads it, and that loops are no such graph."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from model_service import errors
from model_service.models import graph_order, saved_model
from serving_common.tensorflow_protos import meta_graph_pb2, saved_model_pb2


def graph_of(*nodes: str) -> Any:
    """Return a MetaGraphDef with nodes in the form `name=Op(input, input)`."""
    graph = meta_graph_pb2.MetaGraphDef()
    add(graph.graph_def.node, *nodes)
    return graph


def add(target: Any, *nodes: str) -> None:
    """Add nodes to a graph or a function."""
    for text in nodes:
        name, _, rest = text.partition("=")
        op, _, inputs = rest.removesuffix(")").partition("(")
        target.add(name=name, op=op, input=[one for one in inputs.split(", ") if one])


def with_function(graph: Any, name: str, *nodes: str, calls: str = "") -> Any:
    """Add a function to a graph; `calls` is the function that its first node calls."""
    function = graph.graph_def.library.function.add()
    function.signature.name = name
    add(function.node_def, *nodes)
    if calls:
        function.node_def[0].attr["f"].func.name = calls
    return graph


class CheckOrderTest(unittest.TestCase):
    def test_what_ends_is_accepted(self) -> None:
        cases = {
            "in any order": graph_of("b=Neg(a)", "a=Neg(x)", "x=Placeholder()"),
            "after another": graph_of("a=Neg(x)", "b=Neg(x, ^a)", "x=Placeholder()"),
            "a loop of TensorFlow 1": graph_of(
                "start=Enter(x)", "merged=Merge(start, next)", "more=Neg(merged:1)", "next=NextIteration(more)"
            ),
            "functions": with_function(
                with_function(graph_of("a=f(x)"), "f", "p=PartitionedCall(v)", "q=Neg(p:output:0)", calls="g"),
                "g",
                "p=Neg(v)",
            ),
        }
        for case, graph in cases.items():
            with self.subTest(case):
                graph_order.check_order(graph)

    def test_what_never_ends_is_refused(self) -> None:
        cases = {
            "the node a needs": graph_of("a=Neg(a)"),
            "the node b needs": graph_of("b=Neg(c:1)", "c=Neg(b)"),
            "the node d needs": graph_of("d=Neg(x, ^e)", "e=Neg(d)"),
            "the node p needs": with_function(graph_of(), "f", "p=Neg(q:y:0)", "q=Neg(p:y:0)"),
            "the function f needs": with_function(graph_of(), "f", "p=PartitionedCall(v)", calls="f"),
            "the function g needs": with_function(graph_of(), "g", "p=g(v)"),
            "the name a stands for two nodes": graph_of("a=Neg(x)", "a=Abs(x)"),
        }
        for text, graph in cases.items():
            with self.subTest(text), self.assertRaisesRegex(errors.StartError, text):
                graph_order.check_order(graph)

    def test_a_model_that_never_ends_is_not_loaded(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        graph = graph_of("a=Neg(a)")
        graph.meta_info_def.tags.append("serve")
        (folder / "saved_model.pb").write_bytes(saved_model_pb2.SavedModel(meta_graphs=[graph]).SerializeToString())
        with self.assertRaisesRegex(errors.StartError, "the node a needs its own result"):
            saved_model.read_saved_model(folder, 1)


if __name__ == "__main__":
    unittest.main()
