"""Tests that a graph is rejected if it can do more than compute, and accepted if it only computes."""

import unittest
from pathlib import Path
from typing import Any

from model_service import errors
from model_service.models import graph_check, saved_model
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import saved_models

PROJECT = Path(__file__).parents[2]
SHIPPED = PROJECT / "prev_trained_models" / "CAT-DOG"


class GraphCheckTest(unittest.TestCase):
    def setUp(self) -> None:
        self.graph = tensorflow_protos.meta_graph_pb2.MetaGraphDef()
        self.graph.graph_def.node.add(name="x", op="Placeholder")

    def add_function(self, name: str, operation: str) -> Any:
        function = self.graph.graph_def.library.function.add()
        function.signature.name = name
        return function.node_def.add(name="inside", op=operation)

    def refused(self, reason: str) -> None:
        with self.assertRaisesRegex(errors.StartError, reason):
            graph_check.check_graph(self.graph)

    def test_the_shipped_model_and_those_of_the_tests_are_loaded(self) -> None:
        folders = [*SHIPPED.glob("[0-9]*"), *saved_models().glob("*/1")]
        self.assertGreater(len(folders), 7)
        for folder in folders:
            with self.subTest(folder.parent.name):
                graph_check.check_graph(saved_model.serving_graph(saved_model.read_message(folder), folder))

    def test_an_operation_that_nobody_knows_is_refused(self) -> None:
        self.graph.graph_def.node.add(name="y", op="OfTheNextRelease")
        self.refused('"OfTheNextRelease" ."y"., and it may do more than compute')

    def test_a_function_that_nothing_calls_is_looked_at_too(self) -> None:
        self.add_function("f", "ReadFile")
        self.refused('"ReadFile" ."inside" in the function "f".')

    def test_a_call_of_a_function_is_allowed_by_either_form(self) -> None:
        self.add_function("f", "Identity")
        self.graph.graph_def.node.add(name="y", op="f")
        self.graph.graph_def.node.add(name="z", op="PartitionedCall").attr["f"].func.name = "f"
        graph_check.check_graph(self.graph)

    def test_a_function_does_not_make_an_operation_with_a_file_pass(self) -> None:
        for name in ("RestoreV2", "SaveV2", ""):
            with self.subTest(name):
                self.add_function(name, "Identity")
                self.refused("function with the name of an operation")
                del self.graph.graph_def.library.function[:]

    def test_it_is_found_behind_functions_that_are_arguments_of_functions(self) -> None:
        self.add_function("inner", "SaveV2")
        outer = self.graph.graph_def.node.add(name="y", op="PartitionedCall")
        outer.attr["f"].func.attr["g"].list.func.add().name = "inner"
        self.graph.signature_def["serving_default"].outputs["y"].name = "y:0"
        self.refused('"SaveV2" .* it is run for serving')

    def test_names_from_the_graph_are_quoted_in_one_short_line(self) -> None:
        self.graph.graph_def.node.add(name="y\n" * 1000, op="z" * 1000)
        with self.assertRaises(errors.StartError) as caught:
            graph_check.check_graph(self.graph)
        self.assertNotIn("\n", str(caught.exception))
        self.assertLess(len(str(caught.exception)), 600)

    def test_functions_that_call_each_other_in_circles_end(self) -> None:
        """Each of many functions calls all of them, with the name of a file as argument."""
        names = [f"f{number}" for number in range(60)]
        for name in names:
            restore = self.add_function(name, "RestoreV2")
            restore.input[:] = ["prefix"]
            function = self.graph.graph_def.library.function[-1]
            function.signature.input_arg.add(name="prefix")
            for called in names:
                function.node_def.add(name=called, op=called).input[:] = ["prefix"]
        self.graph.graph_def.node.add(name="restore", op="f0").input[:] = ["x"]
        self.graph.saver_def.restore_op_name, self.graph.saver_def.filename_tensor_name = "restore", "x:0"
        graph_check.check_graph(self.graph)
        self.graph.graph_def.node.add(name="other", op="f7").input[:] = ["restore"]
        self.refused("its file is not the one that the loader names")


if __name__ == "__main__":
    unittest.main()
