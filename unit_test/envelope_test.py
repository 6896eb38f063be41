"""What is put together from bytes is what protobuf would have made of it."""

import unittest

import numpy as np
from preprocess_service import envelope, serving_messages


class EnvelopeTest(unittest.TestCase):
    def test_the_bytes_are_the_message_whatever_the_shape_and_the_names(self) -> None:
        for shape, name in (((1, 1, 3), "a"), ((4, 5, 3), "pixels"), ((64, 64, 3), "where a picture's numbers go")):
            with self.subTest(shape):
                tensor = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
                made = envelope.Envelope("CAT-DOG", "serving_default", name, ["scores", "domain"], shape)
                request = serving_messages.PredictRequest.FromString(made.around(tensor))
                expected = serving_messages.PredictRequest()
                expected.model_spec.name = "CAT-DOG"
                expected.model_spec.signature_name = "serving_default"
                expected.output_filter.extend(["scores", "domain"])
                expected.inputs[name].dtype = serving_messages.DT_FLOAT
                for size in (1, *shape):
                    expected.inputs[name].tensor_shape.dim.add(size=size)
                expected.inputs[name].tensor_content = tensor.tobytes()
                self.assertEqual(request, expected)

    def test_the_next_picture_leaves_nothing_of_the_last(self) -> None:
        made = envelope.Envelope("m", "s", "x", [], (2, 2, 3))
        for value in (1.0, 2.0):
            tensor = np.full((2, 2, 3), value, np.float32)
            request = serving_messages.PredictRequest.FromString(made.around(tensor[::-1]))
            self.assertEqual(set(np.frombuffer(request.inputs["x"].tensor_content, "<f4")), {value})


if __name__ == "__main__":
    unittest.main()
