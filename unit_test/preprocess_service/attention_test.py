"""Tests that the model's output ``attention`` is asked for and read where it can be, and harms no answer elsewhere."""

import unittest
from typing import Any

import numpy as np

from preprocess_service.app import config
from preprocess_service.app.errors import ModelError
from preprocess_service.app.serving_client import predict_response, signature
from preprocess_service.app.serving_client.predict_request import PredictRequestTemplate
from preprocess_service.app.serving_client.predict_response import read_predictions
from preprocess_service.app.serving_client.signature import MOST_PLACES, choose_signature
from serving_common import tensorflow_protos as messages
from unit_test.preprocess_service.recipes import recipe

FLOAT, INTEGER = messages.types_pb2.DT_FLOAT, messages.types_pb2.DT_INT32
RECIPE = recipe()
ASKING = recipe(second_look={"max_confidence": 0.9})
CONFIG = config.load_config({})
MAPS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def choose(attention: tuple[Any, list[int]] | None, of: Any = RECIPE, settings: Any = CONFIG) -> Any:
    """Return the signature that is chosen from a model with an attention of this type and shape, and its log lines."""
    definition = messages.get_model_metadata_pb2.SignatureDefMap().signature_def["serving_default"]
    definition.inputs["image"].dtype = FLOAT
    outputs: dict[str, tuple[Any, list[int]]] = {"probabilities": (FLOAT, [-1, 2])}
    if attention is not None:
        outputs["attention"] = attention
    for name, (kind, sizes) in outputs.items():
        definition.outputs[name].dtype = kind
        for size in sizes:
            definition.outputs[name].tensor_shape.dim.add(size=size)
    return choose_signature({"serving_default": definition}, of, settings)


def response(maps: Any, in_content: bool = True, kind: Any = FLOAT) -> Any:
    answer = messages.predict_pb2.PredictResponse()
    answer.model_spec.version.value = 3
    for name, values in (("probabilities", np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)), ("attention", maps)):
        output = answer.outputs[name]
        output.dtype = kind if name == "attention" else FLOAT
        for size in values.shape:
            output.tensor_shape.dim.add(size=size)
        if in_content:
            output.tensor_content = values.tobytes()
        else:
            output.float_val.extend(values.ravel().tolist())
    return answer


class SignatureTest(unittest.TestCase):
    def test_it_is_asked_for_where_it_has_three_dimensions_or_nothing_is_known_of_them(self) -> None:
        for sizes in ([-1, 8, 8], [-1, -1, -1], [4, 8, 8], []):
            with self.subTest(sizes), self.assertNoLogs(signature.logger):
                found = choose((FLOAT, sizes), ASKING)
                self.assertEqual(found.attention_output_name, "attention")
                request = messages.predict_pb2.PredictRequest.FromString(
                    PredictRequestTemplate("m", found, (1, 4, 5, 3)).render([np.zeros((4, 5, 3), np.float32)])
                )
                self.assertEqual(list(request.output_filter), ["probabilities", "attention"])

    def test_another_output_of_this_name_is_left_alone_and_the_log_says_so(self) -> None:
        for name, output in (
            ("four dimensions", (FLOAT, [-1, 12, 50, 50])),
            ("one", (FLOAT, [-1])),
            ("another type", (INTEGER, [-1, 8, 8])),
            ("too many places", (FLOAT, [-1, 1, MOST_PLACES + 1])),
        ):
            with self.subTest(name), self.assertLogs(signature.logger, "WARNING") as logs:
                self.assertIsNone(choose(output).attention_output_name)
                self.assertEqual(len(logs.output), 1)
                self.assertIn("attention is not used", logs.output[0])

    def test_the_log_says_that_a_second_look_is_not_possible_without_it(self) -> None:
        with self.assertLogs(signature.logger, "WARNING") as logs:
            self.assertIsNone(choose(None, ASKING).attention_output_name)
        self.assertIn("second_look in the model's recipe has no effect", logs.output[0])
        with self.assertNoLogs(signature.logger):
            self.assertIsNone(choose(None).attention_output_name)

    def test_an_output_of_probabilities_may_have_this_name(self) -> None:
        named = CONFIG.model_copy(update={"model_output_name": "attention"})
        found = choose((FLOAT, [-1, 2]), RECIPE, named)
        self.assertEqual((found.output_name, found.attention_output_name), ("attention", None))


class ResponseTest(unittest.TestCase):
    def setUp(self) -> None:
        self.signature = choose((FLOAT, []))

    def read(self, answer: Any) -> list[Any]:
        return read_predictions(answer, self.signature, RECIPE, 2)

    def test_each_picture_has_its_own_map(self) -> None:
        for in_content in (True, False):
            with self.subTest(in_content=in_content), self.assertNoLogs(predict_response.logger):
                found = self.read(response(MAPS, in_content))
                for prediction, expected in zip(found, MAPS, strict=True):
                    np.testing.assert_array_equal(prediction.attention, expected)
                    self.assertEqual(prediction.attention.dtype, np.float32)

    def test_a_map_that_is_none_is_not_used_and_the_answer_stays(self) -> None:
        def changed(value: float) -> Any:
            maps = MAPS.copy()
            maps[1, 2, 3] = value
            return maps

        for name, maps in (
            ("negative", changed(-1)),
            ("not a number", changed(np.nan)),
            ("infinite", changed(np.inf)),
            ("two dimensions", MAPS.reshape(2, 12)),
            ("of one picture", MAPS.reshape(1, 6, 4)),
            ("empty", np.zeros((2, 0, 4), np.float32)),
            ("too large", np.zeros((2, 1, MOST_PLACES + 1), np.float32)),
        ):
            with self.subTest(name):
                predict_response._without_attention.cache_clear()
                with self.assertLogs(predict_response.logger, "WARNING"):
                    found = self.read(response(maps))
                # Once, and not for each photo.
                with self.assertNoLogs(predict_response.logger):
                    self.read(response(maps))
                self.assertEqual([prediction.attention for prediction in found], [None, None])
                self.assertEqual([prediction.probabilities["DOG"] for prediction in found], [0.75, 0.5])

    def test_an_answer_without_it_or_of_another_type_has_none(self) -> None:
        without = response(MAPS)
        del without.outputs["attention"]
        for name, answer in (("integers", response(MAPS, kind=INTEGER)), ("none", without)):
            with self.subTest(name):
                self.assertEqual([prediction.attention for prediction in self.read(answer)], [None, None])

    def test_an_answer_whose_probabilities_are_wrong_is_an_error_as_before(self) -> None:
        answer = response(MAPS)
        answer.outputs["probabilities"].tensor_content = np.array([[2, 0], [0, 1]], np.float32).tobytes()
        wrong, right = self.read(answer)
        self.assertIsInstance(wrong, ModelError)
        np.testing.assert_array_equal(right.attention, MAPS[1])
