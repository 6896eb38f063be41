"""Tests the measurement of a message before it is parsed: it finds what the parser finds, at a small cost."""

import unittest

import numpy as np

from model_service import errors
from model_service.prediction import wire_format
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import predict_request, saved_models


def tensor(**fields: object) -> bytes:
    """Return a serialized request with one input of these fields."""
    request = predict_request({})
    request.inputs["x"].CopyFrom(tensorflow_protos.tensor_pb2.TensorProto(**fields))
    message: bytes = request.SerializeToString()
    return message


class MemoryOfTest(unittest.TestCase):
    def test_every_tensor_that_tensorflow_writes_can_be_measured(self) -> None:
        for case in sorted((saved_models() / "tensors").glob("*.pb")):
            with self.subTest(case.stem):
                request = predict_request({})
                request.inputs["x"].ParseFromString(case.read_bytes())
                self.assertLess(wire_format.memory_of(request.SerializeToString()), 20_000)

    def test_values_take_what_their_types_take(self) -> None:
        million = 1_000_000
        content = predict_request({"x": np.zeros(million, np.uint8)}).SerializeToString()
        cases = {
            "content": (content, 3 * million),
            "floats": (tensor(dtype=1, float_val=[0.5] * million), 3 * 4 * million),
            "integers": (tensor(dtype=4, int_val=[1] * million), 11 * million),
            "wide_integers": (tensor(dtype=9, int64_val=[1] * million), 19 * million),
            "a_string": (tensor(dtype=7, string_val=[b"s" * million]), 3 * million),
        }
        for case, (message, expected) in cases.items():
            with self.subTest(case):
                self.assertAlmostEqual(wire_format.memory_of(message) / expected, 1, delta=0.01)

    def test_what_no_honest_request_has_is_refused(self) -> None:
        names = predict_request({f"name {number}": np.zeros(0, np.float32) for number in range(5000)})
        dimensions = predict_request({"x": np.zeros(0, np.float32)})
        for _ in range(40_000):
            dimensions.inputs["x"].tensor_shape.dim.add()
        cases = {
            "names": names.SerializeToString(),
            "a_long_name": predict_request({}, "n" * 70_000).SerializeToString(),
            "dimensions": dimensions.SerializeToString(),
            "strings": tensor(dtype=7, string_val=[b""] * 60_000),
            "outputs": predict_request({}, output_filter=["o"] * 40_000).SerializeToString(),
        }
        for case, message in cases.items():
            with self.subTest(case), self.assertRaisesRegex(errors.ServingError, "The request has more than"):
                wire_format.memory_of(message)

    def test_what_is_no_message_is_refused(self) -> None:
        cases = {
            "a_group": b"\x0b\x0c",
            "cut_off": tensor(dtype=1, float_val=[1.0])[:-1],
            "longer_than_the_message": b"\x0a\xff\xff\xff\xff\x0f",
            "a_number_without_end": b"\xff" * 20,
            "an_input_longer_than_its_part": b"\x12\x02\x0a\x05aaaaa",
        }
        for case, message in cases.items():
            with self.subTest(case), self.assertRaisesRegex(errors.ServingError, "not a valid PredictRequest"):
                wire_format.memory_of(message)


if __name__ == "__main__":
    unittest.main()
