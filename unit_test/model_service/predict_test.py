"""Tests that inputs with a default may be omitted, and that unknown inputs are rejected."""

import unittest

import numpy as np

from model_service import errors
from model_service.models import saved_model, servables, tensors
from model_service.prediction import predict as prediction
from model_service.prediction import validation
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import Array, predict_request, served

FLOAT = tensorflow_protos.types_pb2.DT_FLOAT
NO_LIMIT = 2**40


class Sum:
    """Computes the sum of its inputs; rejects the value 9."""

    infer_requests = 1

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
        if (inputs["a"] == 9).any():
            raise errors.invalid_argument("no nines")
        total = np.sum([inputs["a"], inputs["b"]], axis=0)
        return {alias: total for alias in outputs}


class DefaultsTest(unittest.TestCase):
    def setUp(self) -> None:
        spec = {alias: saved_model.TensorSpec(alias, f"feed_{alias}:0", FLOAT, (-1,)) for alias in ("a", "b", "y")}
        inputs, outputs = {"a": spec["a"], "b": spec["b"]}, {"y": spec["y"]}
        defaults = {"b": np.array([10], np.float32)}
        signature = saved_model.Signature("serving_default", inputs, outputs, defaults)
        self.servables = served(Sum(), signature)

    def predict(self, **inputs: float) -> float:
        arrays = {alias: np.array([value], np.float32) for alias, value in inputs.items()}
        response = prediction.predict(self.servables, predict_request(arrays, "M"), validation.Options(NO_LIMIT))
        return float(tensors.to_array(response.outputs["y"], NO_LIMIT)[0])

    def test_a_default_stands_in_for_what_is_left_out(self) -> None:
        self.assertEqual(self.predict(a=1), 11)
        self.assertEqual(self.predict(a=1, b=2), 3)

    def test_what_fits_no_input_is_refused(self) -> None:
        cases: dict[str, dict[str, float]] = {
            "input size does not match signature: 0!=2 len({}) != len({a,b}). "
            "Sent extra: {}. Missing but required: {a}.": {},
            "Signature input alias: a(feed name: feed_a:0) not found in request and no default value provided. "
            "Inputs expected to be in the request {b}, or default input alias set: b": {"b": 1},
            "input tensor alias not found in signature: x. Inputs expected to be in the set {a,b}.": {"a": 1, "x": 1},
        }
        for text, inputs in cases.items():
            with self.subTest(text), self.assertRaises(errors.ServingError) as caught:
                self.predict(**inputs)
            with self.subTest(text):
                self.assertEqual(caught.exception.message, text)

    def test_a_model_that_is_not_there_is_refused(self) -> None:
        self.servables.unload("M", 1)
        with self.assertRaises(errors.ServingError) as caught:
            self.predict(a=1)
        self.assertEqual(caught.exception.message, "Servable not found for request: Latest(M)")

    def test_what_the_engine_refuses_is_the_answer(self) -> None:
        with self.assertRaises(errors.ServingError) as caught:
            self.predict(a=9)
        self.assertEqual(caught.exception.message, "no nines")

    def test_no_request_keeps_the_version_in_use(self) -> None:
        self.predict(a=1)
        for inputs in ({"b": 1.0}, {"a": 9.0}):
            with self.assertRaises(errors.ServingError):
                self.predict(**inputs)
        self.servables.unload("M", 1)
        (status,) = self.servables.statuses(tensorflow_protos.model_pb2.ModelSpec(name="M"))
        self.assertEqual(status.state, servables.END)

    def test_the_batch_size_is_the_first_dimension_of_the_first_input(self) -> None:
        for shape, size in (((3, 1), 3), ((), None)):
            request = predict_request({"a": np.zeros(shape, np.float32), "b": np.zeros(7, np.float32)}, "M")
            self.assertEqual(prediction.batch_size(request), size)


if __name__ == "__main__":
    unittest.main()
