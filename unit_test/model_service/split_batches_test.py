"""Tests that a large batch is computed in parts, with the same answer as in one."""

import unittest
from collections.abc import Mapping, Sequence

import numpy as np

from model_service.engines import split_batches
from model_service.models import saved_model
from unit_test.model_service.fixtures import Array

FLOAT = 1


class Doubling:
    """Doubles its input, and records the batch sizes. It returns `rows` rows, or all."""

    infer_requests = 3

    def __init__(self, rows: int | None = None) -> None:
        self.sizes: list[int] = []
        self._rows = rows

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        self.sizes.append(len(inputs["x"]))
        return {alias: 2 * inputs["x"][: self._rows] for alias in outputs}


def split(engine: Doubling, max_bytes: int, shape: tuple[int, ...] | None = (-1, 2)) -> split_batches.SplitEngine:
    """Return the engine split, with inputs and outputs of this shape."""
    specs = {alias: saved_model.TensorSpec(alias, f"{alias}:0", FLOAT, shape) for alias in ("x", "y")}
    return split_batches.SplitEngine(
        engine, saved_model.Signature("s", {"x": specs["x"]}, {"y": specs["y"]}), max_bytes
    )


class SplitEngineTest(unittest.TestCase):
    def setUp(self) -> None:
        self.engine = Doubling()
        self.inputs = {"x": np.arange(20, dtype=np.uint8).reshape(10, 2)}

    def assert_sizes(self, engine: split_batches.SplitEngine, sizes: list[int]) -> None:
        results = engine.run(self.inputs, ["y"])
        np.testing.assert_array_equal(results["y"], 2 * self.inputs["x"])
        self.assertEqual(self.engine.sizes, sizes)

    def test_a_batch_is_computed_in_parts_of_about_the_same_size(self) -> None:
        """A value counts as four bytes even for uint8, so a row has eight."""
        self.assert_sizes(split(self.engine, 32), [3, 3, 4])

    def test_a_batch_that_is_small_enough_is_computed_whole(self) -> None:
        self.assert_sizes(split(self.engine, 80), [10])

    def test_a_row_is_the_smallest_part(self) -> None:
        self.assert_sizes(split(self.engine, 1), [1] * 10)

    def test_at_zero_all_is_computed_whole(self) -> None:
        self.assert_sizes(split(self.engine, 0), [10])

    def test_what_the_signature_does_not_leave_open_is_computed_whole(self) -> None:
        for shape in ((10, 2), None, ()):
            with self.subTest(shape):
                self.engine.sizes.clear()
                self.assert_sizes(split(self.engine, 1, shape), [10])

    def test_where_the_outputs_are_no_rows_all_is_computed_whole(self) -> None:
        engine = Doubling(rows=1)
        together = split(engine, 32)
        for sizes in ([3, 10], [3, 10, 10]):
            self.assertEqual(len(together.run(self.inputs, ["y"])["y"]), 1)
            self.assertEqual(engine.sizes, sizes)


if __name__ == "__main__":
    unittest.main()
