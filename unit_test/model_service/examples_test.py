"""Tests Classify, Regress and MultiInference over gRPC and REST, with TensorFlow Serving's checks and texts."""

import unittest
from typing import Any

import grpc
import requests

from model_service import errors
from model_service.api import json_limits, json_requests
from model_service.prediction import wire_format
from serving_common import tensorflow_protos as protos
from unit_test.model_service.fixtures import shared_server

TIMEOUT_S = 60
Code = grpc.StatusCode
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(*values: float, name: str = "x") -> Any:
    """Return a tf.Example with these values."""
    made = protos.example_pb2.Example()
    made.features.feature[name].float_list.value.extend(values)
    return made


def filled(request: Any, *examples: Any) -> Any:
    """Return `request` with these examples."""
    request.input.example_list.examples.extend(examples)
    return request


def classification(signature: str = "", *examples: Any, name: str = "CAT-DOG") -> Any:
    """Return a ClassificationRequest."""
    request = protos.classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    return filled(request, *examples)


def regression(signature: str = "regress", *examples: Any) -> Any:
    """Return a RegressionRequest."""
    request = protos.regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "CAT-DOG", signature
    return filled(request, *examples)


def several(*tasks: tuple[str, str], name: str = "CAT-DOG") -> Any:
    """Return a MultiInferenceRequest for one example, with tasks given by signature and method."""
    request = protos.inference_pb2.MultiInferenceRequest()
    for signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = name, signature
    return filled(request, example(1, 2))


def field_of_input(content: bytes) -> bytes:
    """Return the wire format of a request with these fields of an example list with context."""
    listed = b"\x12" + varint(len(content)) + content
    return b"\x12" + varint(len(listed)) + listed


def varint(number: int) -> bytes:
    """Return a number of at most 14 bits as protobuf writes it."""
    return bytes([number & 127 | 128, number >> 7]) if number > 127 else bytes([number])


class ServedTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.server = shared_server("examples")
        channel = grpc.insecure_channel(f"127.0.0.1:{cls.server.grpc_port}")
        cls.addClassCleanup(channel.close)
        cls.predictions = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def refusal(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        with self.assertRaises(grpc.RpcError) as caught:
            getattr(self.predictions, method)(request, timeout=TIMEOUT_S)
        return caught.exception.code(), caught.exception.details()

    def assert_refused(
        self, method: str, request: Any, text: str, code: grpc.StatusCode = Code.INVALID_ARGUMENT
    ) -> None:
        got, details = self.refusal(method, request)
        self.assertEqual(got, code)
        self.assertTrue(details.startswith(text), details)


class GrpcTest(ServedTestCase):
    def test_classify_gives_labels_and_scores(self) -> None:
        response = self.predictions.Classify(classification("", example(1, 2), example(3, 4)), timeout=TIMEOUT_S)
        spec = response.model_spec
        self.assertEqual((spec.name, spec.version.value, spec.signature_name), ("CAT-DOG", 1, "serving_default"))
        rows = [[(one.label, one.score) for one in row.classes] for row in response.result.classifications]
        self.assertEqual(rows, [[("cat", 1), ("dog", 2)], [("cat", 3), ("dog", 4)]])

    def test_classes_may_have_no_labels(self) -> None:
        response = self.predictions.Classify(classification("scores", example(1, 2)), timeout=TIMEOUT_S)
        self.assertEqual(
            [(one.label, one.score) for one in response.result.classifications[0].classes], [("", 1), ("", 2)]
        )

    def test_regress_gives_a_value_for_each_example(self) -> None:
        response = self.predictions.Regress(regression("regress", example(1, 2), example(3, 4)), timeout=TIMEOUT_S)
        self.assertEqual([one.value for one in response.result.regressions], [3, 7])
        self.assertEqual(response.model_spec.signature_name, "regress")

    def test_a_context_stands_before_each_example(self) -> None:
        request = classification("scores")
        listed = request.input.example_list_with_context
        listed.context.CopyFrom(example(1, 2))
        listed.examples.extend([example(3, name="y"), example(5, 6)])
        response = self.predictions.Classify(request, timeout=TIMEOUT_S)
        rows = [[one.score for one in row.classes] for row in response.result.classifications]
        self.assertEqual(rows, [[1, 2], [5, 6]])

    def test_several_signatures_are_run_on_the_same_examples(self) -> None:
        request = several(("regress", REGRESS), ("", CLASSIFY))
        regressed, classified = self.predictions.MultiInference(request, timeout=TIMEOUT_S).results
        self.assertEqual(regressed.regression_result.regressions[0].value, 3)
        self.assertEqual(classified.classification_result.classifications[0].classes[1].score, 2)
        self.assertEqual(classified.model_spec.signature_name, "serving_default")
        self.assertEqual(regressed.model_spec.version.value, 1)

    def test_wrong_classifications_are_refused(self) -> None:
        one = example(1, 2)
        cases = {
            "Missing ModelSpec": protos.classification_pb2.ClassificationRequest(),
            "ModelSpec has no name specified.": classification("", one, name=""),
            "No signature was found with the name: none": classification("none", one),
            "Input is empty.": classification(),
            "No classification inputs found in SignatureDef: ": classification("other_input", one),
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: ": classification("other_names", one),
            "Expected Tensor shape: [batch_size num_classes] but got [1]": classification("flat", one),
            "Expected scores Tensor of DT_FLOAT. Got: DT_INT64": classification("whole_numbers", one),
            "Expected scores output batch size of 2. Got: 1": classification("one_row", one, one),
        }
        for text, request in cases.items():
            with self.subTest(text):
                self.assert_refused("Classify", request, text)
        request = classification("", one, name="M")
        self.assert_refused("Classify", request, "Servable not found for request: Latest(M)", Code.NOT_FOUND)

    def test_wrong_regressions_are_refused(self) -> None:
        one = example(1, 2)
        cases = {
            "No signature was found with the name: none": regression("none", one),
            "Input is empty.": regression(),
            "Expected one output Tensor.": regression("serving_default", one),
            "No regression outputs found in SignatureDef: ": regression("scores", one),
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]": regression(
                "wide", one
            ),
        }
        for text, request in cases.items():
            with self.subTest(text):
                self.assert_refused("Regress", request, text)

    def test_wrong_multi_inferences_are_refused(self) -> None:
        other_model = several(("regress", REGRESS), ("", CLASSIFY))
        other_model.tasks[1].model_spec.name = "M"
        cases = {
            "ModelSpec has no name specified.": several(),
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.": other_model,
            "Duplicate evaluation of signature: regress": several(("regress", REGRESS), ("regress", REGRESS)),
            "Requested signature not found in model graph: none": several(("none", REGRESS)),
        }
        for text, request in cases.items():
            with self.subTest(text):
                self.assert_refused("MultiInference", request, text)
        text = "Unsupported signature method_name: m"
        self.assert_refused("MultiInference", several(("regress", "m")), text, Code.UNIMPLEMENTED)

    def test_examples_that_cannot_be_parsed_are_the_requests_fault(self) -> None:
        head = classification().SerializeToString()
        channel = grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}")
        self.addCleanup(channel.close)
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
        cases = {
            "no_example": (b"\x12\x05\x0a\x03\x0a\x01\xff", "Could not parse example input"),
            "another_feature": (
                None,
                "Feature: x (data type: float) is required but could not be found.",
            ),
            "cut_off": (b"\x12\x7f\x0a", "The message is not a valid ClassificationRequest"),
        }
        for case, (tail, text) in cases.items():
            message = head + tail if tail else classification("", example(1, name="y")).SerializeToString()
            with self.subTest(case), self.assertRaises(grpc.RpcError) as caught:
                call(message, timeout=TIMEOUT_S)
            with self.subTest(case):
                self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
                self.assertIn(text, caught.exception.details())

    def test_a_method_name_is_not_checked_by_default_and_checked_by_the_flag(self) -> None:
        server = shared_server("examples", "--enable_signature_method_name_check")
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Classify(classification("", example(1, 2)), timeout=TIMEOUT_S)
        self.assertEqual(
            caught.exception.details(),
            f"Expected classification signature method_name to be {CLASSIFY}. Was: tensorflow/serving/predict",
        )

    def test_each_call_is_counted_and_logged_under_its_method(self) -> None:
        self.predictions.Regress(regression("regress", example(1, 2)), timeout=TIMEOUT_S)
        self.assertIn('"message": "Regress OK"', self.server.output())


