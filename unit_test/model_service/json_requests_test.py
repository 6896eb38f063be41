"""Tests the conversion of JSON to tensors in both formats, and TensorFlow Serving's error texts."""

import json
import math
import unittest
from typing import Any

import numpy as np

from model_service import errors
from model_service.api import json_limits, json_requests
from model_service.models import saved_model, tensors
from unit_test.model_service.fixtures import Array

FLOAT, INT32, UINT8, INT64, BOOL, STRING, HALF, COMPLEX = (
    next(kind.number for kind in tensors.KINDS.values() if kind.name == name)
    for name in ("float", "int32", "uint8", "int64", "bool", "string", "half", "complex64")
)


def signature(**types: int) -> Any:
    """Return a signature with inputs of these types and of any shape."""
    inputs = {alias: saved_model.TensorSpec(alias, f"{alias}:0", number, None) for alias, number in types.items()}
    return saved_model.Signature("serving_default", inputs, {})


def to_inputs(body: str, **types: int) -> tuple[dict[str, Array], bool]:
    """Parse a body for a signature with inputs of these types."""
    inputs, is_row_format = json_requests.to_inputs(json_limits.parse(body.encode()), signature(**types))
    return inputs, is_row_format


class ParseTest(unittest.TestCase):
    def test_what_is_not_a_json_object_is_refused(self) -> None:
        cases = {
            "": "JSON Parse error: The document is empty",
            "x": "JSON Parse error: Invalid value. at offset: 0",
            '{"inputs": [x]}': "JSON Parse error: Invalid value. at offset: 12",
            '{"inputs": 1} 2': "The document root must not be followed by other values. at offset: 14",
            "[1]": r"JSON Value: \[1\] Is not object",
            "[" * 100_000: "too long or too deeply nested",
            '{"inputs": ' + "1" * 5000 + "}": "too long or too deeply nested",
        }
        for body, text in cases.items():
            with self.subTest(body[:20]), self.assertRaisesRegex(errors.ServingError, text):
                json_limits.parse(body.encode())

    def test_a_body_that_is_not_utf_8_is_refused(self) -> None:
        with self.assertRaisesRegex(errors.ServingError, "Invalid encoding in string. at offset: 1"):
            json_limits.parse(b'"\xff"')

    def test_a_signature_name_must_be_a_string(self) -> None:
        self.assertEqual(json_requests.signature_name({"signature_name": "features"}), "features")
        self.assertEqual(json_requests.signature_name({}), "")
        with self.assertRaisesRegex(errors.ServingError, "'signature_name' key must be a string value"):
            json_requests.signature_name({"signature_name": 1})


class RowFormatTest(unittest.TestCase):
    def test_plain_values_feed_the_only_input(self) -> None:
        inputs, is_row_format = to_inputs('{"instances": [[1, 2.5], [3, 4]]}', x=FLOAT)
        self.assertTrue(is_row_format)
        np.testing.assert_array_equal(inputs["x"], np.array([[1, 2.5], [3, 4]], np.float32))
        self.assertEqual(inputs["x"].dtype, np.float32)

    def test_objects_feed_inputs_by_name(self) -> None:
        inputs, _ = to_inputs('{"instances": [{"x": [1, 2], "n": 3}, {"x": [4, 5], "n": 6}]}', x=FLOAT, n=INT64)
        np.testing.assert_array_equal(inputs["x"], [[1, 2], [4, 5]])
        np.testing.assert_array_equal(inputs["n"], [3, 6])

    def test_scalars_make_a_list_of_them(self) -> None:
        self.assertEqual(to_inputs('{"instances": [1, 2]}', x=INT32)[0]["x"].tolist(), [1, 2])

    def test_wrong_rows_are_refused(self) -> None:
        both = r"JSON Value: .* Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist $"
        cases = {
            "{}": "Missing 'inputs' or 'instances' key",
            '{"instances": [1], "inputs": [1]}': both,
            '{"instances": 1}': "Expecting 'instances' to be an list/array",
            '{"instances": []}': "No values in 'instances' array",
            '{"instances": [[1, 2], [3]]}': r"element: 1 of 'instances' list. .*Expecting shape \[2\] but got: \[1\]",
            '{"instances": [[[1, 2], [3]]]}': "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
            '{"instances": [[1, [2]]]}': "Encountered list at unexpected level: 1 expected < 1",
            '{"instances": [[[1], 2]]}': "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected",
            '{"instances": [{"x": 1}, 2]}': "Expecting object but got list at item 1 of input list",
            '{"instances": [1, {"x": 2}]}': "Expecting value/list but got object at item 1 of input list",
            '{"instances": [{"y": 1}]}': "must only have keys: x",
        }
        for body, text in cases.items():
            with self.subTest(body), self.assertRaisesRegex(errors.ServingError, text):
                to_inputs(body, x=FLOAT)

    def test_several_inputs_need_names(self) -> None:
        with self.assertRaisesRegex(errors.ServingError, "instances is a plain list, but expecting list of objects"):
            to_inputs('{"instances": [1]}', x=FLOAT, n=INT64)


