"""The client of the model server, against a server that answers what the test wants."""

import asyncio
import contextlib
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from preprocess_service import config, errors, model_runner
from preprocess_service import serving_messages as messages
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

# A model without a domain score, whatever the shipped one has.
SHIPPED = config.load_config({}).model_copy(update={"model_output_name": None, "domain_output_name": None})
TENSOR = np.linspace(-1, 1, 4 * 5 * 3, dtype=np.float32).reshape(4, 5, 3)


class FakeModelServer(PredictionServiceServicer, ModelServiceServicer):  # type: ignore[misc]  # generated, untyped
    """A model with the inputs and outputs, the probabilities and the refusal that the test sets."""

    def __init__(self) -> None:
        self.inputs, self.outputs = ["pixels"], ["scores"]
        self.values: list[float] = [0.125, 0.875]
        self.domain_score = 0.75
        self.in_content = False
        self.states = {2: messages.ModelVersionStatus.AVAILABLE, 1: messages.ModelVersionStatus.END}
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.before_answer: Callable[[Any], None] = lambda context: None
        self.change_answer: Callable[[Any], None] = lambda response: None
        self.signatures: bytes | None = None
        self.request: Any = None
        self.metadata_calls = 0

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.request = request
        self.before_answer(context)
        if self.refusal:
            context.abort(*self.refusal)
        response = messages.PredictResponse()
        response.model_spec.version.value = 2
        for name, values in zip(self.outputs, (self.values, [self.domain_score]), strict=False):
            output = response.outputs[name]
            output.dtype = messages.DT_FLOAT
            if self.in_content:
                output.tensor_content = np.array(values, "<f4").tobytes()
            else:
                output.float_val.extend(values)
        self.change_answer(response)
        return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata_calls += 1
        signatures = messages.SignatureDefMap()
        definition = signatures.signature_def["serving_default"]
        for name in self.inputs:
            definition.inputs[name].dtype = messages.DT_FLOAT
        for name in self.outputs:
            definition.outputs[name].dtype = messages.DT_FLOAT
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        if self.signatures is not None:
            response.metadata["signature_def"].value = self.signatures
        return response

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in self.states.items():
            response.model_version_status.add(version=version, state=state)
        return response


class ModelRunnerTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.model = FakeModelServer()
        server = grpc.server(ThreadPoolExecutor(2))
        add_PredictionServiceServicer_to_server(self.model, server)
        add_ModelServiceServicer_to_server(self.model, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        self.server = server
        self.runner = await self.open_runner(port)

    async def open_runner(self, port: int, **settings: Any) -> Any:
        place = SHIPPED.model_server.model_copy(update={"host": "127.0.0.1", "port": port})
        runner = model_runner.ModelRunner(SHIPPED.model_copy(update={"model_server": place, **settings}))
        await runner.open()
        self.addAsyncCleanup(runner.close)
        return runner

    async def test_probabilities_come_back_by_label_with_the_version_that_gave_them(self) -> None:
        for in_content in (False, True):
            with self.subTest("tensor_content" if in_content else "float_val"):
                self.model.in_content = in_content
                prediction = await self.runner.predict(TENSOR, 5)
                self.assertEqual(prediction.probabilities, {"CAT": 0.125, "DOG": 0.875})
                self.assertEqual((prediction.label, prediction.model_version), ("DOG", 2))

    async def test_the_request_carries_the_tensor_as_a_batch_of_one(self) -> None:
        await self.runner.predict(TENSOR, 5)
        request = self.model.request
        self.assertEqual((request.model_spec.name, request.model_spec.signature_name), ("CAT-DOG", "serving_default"))
        self.assertEqual(list(request.output_filter), ["scores"])
        sent = request.inputs["pixels"]
        self.assertEqual([dimension.size for dimension in sent.tensor_shape.dim], [1, 4, 5, 3])
        np.testing.assert_array_equal(np.frombuffer(sent.tensor_content, "<f4"), TENSOR.ravel())

    async def test_names_are_asked_once(self) -> None:
        for _ in range(3):
            await self.runner.predict(TENSOR, 5)
        self.assertEqual(self.model.metadata_calls, 1)

    async def test_names_in_the_settings_are_not_asked_for(self) -> None:
        runner = await self.open_runner(
            self.runner._config.model_server.port, model_input_name="a", model_output_name="scores"
        )
        await runner.predict(TENSOR, 5)
        self.assertEqual((list(self.model.request.inputs), self.model.metadata_calls), (["a"], 0))

    async def test_a_model_with_two_inputs_needs_a_name_in_the_settings(self) -> None:
        self.model.inputs = ["pixels", "size"]
        with self.assertLogs("model_runner", "ERROR") as log, self.assertRaises(errors.ModelError):
            await self.runner.predict(TENSOR, 5)
        self.assertIn("2 inputs (pixels, size)", log.output[0])

    async def test_a_domain_score_is_asked_for_and_comes_back(self) -> None:
        self.model.outputs = ["scores", "domain"]
        runner = await self.open_runner(self.runner._config.model_server.port, domain_output_name="domain")
        self.assertEqual((await runner.predict(TENSOR, 5)).domain_score, 0.75)
        self.assertEqual(list(self.model.request.output_filter), ["scores", "domain"])
        for name, score in (("too high", 1.5), ("no number", float("nan"))):
            with self.subTest(name):
                self.model.domain_score = score
                with self.assertLogs("model_runner", "ERROR"), self.assertRaises(errors.ModelError):
                    await runner.predict(TENSOR, 5)

    async def test_without_a_domain_output_there_is_no_score(self) -> None:
        self.assertIsNone((await self.runner.predict(TENSOR, 5)).domain_score)

    async def test_after_an_error_of_the_model_the_names_are_asked_anew(self) -> None:
        await self.runner.predict(TENSOR, 5)
        self.model.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "no such input")
        with self.assertLogs("model_runner", "WARNING"), self.assertRaises(errors.ModelError):
            await self.runner.predict(TENSOR, 5)
        self.model.refusal, self.model.outputs = None, ["renamed"]
        self.assertEqual((await self.runner.predict(TENSOR, 5)).label, "DOG")

    async def test_an_answer_that_is_no_distribution_is_an_error_of_the_model(self) -> None:
        for values in ([0.5], [0.2, 0.3, 0.5], [], [0.9, 0.9], [-0.1, 1.1], [float("nan"), 0.5], [2.0, -1.0]):
            with self.subTest(str(values)):
                self.model.values = values
                with self.assertLogs("model_runner", "ERROR"), self.assertRaises(errors.ModelError):
                    await self.runner.predict(TENSOR, 5)

    async def test_a_refusal_becomes_our_error_and_its_text_stays_in_the_log(self) -> None:
        for status, error in model_runner.ERRORS.items():
            with self.subTest(status.name):
                self.model.refusal = (status, "inner words")
                with self.assertLogs("model_runner", "WARNING") as log, self.assertRaises(error) as caught:
                    await self.runner.predict(TENSOR, 5)
                self.assertIn("inner words", log.output[0])
                self.assertNotIn("inner words", str(caught.exception))

    async def test_the_deadline_is_kept_and_told_to_the_model_server(self) -> None:
        remaining: list[float] = []
        self.model.before_answer = lambda context: remaining.append(context.time_remaining())
        await self.runner.predict(TENSOR, 5)
        self.assertTrue(0 < remaining[0] < 6, remaining)
        for name, timeout in (("passed", -1), ("now", 0)):
            with self.subTest(name), self.assertRaises(errors.DeadlineExceeded):
                await self.runner.predict(TENSOR, timeout)
        self.assertEqual(len(remaining), 1)

    async def test_a_model_server_that_is_away_for_a_moment_is_asked_once_more(self) -> None:
        def refuse_first(context: Any) -> None:
            self.model.before_answer = lambda context: None
            context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

        self.model.before_answer = refuse_first
        # As big as a real picture: gRPC by itself keeps only 256 KiB to send again.
        picture = np.zeros((224, 224, 3), np.float32)
        self.assertEqual((await self.runner.predict(picture, 5)).label, "DOG")

    async def test_it_is_asked_once_more_and_not_more_often(self) -> None:
        attempts: list[Any] = []
        self.model.before_answer = attempts.append
        self.model.refusal = (grpc.StatusCode.UNAVAILABLE, "restarting")
        with self.assertLogs("model_runner", "WARNING"), self.assertRaises(errors.ModelUnavailable):
            await self.runner.predict(TENSOR, 5)
        self.assertEqual(len(attempts), 2)

    async def test_a_server_that_says_it_is_not_well_gets_no_calls(self) -> None:
        states: Any = health_pb2.HealthCheckResponse
        server = grpc.server(ThreadPoolExecutor(4))
        add_PredictionServiceServicer_to_server(self.model, server)
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        runner = await self.open_runner(port)
        servicer.set("", states.NOT_SERVING)
        with self.assertLogs("model_runner", "WARNING"), self.assertRaises(errors.ModelUnavailable):
            await runner.predict(TENSOR, 5)
        self.assertIsNone(self.model.request)
        servicer.set("", states.SERVING)
        for _ in range(100):
            with contextlib.suppress(errors.ModelUnavailable):
                await runner.predict(TENSOR, 5)
                break
            await asyncio.sleep(0.05)
        self.assertEqual((await runner.predict(TENSOR, 5)).label, "DOG")

    async def test_an_answer_that_can_not_be_read_is_an_error_of_the_model(self) -> None:
        def cut_content(response: Any) -> None:
            response.outputs["scores"].tensor_content = b"123"

        def grow(response: Any) -> None:
            response.outputs["scores"].float_val.extend([0.0] * 5_000_000)

        for name, change in (("half a number", cut_content), ("over the limit", grow)):
            with self.subTest(name):
                self.model.change_answer = change
                with self.assertLogs("model_runner"), self.assertRaises(errors.ModelError):
                    await self.runner.predict(TENSOR, 5)

    async def test_bytes_that_are_no_answer_are_an_error_of_the_model(self) -> None:
        server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(lambda *_: b"\xff\xff")
        services = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})
        server.add_generic_rpc_handlers((services,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        runner = await self.open_runner(port, model_input_name="a", model_output_name="b")
        with self.assertLogs("model_runner", "ERROR"), self.assertRaises(errors.ModelError):
            await runner.predict(TENSOR, 5)

    async def test_signatures_that_can_not_be_read_are_an_error_of_the_model(self) -> None:
        self.model.signatures = b"\xff\xff"
        with self.assertLogs("model_runner", "ERROR"), self.assertRaises(errors.ModelError):
            await self.runner.predict(TENSOR, 5)

    async def test_the_request_id_travels_as_metadata(self) -> None:
        seen: list[Any] = []
        self.model.before_answer = lambda context: seen.extend(context.invocation_metadata())
        await self.runner.predict(TENSOR, 5, "one")
        self.assertIn(("x-request-id", "one"), [tuple(item) for item in seen])

    async def test_without_a_model_server_it_is_unavailable(self) -> None:
        self.server.stop(None).wait()
        with self.assertLogs("model_runner", "WARNING"), self.assertRaises(errors.ModelUnavailable):
            await self.runner.predict(TENSOR, 5)

    async def test_the_version_is_the_newest_available_one(self) -> None:
        available, loading = messages.ModelVersionStatus.AVAILABLE, messages.ModelVersionStatus.LOADING
        self.model.states = {4: loading, 3: available, 2: available}
        self.assertEqual(await self.runner.model_version(5), 3)
        self.model.states = {4: loading}
        with self.assertRaises(errors.ModelUnavailable):
            await self.runner.model_version(5)
