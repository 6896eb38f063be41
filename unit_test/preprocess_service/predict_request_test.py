"""Tests that the request template gives the same bytes as protobuf."""

import unittest
from typing import Any

import numpy as np

from preprocess_service.app.serving_client import predict_request, signature
from serving_common import tensorflow_protos


def asked(name: str, accepts_uint8: bool, domain: str | None = "domain") -> Any:
    return signature.Signature(name, "scores", domain, "the signature", accepts_uint8)


class PredictRequestTemplateTest(unittest.TestCase):
    def test_the_bytes_are_the_message_whatever_the_shape_the_type_and_the_names(self) -> None:
        for shape, name in (
            ((1, 1, 1, 3), "a"),
            ((3, 4, 5, 3), "pixels"),
            ((2, 9, 9, 3), "where the pictures' numbers go"),
        ):
            for accepts_uint8 in (False, True):
                with self.subTest(shape, accepts_uint8=accepts_uint8):
                    batch = (
                        np.random.default_rng(0)
                        .integers(0, 256, shape)
                        .astype(np.uint8 if accepts_uint8 else np.float32)
                    )
                    made = predict_request.PredictRequestTemplate("CAT-DOG", asked(name, accepts_uint8), shape)
                    request = tensorflow_protos.predict_pb2.PredictRequest.FromString(made.render(list(batch)))
                    expected = tensorflow_protos.predict_pb2.PredictRequest()
                    expected.model_spec.name = "CAT-DOG"
                    expected.model_spec.signature_name = "the signature"
                    expected.output_filter.extend(["scores", "domain"])
                    dtype = (
                        tensorflow_protos.types_pb2.DT_UINT8 if accepts_uint8 else tensorflow_protos.types_pb2.DT_FLOAT
                    )
                    expected.inputs[name].dtype = dtype
                    for size in shape:
                        expected.inputs[name].tensor_shape.dim.add(size=size)
                    expected.inputs[name].tensor_content = batch.tobytes()
                    self.assertEqual(request, expected)

    def test_the_next_picture_leaves_nothing_of_the_last(self) -> None:
        made = predict_request.PredictRequestTemplate("m", asked("x", False, None), (1, 2, 2, 3))
        for value in (1.0, 2.0):
            tensor = np.full((2, 2, 3), value, np.float32)
            request = tensorflow_protos.predict_pb2.PredictRequest.FromString(made.render([tensor[::-1]]))
            self.assertEqual(set(np.frombuffer(request.inputs["x"].tensor_content, "<f4")), {value})


if __name__ == "__main__":
    unittest.main()