class ColumnFormatTest(unittest.TestCase):
    def test_a_plain_value_feeds_the_only_input(self) -> None:
        inputs, is_row_format = to_inputs('{"inputs": [[1], [2]]}', x=FLOAT)
        self.assertFalse(is_row_format)
        np.testing.assert_array_equal(inputs["x"], [[1], [2]])

    def test_an_object_feeds_inputs_by_name(self) -> None:
        inputs, _ = to_inputs('{"inputs": {"x": [[1], [2]], "n": [3]}}', x=FLOAT, n=INT64)
        self.assertEqual((inputs["x"].shape, inputs["n"].shape), ((2, 1), (1,)))

    def test_a_missing_input_is_named(self) -> None:
        with self.assertRaisesRegex(errors.ServingError, "Missing named input: n in 'inputs' object."):
            to_inputs('{"inputs": {"x": [1]}}', x=FLOAT, n=INT64)

    def test_several_inputs_need_names(self) -> None:
        with self.assertRaisesRegex(errors.ServingError, "inputs is a plain value/list, but expecting an object"):
            to_inputs('{"inputs": [1]}', x=FLOAT, n=INT64)


class LeavesTest(unittest.TestCase):
    def test_values_of_the_right_type_are_taken(self) -> None:
        cases: dict[str, tuple[int, str, list[Any]]] = {
            "whole_number_as_float": (FLOAT, "[1, 0.5]", [1.0, 0.5]),
            "infinities": (FLOAT, "[Infinity, -Infinity]", [math.inf, -math.inf]),
            "half": (HALF, "[0.5]", [0.5]),
            "bytes_of_a_picture": (UINT8, "[0, 255]", [0, 255]),
            "big_integer": (INT64, "[1099511627776]", [2**40]),
            "booleans": (BOOL, "[true, false]", [True, False]),
            "text": (STRING, '["Maçã"]', ["Maçã".encode()]),
            "base64": (STRING, '[{"b64": "/w=="}]', [b"\xff"]),
        }
        for case, (number, text, values) in cases.items():
            with self.subTest(case):
                self.assertEqual(to_inputs(f'{{"instances": {text}}}', x=number)[0]["x"].tolist(), values)

    def test_nan_is_a_number(self) -> None:
        self.assertTrue(np.isnan(to_inputs('{"instances": [NaN]}', x=FLOAT)[0]["x"][0]))

    def test_a_base64_object_is_a_value_and_not_a_row_of_names(self) -> None:
        self.assertEqual(to_inputs('{"instances": [{"b64": "aGk="}]}', x=STRING)[0]["x"].tolist(), [b"hi"])
        self.assertEqual(to_inputs('{"inputs": {"b64": "aGk="}}', x=STRING)[0]["x"].tolist(), b"hi")

    def test_values_of_another_type_are_refused(self) -> None:
        cases: dict[str, tuple[int, Any, str]] = {
            "string_as_float": (FLOAT, "1", 'JSON Value: "1" Type: String is not of expected type: float'),
            "true_as_float": (FLOAT, True, "JSON Value: true Type: True is not of expected type: float"),
            "null_as_float": (FLOAT, None, "JSON Value: null Type: Null is not of expected type: float"),
            "object_as_float": (FLOAT, {"b64": "aGk="}, "Type: Object is not of expected type: float"),
            "integer_that_float_rounds": (FLOAT, 2**24, "Cannot convert JSON value: 16777216 to float without loss"),
            "number_past_float": (FLOAT, 1e39, "to float without loss of precision"),
            "fraction_as_integer": (INT32, 1.5, "JSON Value: 1.5 Type: Number is not of expected type: int32"),
            "integer_past_its_type": (UINT8, 256, "JSON Value: 256 Type: Number is not of expected type: uint8"),
            "number_as_boolean": (BOOL, 1, "Type: Number is not of expected type: bool"),
            "number_as_string": (STRING, 1, "Type: Number is not of expected type: string"),
            "broken_base64": (STRING, {"b64": "a"}, "Unable to base64 decode"),
            "other_object_as_string": (STRING, {"b64": 1}, "not formatted correctly for base64 data"),
            "complex": (COMPLEX, 1, "Conversion of JSON Value: .* to type: complex64"),
        }
        for case, (number, value, text) in cases.items():
            with self.subTest(case), self.assertRaisesRegex(errors.ServingError, text):
                to_inputs(json.dumps({"inputs": {"x": [value]}}), x=number)

    def test_a_long_value_is_quoted_in_part(self) -> None:
        with self.assertRaises(errors.ServingError) as caught:
            to_inputs(json.dumps({"inputs": "x" * 100_000}), x=FLOAT)
        self.assertLess(len(caught.exception.message), 1000)


if __name__ == "__main__":
    unittest.main()