class RestTest(ServedTestCase):
    def post(self, method: str, body: Any) -> requests.Response:
        url = f"{self.server.url}/v1/models/CAT-DOG:{method}"
        return requests.post(url, json=body, timeout=TIMEOUT_S)

    def test_classify_gives_pairs_of_label_and_score(self) -> None:
        answer = self.post("classify", {"examples": [{"x": [0.1, 2.0]}]}).json()
        self.assertEqual(answer, {"results": [[["cat", 0.1], ["dog", 2.0]]]})

    def test_regress_gives_values_and_a_context_is_read_before_each_example(self) -> None:
        body = {"signature_name": "regress", "context": {"x": [1.0, 2.0]}, "examples": [{}, {"x": [3.0, 4.0]}]}
        self.assertEqual(self.post("regress", body).json(), {"results": [3.0, 7.0]})

    def test_wrong_requests_are_refused(self) -> None:
        cases: dict[str, tuple[int, Any]] = {
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found": (400, {}),
            "JSON Value: {\"examples\": 1} Expecting 'examples' value to be an list/array": (400, {"examples": 1}),
            "JSON Value: {\"examples\": []} 'examples' value is an empty array": (400, {"examples": []}),
            "No signature was found with the name: s": (400, {"signature_name": "s", "examples": [{"x": 1.0}]}),
        }
        for text, (status, body) in cases.items():
            with self.subTest(text):
                response = self.post("classify", body)
                self.assertEqual((response.status_code, response.json()["error"]), (status, text))


class ExamplesTest(unittest.TestCase):
    def features(self, content: str) -> Any:
        document = json_limits.parse(b'{"examples": [{"f": ' + content.encode() + b"}]}")
        (part,) = json_requests.to_examples(document).parts
        return protos.example_pb2.Example.FromString(bytes(part)).features.feature["f"]

    def test_json_values_become_features_of_their_kind(self) -> None:
        cases: dict[str, tuple[str, list[Any]]] = {
            "[1.5, 1e300]": ("float_list", [1.5, float("inf")]),
            "[1, true, -9223372036854775808]": ("int64_list", [1, 1, -(2**63)]),
            '["a", {"b64": "/w=="}]': ("bytes_list", [b"a", b"\xff"]),
            "20000000000000000000000": ("float_list", [2e22]),
        }
        for content, (kind, values) in cases.items():
            with self.subTest(content):
                feature = self.features(content)
                self.assertEqual(feature.WhichOneof("kind"), kind)
                read = list(getattr(feature, kind).value)
                self.assertEqual([float(f"{one:.6g}") if kind == "float_list" else one for one in read], values)

    def test_values_of_no_kind_are_refused(self) -> None:
        cases = {
            "null": "Feature: f has element with unexpected JSON type: Null",
            "[[1]]": "Feature: f has element with unexpected JSON type: Array",
            '{"a": 1}': "Feature: f has element with unexpected JSON type: Object",
            "[1.5, 1]": "Unexpected element type in feature: f expecting type: float",
            '["a", 1]': "Unexpected element type in feature: f expecting type: bytes",
            "9223372036854775808": "Feature: f has uint64_t element. Only int64_t is supported.",
            '{"b64": "x"}': "Unable to base64 decode",
        }
        for content, text in cases.items():
            with self.subTest(content), self.assertRaises(errors.ServingError) as caught:
                self.features(content)
            with self.subTest(content):
                self.assertEqual(caught.exception.message, text)
        with self.assertRaisesRegex(errors.ServingError, "Example must be JSON object but got JSON Number"):
            json_requests.to_examples({"examples": [1]})


class WireTest(unittest.TestCase):
    def test_examples_are_found_and_counted_without_being_parsed(self) -> None:
        request = classification("s", example(1), example(2))
        found = wire_format.read_examples(request.SerializeToString(), "ClassificationRequest")
        self.assertEqual(
            list(map(bytes, found.parts)), [example(1).SerializeToString(), example(2).SerializeToString()]
        )
        request.ClearField("input")
        self.assertEqual(found.head, request.SerializeToString())

    def test_the_context_counts_for_each_example(self) -> None:
        request = classification("s")
        listed = request.input.example_list_with_context
        listed.context.features.feature["x"].bytes_list.value.append(b"x" * 60_000)
        for _ in range(1000):
            listed.examples.add()
        memory = wire_format.read_examples(request.SerializeToString(), "ClassificationRequest").memory
        self.assertGreater(memory, 1000 * 60_000)

    def test_a_context_in_many_parts_is_read_once(self) -> None:
        request = classification("s")
        request.input.example_list_with_context.examples.add()
        part = field_of_input(b"\x12\xf4\x03" + b"c" * 500)
        found = wire_format.read_examples(request.SerializeToString() + part * 10_000, "ClassificationRequest")
        (joined,) = found.to_array()
        self.assertEqual(joined, b"c" * 500 * 10_000)

    def test_too_many_examples_are_refused(self) -> None:
        request = classification("s", *[example()] * 60_000)
        with self.assertRaisesRegex(errors.ServingError, "more than 50000 fields"):
            wire_format.read_examples(request.SerializeToString(), "ClassificationRequest")


if __name__ == "__main__":
    unittest.main()
