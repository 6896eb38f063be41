"""Tests the gRPC API as a client sees it: values, the order of checks, codes and texts."""

import unittest
from typing import Any, ClassVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_service.api import health_service
from model_service.models import servables, tensors
from serving_common import tensorflow_protos
from unit_test import processes
from unit_test.model_service.fixtures import expected, predict_request, shared_server

Code = grpc.StatusCode
TIMEOUT_S = 10


class GrpcTestCase(unittest.TestCase):
    """A test case with a server for `model`, and clients made from the official stubs."""

    model: ClassVar[str] = "image"
    flags: ClassVar[tuple[str, ...]] = ()
    server: ClassVar[processes.ModelServer]
    predictions: ClassVar[Any]
    models: ClassVar[Any]
    health: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = shared_server(cls.model, *cls.flags)
        channel = cls.enterClassContext(grpc.insecure_channel(f"127.0.0.1:{cls.server.grpc_port}"))
        cls.predictions = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        cls.models = tensorflow_protos.model_service_pb2_grpc.ModelServiceStub(channel)
        cls.health = health_pb2_grpc.HealthStub(channel)

    def predict(self, request: Any) -> dict[str, Any]:
        """Return the outputs of a Predict call as arrays."""
        response = self.predictions.Predict(request, timeout=TIMEOUT_S)
        return {alias: tensors.to_array(tensor, 2**40) for alias, tensor in response.outputs.items()}

    def assert_refused(self, call: Any, request: Any, code: grpc.StatusCode, text: str) -> None:
        """Assert that the call fails with this code and this text."""
        with self.assertRaises(grpc.RpcError) as caught:
            call(request, timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertEqual(caught.exception.details(), text)

    def assert_computes_what_tensorflow_computes(self, signature: str) -> None:
        """Assert that a signature's outputs equal TensorFlow's to within 1e-5."""
        inputs, outputs = expected(self.model, signature)
        results = self.predict(predict_request(inputs, signature=signature))
        self.assertEqual(results.keys(), outputs.keys())
        for alias, array in outputs.items():
            with self.subTest(alias):
                self.assertEqual(results[alias].dtype, array.dtype)
                if array.dtype.kind in "fc":
                    np.testing.assert_allclose(results[alias], array, rtol=1e-5, atol=1e-6)
                else:
                    np.testing.assert_array_equal(results[alias], array)


class PredictTest(GrpcTestCase):
    def setUp(self) -> None:
        self.inputs, self.outputs = expected("image")

    def test_it_computes_what_tensorflow_computes(self) -> None:
        self.assert_computes_what_tensorflow_computes("serving_default")

    def test_the_answer_says_which_version_and_signature_gave_it(self) -> None:
        response = self.predictions.Predict(predict_request(self.inputs), timeout=TIMEOUT_S)
        spec = response.model_spec
        self.assertEqual((spec.name, spec.version.value, spec.signature_name), ("CAT-DOG", 1, "serving_default"))

    def test_the_answer_is_in_typed_fields(self) -> None:
        """The tutorial's client reads `float_val`."""
        tensor = self.predictions.Predict(predict_request(self.inputs), timeout=TIMEOUT_S).outputs["probabilities"]
        np.testing.assert_allclose(list(tensor.float_val), self.outputs["probabilities"].ravel(), rtol=1e-5)
        self.assertEqual(tensor.tensor_content, b"")

    def test_a_version_may_be_asked_for(self) -> None:
        request = predict_request(self.inputs)
        request.model_spec.version.value = 1
        self.assertEqual(self.predictions.Predict(request, timeout=TIMEOUT_S).model_spec.version.value, 1)

    def test_float_val_is_read_and_its_last_value_repeated(self) -> None:
        request = predict_request({"image": np.full((1, 24, 24, 3), 0.5, np.float32)})
        whole = self.predict(request)
        request.inputs["image"].ClearField("tensor_content")
        request.inputs["image"].float_val.append(0.5)
        np.testing.assert_array_equal(self.predict(request)["probabilities"], whole["probabilities"])

    def test_fields_that_steer_streams_and_clients_are_ignored(self) -> None:
        request = predict_request(self.inputs)
        request.client_id = b"me"
        self.assertEqual(self.predict(request).keys(), {"probabilities"})

    def test_wrong_requests_are_refused_with_tensorflow_servings_codes_and_texts(self) -> None:
        image = self.inputs["image"]

        def changed(**fields: Any) -> Any:
            request = predict_request({"image": image})
            for field, value in fields.items():
                if field == "version":
                    request.model_spec.version.value = value
                else:
                    setattr(request.model_spec, field, value)
            return request

        no_spec = predict_request({"image": image})
        no_spec.ClearField("model_spec")
        too_short = predict_request({"image": image})
        too_short.inputs["image"].tensor_content = b"1234"
        cases = {
            "no_model_spec": (no_spec, Code.INVALID_ARGUMENT, "Missing ModelSpec"),
            "no_name": (changed(name=""), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
            "unknown_label": (
                changed(version_label="canary"),
                Code.INVALID_ARGUMENT,
                "Unrecognized servable version label: canary",
            ),
            "unknown_model": (changed(name="M"), Code.NOT_FOUND, "Servable not found for request: Latest(M)"),
            "unknown_version": (
                changed(version=7),
                Code.NOT_FOUND,
                "Servable not found for request: Specific(CAT-DOG, 7)",
            ),
            "unknown_signature": (
                changed(signature_name="classify"),
                Code.FAILED_PRECONDITION,
                'Serving signature key "classify" not found.',
            ),
            "signature_that_only_initialises": (
                changed(signature_name="__saved_model_init_op"),
                Code.FAILED_PRECONDITION,
                'Serving signature key "__saved_model_init_op" not found.',
            ),
            "no_inputs": (
                predict_request({}),
                Code.INVALID_ARGUMENT,
                "input size does not match signature: 0!=1 len({}) != len({image}). "
                "Sent extra: {}. Missing but required: {image}.",
            ),
            "too_many_inputs": (
                predict_request({"b": image, "a": image}),
                Code.INVALID_ARGUMENT,
                "input size does not match signature: 2!=1 len({a,b}) != len({image}). "
                "Sent extra: {a,b}. Missing but required: {image}.",
            ),
            "other_input": (
                predict_request({"x": image}),
                Code.INVALID_ARGUMENT,
                "Signature input alias: image(feed name: serving_default_image:0) not found in request and no default "
                "value provided. Inputs expected to be in the request {x}, or default input alias set: ",
            ),
            "content_of_another_length": (too_short, Code.INVALID_ARGUMENT, "tensor parsing error: image"),
            "unknown_output": (
                predict_request({"image": image}, output_filter=["scores"]),
                Code.INVALID_ARGUMENT,
                "output tensor alias not found in signature: scores Outputs expected to be in the set {probabilities}.",
            ),
            "output_asked_for_twice": (
                predict_request({"image": image}, output_filter=["probabilities"] * 2),
                Code.INVALID_ARGUMENT,
                "duplicate output tensor alias: probabilities",
            ),
            "other_type": (
                predict_request({"image": image.astype(np.uint8)}),
                Code.INVALID_ARGUMENT,
                "Expects input image to be float but uint8 is provided",
            ),
            "other_shape": (
                predict_request({"image": image[:, :5]}),
                Code.INVALID_ARGUMENT,
                "Expects input image to have shape [?,24,24,3] but [3,5,24,3] is provided",
            ),
        }
        for case, (request, code, text) in cases.items():
            with self.subTest(case):
                self.assert_refused(self.predictions.Predict, request, code, text)

    def test_checks_come_in_tensorflow_servings_order(self) -> None:
        """A request with every fault gets the error for the first. When that is corrected, it gets the next error."""
        request = predict_request({}, signature="none", output_filter=["none"])
        request.inputs["x"].dtype = tensors.KINDS[1].number
        request.inputs["x"].tensor_content = b"1"
        request.ClearField("model_spec")
        image = request.inputs["x"]

        def rename_input() -> None:
            request.inputs["image"].CopyFrom(image)
            del request.inputs["x"]

        def mend_content() -> None:
            request.inputs["image"].CopyFrom(predict_request({"image": np.zeros(1, np.uint8)}).inputs["image"])

        def mend_type() -> None:
            request.inputs["image"].CopyFrom(predict_request({"image": np.zeros(1, np.float32)}).inputs["image"])

        steps: list[tuple[Any, str | None]] = [
            (lambda: None, "Missing ModelSpec"),
            (lambda: request.model_spec.SetInParent(), "has no name"),
            (lambda: setattr(request.model_spec, "name", "M"), "Latest(M)"),
            (lambda: setattr(request.model_spec, "name", "CAT-DOG"), None),
            (lambda: setattr(request.model_spec, "signature_name", "none"), '"none" not found'),
            (lambda: setattr(request.model_spec, "signature_name", ""), "alias: image"),
            (rename_input, "tensor parsing error: image"),
            (mend_content, "alias not found in signature: none"),
            (lambda: request.ClearField("output_filter"), "to be float but uint8"),
            (mend_type, "to have shape"),
        ]
        for mend, text in steps:
            mend()
            if text is not None:
                with self.subTest(text), self.assertRaises(grpc.RpcError) as caught:
                    self.predictions.Predict(request, timeout=TIMEOUT_S)
                with self.subTest(text):
                    self.assertIn(text, caught.exception.details())

    def test_a_long_text_is_cut(self) -> None:
        request = predict_request(self.inputs, signature="s" * 5000)
        with self.assertRaises(grpc.RpcError) as caught:
            self.predictions.Predict(request, timeout=TIMEOUT_S)
        self.assertEqual(len(caught.exception.details()), 1024 + len("...TRUNCATED"))
        self.assertTrue(caught.exception.details().endswith("...TRUNCATED"))

    def test_methods_that_are_not_offered_say_so(self) -> None:
        apis = tensorflow_protos.prediction_service_pb2_grpc
        for method in ("Classify", "Regress", "MultiInference"):
            with self.subTest(method), self.assertRaises(grpc.RpcError) as caught:
                getattr(self.predictions, method)(_request_of(apis, method), timeout=TIMEOUT_S)
            with self.subTest(method):
                self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)


def _request_of(apis: Any, method: str) -> Any:
    modules = {
        "Classify": ("classification_pb2", "ClassificationRequest"),
        "Regress": ("regression_pb2", "RegressionRequest"),
        "MultiInference": ("inference_pb2", "MultiInferenceRequest"),
    }
    module, message = modules[method]
    return getattr(getattr(apis, f"tensorflow__serving_dot_apis_dot_{module.replace('_', '__')}"), message)()


class GetModelMetadataTest(GrpcTestCase):
    model = "two_signatures"

    def request(self, *fields: str, name: str = "CAT-DOG") -> Any:
        request = tensorflow_protos.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        request.model_spec.name = name
        return request

    def test_it_gives_every_signature_as_it_was_exported(self) -> None:
        response = self.predictions.GetModelMetadata(self.request("signature_def"), timeout=TIMEOUT_S)
        self.assertEqual((response.model_spec.name, response.model_spec.version.value), ("CAT-DOG", 1))
        self.assertEqual(response.model_spec.signature_name, "")
        packed = response.metadata["signature_def"]
        self.assertEqual(packed.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap")
        signatures = tensorflow_protos.get_model_metadata_pb2.SignatureDefMap()
        self.assertTrue(packed.Unpack(signatures))
        self.assertEqual(signatures.signature_def.keys(), {"serving_default", "features", "__saved_model_init_op"})
        values = signatures.signature_def["features"].inputs["values"]
        self.assertEqual([dim.size for dim in values.tensor_shape.dim], [-1, 3])

    def test_wrong_requests_are_refused(self) -> None:
        no_spec = self.request("signature_def")
        no_spec.ClearField("model_spec")
        cases = {
            "no_model_spec": (no_spec, Code.INVALID_ARGUMENT, "Missing ModelSpec"),
            "no_field": (
                self.request(),
                Code.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            ),
            "other_field": (
                self.request("signature_def", "labels"),
                Code.INVALID_ARGUMENT,
                "Metadata field labels is not supported",
            ),
            "unknown_model": (
                self.request("signature_def", name="M"),
                Code.NOT_FOUND,
                "Servable not found for request: Latest(M)",
            ),
        }
        for case, (request, code, text) in cases.items():
            with self.subTest(case):
                self.assert_refused(self.predictions.GetModelMetadata, request, code, text)

    def test_both_signatures_compute_what_tensorflow_computes(self) -> None:
        for signature in ("serving_default", "features"):
            with self.subTest(signature):
                self.assert_computes_what_tensorflow_computes(signature)


class GetModelStatusTest(GrpcTestCase):
    model = "two_inputs"

    def request(self, name: str = "CAT-DOG", **version: Any) -> Any:
        request = tensorflow_protos.get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        if "number" in version:
            request.model_spec.version.value = version["number"]
        if "label" in version:
            request.model_spec.version_label = version["label"]
        return request

    def test_the_version_that_is_served_is_available(self) -> None:
        """With the version number, without one, and with a label, which TensorFlow Serving ignores here."""
        for version in ({}, {"number": 1}, {"label": "anything"}):
            with self.subTest(**version):
                (status,) = self.models.GetModelStatus(self.request(**version), timeout=TIMEOUT_S).model_version_status
                available = tensorflow_protos.get_model_status_pb2.ModelVersionStatus.AVAILABLE
                self.assertEqual((status.version, status.state), (1, available))
                self.assertEqual((status.status.error_code, status.status.error_message), (0, ""))

    def test_what_is_not_there_is_not_found(self) -> None:
        no_spec = tensorflow_protos.get_model_status_pb2.GetModelStatusRequest()
        cases = {
            "no_model_spec": (no_spec, Code.INVALID_ARGUMENT, "Missing ModelSpec"),
            "unknown_version": (
                self.request(number=7),
                Code.NOT_FOUND,
                "Could not find version 7 of model CAT-DOG",
            ),
            "unknown_model": (
                self.request("M"),
                Code.NOT_FOUND,
                "Could not find any versions of model M; served here: CAT-DOG",
            ),
            "empty_name": (
                self.request(""),
                Code.NOT_FOUND,
                "Could not find any versions of model ; served here: CAT-DOG",
            ),
        }
        for case, (request, code, text) in cases.items():
            with self.subTest(case):
                self.assert_refused(self.models.GetModelStatus, request, code, text)

    def test_two_inputs_of_different_types_compute_what_tensorflow_computes(self) -> None:
        self.assert_computes_what_tensorflow_computes("serving_default")


class HealthTest(GrpcTestCase):
    model = "many_outputs"

    def test_every_service_is_serving(self) -> None:
        for service in health_service.HEALTH_SERVICES:
            with self.subTest(service):
                answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_an_unknown_service_is_not_found(self) -> None:
        with self.assertRaises(grpc.RpcError) as caught:
            self.health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), Code.NOT_FOUND)

    def test_several_outputs_compute_what_tensorflow_computes(self) -> None:
        self.assert_computes_what_tensorflow_computes("serving_default")

    def test_an_output_filter_leaves_the_others_out(self) -> None:
        request = predict_request(expected("many_outputs")[0], output_filter=["best"])
        self.assertEqual(self.predict(request).keys(), {"best"})


