"""Tests the conversion of tensors to JSON in both formats, with as many digits per float as it needs."""

import json
import math
import unittest
from typing import Any

import numpy as np

from model_service import errors
from model_service.api import json_responses
from unit_test.model_service.fixtures import Array


def render(is_row_format: bool, **results: Array) -> Any:
    """Return the answer as a client parses it."""
    return json.loads(json_responses.render(results, is_row_format))


class RowFormatTest(unittest.TestCase):
    def test_one_output_gives_bare_values(self) -> None:
        self.assertEqual(render(True, y=np.array([[1.0], [2.0]])), {"predictions": [[1.0], [2.0]]})

    def test_several_outputs_give_an_object_for_each_row(self) -> None:
        answer = render(True, b=np.array([True, False]), a=np.array([[1], [2]]))
        self.assertEqual(answer, {"predictions": [{"a": [1], "b": True}, {"a": [2], "b": False}]})

    def test_outputs_that_have_no_rows_are_refused(self) -> None:
        cases: dict[str, dict[str, Array]] = {
            "Tensor name: y has no shape information": {"y": np.array(1.0)},
            "Tensor name: y has invalid batch size: 0": {"y": np.empty((0, 2))},
            "Tensor name: z has inconsistent batch size: 3 expecting: 2": {"y": np.zeros(2), "z": np.zeros(3)},
        }
        for text, results in cases.items():
            with self.subTest(text), self.assertRaisesRegex(errors.ServingError, text):
                render(True, **results)


class ColumnFormatTest(unittest.TestCase):
    def test_one_output_gives_its_array(self) -> None:
        self.assertEqual(render(False, y=np.array([[1], [2]])), {"outputs": [[1], [2]]})
        self.assertEqual(render(False, y=np.array(7)), {"outputs": 7})

    def test_several_outputs_give_an_object_of_arrays(self) -> None:
        self.assertEqual(render(False, a=np.zeros(2, int), b=np.ones(1, int)), {"outputs": {"a": [0, 0], "b": [1]}})


class LeavesTest(unittest.TestCase):
    def test_a_float_has_the_digits_it_needs(self) -> None:
        cases = {
            "0.2": np.float32(0.2),
            "1.0": np.float32(1),
            "0.333333343": np.float32(1 / 3),
            "0.33333333333333331": np.float64(1 / 3),
            "0.0999756": np.float16(0.1),
        }
        for text, value in cases.items():
            with self.subTest(text):
                self.assertEqual(render(False, y=np.array([value]))["outputs"], [float(text)])

    def test_what_is_no_number_is_written_as_tensorflow_serving_writes_it(self) -> None:
        body = json_responses.render({"y": np.array([math.nan, math.inf, -math.inf])}, False)
        self.assertEqual(body, b'{"outputs": [NaN, Infinity, -Infinity]}')

    def test_strings_are_text_and_bytes_where_the_name_says_so(self) -> None:
        text = np.array(["Maçã".encode()], object)
        self.assertEqual(
            render(False, y=text, y_bytes=text)["outputs"], {"y": ["Maçã"], "y_bytes": [{"b64": "TWHDp8Oj"}]}
        )

    def test_complex_numbers_have_no_json(self) -> None:
        with self.assertRaisesRegex(errors.ServingError, "Failed to write JSON value for tensor type: complex64"):
            render(False, y=np.zeros(1, np.complex64))


if __name__ == "__main__":
    unittest.main()