class FallbackTest(GrpcTestCase):
    """A model with signatures that only TensorFlow can compute, and one that OpenVINO can compute."""

    model = "fallback"

    def test_every_signature_computes_what_tensorflow_computes(self) -> None:
        """Strings and tables, all types at their extremes, int64 beyond 32 bits, and plain floats."""
        for signature in ("serving_default", "every_type", "wide", "parsed", "floats"):
            with self.subTest(signature):
                self.assert_computes_what_tensorflow_computes(signature)

    def test_each_fall_back_is_one_line_in_the_log(self) -> None:
        lines = [line for line in self.server.output().splitlines() if "TensorFlow serves it" in line]
        self.assertEqual(len(lines), 4, lines)
        self.assertNotIn("floats", "".join(lines))

    def test_what_the_graph_refuses_has_tensorflows_code_and_text(self) -> None:
        request = predict_request({"text": np.array([b"1", b"two"], object)}, signature="parsed")
        with self.assertRaises(grpc.RpcError) as caught:
            self.predictions.Predict(request, timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
        self.assertIn("could not correctly convert string: two", caught.exception.details())

    def test_a_signature_that_refuses_made_up_strings_is_served_all_the_same(self) -> None:
        """The warm-up sends an empty string, which is not a number. That is not a fault of the model."""
        self.assertIn("parsed was not warmed up", self.server.output())


class LimitsTest(GrpcTestCase):
    flags = ("--max_message_bytes=10000", "--enable_grpc_healthcheck_service=false", "--allow_reload_requests=false")

    def test_no_client_changes_the_models_where_that_is_off(self) -> None:
        request = tensorflow_protos.model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.SetInParent()
        self.assert_refused(
            self.models.HandleReloadConfigRequest,
            request,
            Code.PERMISSION_DENIED,
            "Off by --allow_reload_requests=false",
        )
        status = tensorflow_protos.get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "CAT-DOG"
        (version,) = self.models.GetModelStatus(status, timeout=TIMEOUT_S).model_version_status
        self.assertEqual(version.state, servables.AVAILABLE)

    def test_a_message_over_the_limit_is_refused(self) -> None:
        with self.assertRaises(grpc.RpcError) as caught:
            self.predictions.Predict(predict_request(expected("image")[0]), timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), Code.RESOURCE_EXHAUSTED)

    def test_a_small_message_that_asks_for_much_memory_is_refused(self) -> None:
        request = predict_request({"image": np.zeros((0, 24, 24, 3), np.float32)})
        request.inputs["image"].float_val.append(0)
        request.inputs["image"].tensor_shape.dim[0].size = 2**40
        text = "The inputs take more than 10000 bytes of memory (--max_message_bytes)"
        self.assert_refused(self.predictions.Predict, request, Code.INVALID_ARGUMENT, text)

    def test_the_health_service_can_be_left_out(self) -> None:
        with self.assertRaises(grpc.RpcError) as caught:
            self.health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)


if __name__ == "__main__":
    unittest.main()
