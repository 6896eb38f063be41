"""Tests the client of the model server, against a server whose answers the test sets."""

import asyncio
import contextlib
import threading
import unittest
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest import mock

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

from preprocess_service.app import config, errors, model_runner
from preprocess_service.app.imaging.resize import normalise
from preprocess_service.app.inference import context, model_versions
from preprocess_service.app.observability import metrics
from preprocess_service.app.served_models import ServedModels
from preprocess_service.app.serving_client import connection, signature
from serving_common import tensorflow_protos as messages
from unit_test.preprocess_service.recipes import recipe

RECIPE = recipe(do_rescale=True, do_normalize=True, image_mean=[0.5, 0.4, 0.3], image_std=[0.25, 0.5, 1])
# For a model without a recipe.
SHIPPED = config.load_config({}).model_copy(update={"recipe": RECIPE})
PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)

# One call at a time, with at most three photos.
ONE_BATCH = {"max_concurrent_batches": 1, "batch_size": 3}


class FakeModelServer(PredictionServiceServicer, ModelServiceServicer):  # type: ignore[misc]  # generated, untyped
    """A model whose inputs, outputs, probabilities and errors the test sets."""

    def __init__(self) -> None:
        self.inputs, self.outputs = ["pixels"], ["scores"]
        # Signature -> the type of its inputs, and the first dimension; -1 accepts batches.
        self.signatures = {"serving_default": (messages.types_pb2.DT_FLOAT, -1)}
        self.version = 2
        self.values: list[float] = [0.125, 0.875]
        self.domain_score = 0.75
        self.in_content = False
        self.states = {
            2: messages.get_model_status_pb2.ModelVersionStatus.AVAILABLE,
            1: messages.get_model_status_pb2.ModelVersionStatus.END,
        }
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.before_answer: Callable[[Any], None] = lambda context: None
        self.change_answer: Callable[[Any], None] = lambda response: None
        self.metadata: bytes | None = None
        self.requests: list[Any] = []
        self.metadata_calls = 0

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        self.before_answer(context)
        if request.model_spec.signature_name not in self.signatures:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such signature")
        if self.refusal:
            context.abort(*self.refusal)
        response = messages.predict_pb2.PredictResponse()
        response.model_spec.version.value = self.version
        for name, values in zip(self.outputs, (self.values, [self.domain_score]), strict=False):
            output = response.outputs[name]
            output.dtype = messages.types_pb2.DT_FLOAT
            values = values * next(iter(request.inputs.values())).tensor_shape.dim[0].size
            if self.in_content:
                output.tensor_content = np.array(values, "<f4").tobytes()
            else:
                output.float_val.extend(values)
        self.change_answer(response)
        return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata_calls += 1
        signatures = messages.get_model_metadata_pb2.SignatureDefMap()
        for name, (dtype, first) in self.signatures.items():
            definition = signatures.signature_def[name]
            for name in self.inputs:
                definition.inputs[name].dtype = dtype
                for size in (first, -1, -1, 3):
                    definition.inputs[name].tensor_shape.dim.add(size=size)
            for name in self.outputs:
                definition.outputs[name].dtype = messages.types_pb2.DT_FLOAT
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        if self.metadata is not None:
            response.metadata["signature_def"].value = self.metadata
        return response

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in self.states.items():
            response.model_version_status.add(version=version, state=state)
        return response


class Client:
    """Asks as the service does, about pixels."""

    def __init__(self, settings: Any, runner: Any) -> None:
        self.runner = runner
        self.models = ServedModels(settings, [runner], metrics.Metrics())
        self.pipeline = self.models.first

    async def predict(self, pixels: Any, timeout: float, request_id: str = "") -> Any:
        async def prepare(geometry: Any) -> Any:
            return pixels, (1, 1)

        return (await self.pipeline._ask(prepare, context.RequestContext(request_id, timeout)))[1]


class ModelRunnerTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.model = FakeModelServer()
        server = grpc.server(ThreadPoolExecutor(2))
        add_PredictionServiceServicer_to_server(self.model, server)
        add_ModelServiceServicer_to_server(self.model, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        self.server, self.port = server, port
        self.runner = await self.open_runner(port)

    async def open_runner(self, port: int, server: Mapping[str, int] = {}, **settings: Any) -> Any:
        place = SHIPPED.model_server.model_copy(update={"host": "127.0.0.1", "port": port, **server})
        settings = SHIPPED.model_copy(update={"model_server": place, **settings})
        client = Client(settings, model_runner.ModelRunner(settings))
        await client.models.open()
        self.addAsyncCleanup(client.models.close)
        return client

    async def test_probabilities_come_back_by_label_with_the_version_that_gave_them(self) -> None:
        for in_content in (False, True):
            with self.subTest("tensor_content" if in_content else "float_val"):
                self.model.in_content = in_content
                prediction = await self.runner.predict(PIXELS, 5)
                self.assertEqual(prediction.probabilities, {"CAT": 0.125, "DOG": 0.875})
                self.assertEqual((prediction.label, prediction.model_version), ("DOG", 2))

    async def test_the_request_carries_the_tensor_as_a_batch_of_one(self) -> None:
        await self.runner.predict(PIXELS, 5)
        request = self.model.requests[-1]
        self.assertEqual((request.model_spec.name, request.model_spec.signature_name), ("CAT-DOG", "serving_default"))
        self.assertEqual(list(request.output_filter), ["scores"])
        sent = request.inputs["pixels"]
        self.assertEqual([dimension.size for dimension in sent.tensor_shape.dim], [1, 4, 5, 3])
        tensor = normalise(PIXELS, RECIPE.preprocessor_config.scaling())
        np.testing.assert_array_equal(np.frombuffer(sent.tensor_content, "<f4"), tensor.ravel())

    async def test_pixels_are_sent_as_they_are_where_the_model_takes_them(self) -> None:
        both = {"serving_default": (messages.types_pb2.DT_FLOAT, -1), "pixels": (messages.types_pb2.DT_UINT8, -1)}
        for name, signatures, asked, called in (
            ("chosen", both, None, "pixels"),
            ("named", both, "pixels", "pixels"),
            ("another named", both, "serving_default", "serving_default"),
            ("by type", {"serving_default": (messages.types_pb2.DT_UINT8, -1)}, None, "serving_default"),
        ):
            with self.subTest(name):
                self.model.signatures = signatures
                runner = await self.open_runner(self.port, signature_name=asked)
                await runner.predict(PIXELS, 5)
                request = self.model.requests[-1]
                self.assertEqual(request.model_spec.signature_name, called)
                is_sent_as_pixels = request.inputs["pixels"].tensor_content == PIXELS.tobytes()
                self.assertEqual(is_sent_as_pixels, signatures[called][0] == messages.types_pb2.DT_UINT8)
                self.assertEqual(request.inputs["pixels"].dtype, signatures[called][0])

    async def test_another_version_s_signatures_are_taken_up_and_no_photo_is_lost(self) -> None:
        both = {"serving_default": (messages.types_pb2.DT_FLOAT, -1), "pixels": (messages.types_pb2.DT_UINT8, -1)}
        old = {"serving_default": (messages.types_pb2.DT_FLOAT, -1)}
        called = []
        for version, signatures in ((2, old), (3, both), (2, old), (2, old)):
            self.model.version, self.model.signatures = version, signatures
            for _ in range(2):
                self.assertEqual((await self.runner.predict(PIXELS, 5)).model_version, version)
            called.append(self.model.requests[-1].model_spec.signature_name)
        self.assertEqual(called, ["serving_default", "pixels", "serving_default", "serving_default"])
        # Once for each version, and perhaps once more where its number stood for something else.
        self.assertLessEqual(self.model.metadata_calls, 4)

    async def test_a_model_that_can_not_be_called_is_an_error_and_the_log_says_why(self) -> None:
        for name, dtype, settings, words in (
            ("no such signature", messages.types_pb2.DT_FLOAT, {"signature_name": "none"}, "no signature none"),
            ("no such input", messages.types_pb2.DT_FLOAT, {"model_input_name": "none"}, "has no input none"),
            ("of another type", 9, {}, "the type int64"),
        ):
            with self.subTest(name):
                self.model.signatures = {"serving_default": (dtype, -1)}
                runner = await self.open_runner(self.port, **settings)
                with self.assertLogs(signature.logger, "ERROR") as log, self.assertRaises(errors.ModelError):
                    await runner.predict(PIXELS, 5)
                self.assertIn(words, log.output[0])

    async def test_photos_that_come_while_calls_are_under_way_share_the_next(self) -> None:
        for name, first, server, sizes in (
            ("as many as are meant to", -1, {}, [1, 3, 2]),
            ("a model that takes one at a time", 1, {}, [1] * 6),
            ("as many as a message holds", -1, {"max_message_bytes": 3 * 4 * 5 * 4 * 2 + 1024}, [1, 2, 2, 1]),
        ):
            with self.subTest(name):
                self.model.requests.clear()
                self.model.signatures = {"serving_default": (messages.types_pb2.DT_FLOAT, first)}
                runner = await self.open_runner(self.port, server=ONE_BATCH | server)
                pictures = [np.full((4, 5, 3), number, np.uint8) for number in range(6)]
                predictions = await asyncio.gather(*(runner.predict(pixels, 5) for pixels in pictures))
                self.assertEqual([prediction.label for prediction in predictions], ["DOG"] * 6)
                sent = [request.inputs["pixels"] for request in self.model.requests]
                self.assertEqual([message.tensor_shape.dim[0].size for message in sent], sizes)
                tensors = [normalise(pixels, RECIPE.preprocessor_config.scaling()).tobytes() for pixels in pictures]
                self.assertEqual(b"".join(message.tensor_content for message in sent), b"".join(tensors))

    async def test_one_call_more_than_cores_is_under_way_before_photos_gather(self) -> None:
        with mock.patch.object(model_runner, "usable_cores", return_value=2):
            runner = await self.open_runner(self.port, server={"max_concurrent_batches": 0, "batch_size": 3})
        await runner.predict(PIXELS, 5)
        self.model.requests.clear()
        await asyncio.gather(*(runner.predict(PIXELS, 5) for _ in range(7)))
        sizes = [request.inputs["pixels"].tensor_shape.dim[0].size for request in self.model.requests]
        self.assertEqual(sorted(sizes), [1, 1, 1, 1, 3])

    async def test_the_call_ahead_begins_with_no_fewer_photos_than_the_other_has(self) -> None:
        with mock.patch.object(model_runner, "usable_cores", return_value=1):
            runner = await self.open_runner(self.port, server={"max_concurrent_batches": 0, "batch_size": 3})
        await runner.predict(PIXELS, 5)
        self.model.requests.clear()
        gate = threading.Event()
        # The call with three photos takes until the test releases it.
        self.model.change_answer = lambda response: len(response.outputs["scores"].float_val) < 6 or gate.wait(10)
        tasks = [asyncio.create_task(runner.predict(PIXELS, 20)) for _ in range(5)]
        await asyncio.gather(*tasks[:2])
        tasks += [asyncio.create_task(runner.predict(PIXELS, 20)) for _ in range(2)]
        await asyncio.sleep(0.2)
        sizes = [request.inputs["pixels"].tensor_shape.dim[0].size for request in self.model.requests]
        gate.set()
        await asyncio.gather(*tasks)
        # Calls that begin together may arrive in any order.
        self.assertEqual(sorted(sizes), [1, 1, 3])
        last = self.model.requests[-1].inputs["pixels"].tensor_shape.dim[0].size
        self.assertEqual((len(self.model.requests), last), (4, 2))

    async def test_each_photo_of_a_call_gets_its_own_answer(self) -> None:
        def differ(response: Any) -> None:
            if len(response.outputs["scores"].float_val) == 6:
                response.outputs["scores"].float_val[:] = [0.25, 0.75, 0.75, 0.25, 0.5, float("nan")]

        self.model.change_answer = differ
        runner = await self.open_runner(self.port, server=ONE_BATCH)
        with self.assertLogs(signature.logger, "ERROR"):
            answers = await asyncio.gather(*(runner.predict(PIXELS, 5) for _ in range(4)), return_exceptions=True)
        self.assertEqual([answer.label for answer in answers[:3]], ["DOG", "DOG", "CAT"])
        self.assertIsInstance(answers[3], errors.ModelError)

    async def test_a_call_for_several_photos_fails_for_each_of_them(self) -> None:
        runner = await self.open_runner(self.port, server=ONE_BATCH)
        await runner.predict(PIXELS, 5)
        self.model.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        with self.assertLogs(model_runner.logger, "WARNING"):
            answers = await asyncio.gather(*(runner.predict(PIXELS, 5) for _ in range(4)), return_exceptions=True)
        self.assertEqual([type(answer) for answer in answers], [errors.Overloaded] * 4)

    async def test_each_photo_keeps_its_own_deadline(self) -> None:
        for name, shared_call, sizes in (
            ("while it waits", False, [1, 1]),
            ("in a call that others share", True, [1, 2]),
        ):
            with self.subTest(name):
                self.model.before_answer = lambda context: None
                runner = await self.open_runner(self.port, server=ONE_BATCH)
                await runner.predict(PIXELS, 5)
                self.model.requests.clear()
                gates = [threading.Event(), threading.Event()]
                holding = iter(gates)
                self.model.before_answer = lambda context, holding=holding: next(holding).wait(10)
                first = asyncio.create_task(runner.predict(PIXELS, 10))
                await asyncio.sleep(0)
                short, long = (asyncio.create_task(runner.predict(PIXELS, seconds)) for seconds in (0.5, 10))
                await asyncio.sleep(0)
                if shared_call:
                    gates[0].set()
                with self.assertRaises(errors.DeadlineExceeded):
                    await short
                for gate in gates:
                    gate.set()
                self.assertEqual([(await task).label for task in (first, long)], ["DOG"] * 2)
                sent = [request.inputs["pixels"].tensor_shape.dim[0].size for request in self.model.requests]
                self.assertEqual(sent, sizes)

    async def test_names_are_asked_once(self) -> None:
        for _ in range(3):
            await self.runner.predict(PIXELS, 5)
        self.assertEqual(self.model.metadata_calls, 1)

    async def test_names_in_the_settings_choose_among_several(self) -> None:
        self.model.inputs, self.model.outputs = ["a", "b"], ["others", "scores"]
        self.model.domain_score = 0.5
        runner = await self.open_runner(self.port, model_input_name="b", model_output_name="others")
        await runner.predict(PIXELS, 5)
        self.assertEqual(list(self.model.requests[-1].inputs), ["b"])
        self.assertEqual(list(self.model.requests[-1].output_filter), ["others"])

    async def test_a_model_with_two_inputs_needs_a_name_in_the_settings(self) -> None:
        self.model.inputs = ["pixels", "size"]
        with self.assertLogs(signature.logger, "ERROR") as log, self.assertRaises(errors.ModelError):
            await self.runner.predict(PIXELS, 5)
        self.assertIn("2 inputs (pixels, size)", log.output[0])

    async def test_a_domain_score_is_asked_for_and_comes_back(self) -> None:
        self.model.outputs = ["scores", "domain_score"]
        runner = await self.open_runner(self.port)
        self.assertEqual((await runner.predict(PIXELS, 5)).domain_score, 0.75)
        self.assertEqual(list(self.model.requests[-1].output_filter), ["scores", "domain_score"])
        for name, score in (("too high", 1.5), ("no number", float("nan"))):
            with self.subTest(name):
                self.model.domain_score = score
                with self.assertLogs(signature.logger, "ERROR"), self.assertRaises(errors.ModelError):
                    await runner.predict(PIXELS, 5)

    async def test_without_a_domain_output_there_is_no_score(self) -> None:
        self.assertIsNone((await self.runner.predict(PIXELS, 5)).domain_score)

    async def test_after_an_error_of_the_model_the_names_are_asked_anew(self) -> None:
        self.enterContext(mock.patch.object(model_versions, "RETRY_SECONDS", 0))
        await self.runner.predict(PIXELS, 5)
        self.model.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "no such input")
        with self.assertLogs(model_runner.logger, "WARNING"), self.assertRaises(errors.ModelError):
            await self.runner.predict(PIXELS, 5)
        self.model.refusal, self.model.outputs = None, ["renamed"]
        self.assertEqual((await self.runner.predict(PIXELS, 5)).label, "DOG")

    async def test_an_answer_that_is_no_distribution_is_an_error_of_the_model(self) -> None:
        for values in ([0.5], [0.2, 0.3, 0.5], [], [0.9, 0.9], [-0.1, 1.1], [float("nan"), 0.5], [2.0, -1.0]):
            with self.subTest(str(values)):
                self.model.values = values
                with self.assertLogs(signature.logger, "ERROR"), self.assertRaises(errors.ModelError):
                    await self.runner.predict(PIXELS, 5)

    async def test_a_refusal_becomes_our_error_and_its_text_stays_in_the_log(self) -> None:
        for status, error in model_runner.ERRORS.items():
            with self.subTest(status.name):
                self.model.refusal = (status, "inner words")
                with self.assertLogs(model_runner.logger, "WARNING") as log, self.assertRaises(error) as caught:
                    await self.runner.predict(PIXELS, 5)
                self.assertIn("inner words", log.output[0])
                self.assertNotIn("inner words", str(caught.exception))

    async def test_the_deadline_is_kept_and_told_to_the_model_server(self) -> None:
        remaining: list[float] = []
        self.model.before_answer = lambda context: remaining.append(context.time_remaining())
        await self.runner.predict(PIXELS, 5)
        self.assertTrue(0 < remaining[0] < 6, remaining)
        for name, timeout in (("passed", -1), ("now", 0)):
            with self.subTest(name), self.assertRaises(errors.DeadlineExceeded):
                await self.runner.predict(PIXELS, timeout)
        self.assertEqual(len(remaining), 1)

    async def test_a_model_server_that_is_away_for_a_moment_is_asked_once_more(self) -> None:
        def refuse_first(code: grpc.StatusCode, context: Any) -> None:
            self.model.before_answer = lambda context: None
            context.abort(code, "restarting")

        # As large as a real picture: by default gRPC buffers only 256 KiB for a retry.
        picture = np.zeros((240, 240, 3), np.uint8)
        for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            with self.subTest(code.name):
                self.model.before_answer = partial(refuse_first, code)
                self.assertEqual((await self.runner.predict(picture, 5)).label, "DOG")

    async def test_it_is_asked_once_more_and_not_more_often(self) -> None:
        for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            with self.subTest(code.name):
                attempts: list[Any] = []
                self.model.before_answer = attempts.append
                self.model.refusal = (code, "restarting")
                with self.assertLogs(model_runner.logger, "WARNING"), self.assertRaises(errors.ModelUnavailable):
                    await self.runner.predict(PIXELS, 5)
                self.assertEqual(len(attempts), 2)

    async def test_there_is_no_second_attempt_after_the_deadline(self) -> None:
        attempts: list[Any] = []

        def cancel(context: Any) -> None:
            attempts.append(context)
            context.abort(grpc.StatusCode.CANCELLED, "stopping")

        self.model.before_answer = cancel
        with (
            mock.patch.object(connection, "RETRY_SECONDS", 10),
            self.assertLogs(model_runner.logger, "WARNING"),
            self.assertRaises(errors.ModelUnavailable),
        ):
            await self.runner.predict(PIXELS, 5)
        self.assertEqual(len(attempts), 1)

    async def test_a_server_that_joins_later_gets_calls_although_no_connection_ended(self) -> None:
        other, place = FakeModelServer(), grpc.server(ThreadPoolExecutor(2))
        add_PredictionServiceServicer_to_server(other, place)
        other_port = place.add_insecure_port("127.0.0.1:0")
        place.start()
        self.addCleanup(lambda: place.stop(None).wait())
        targets = iter([f"ipv4:127.0.0.1:{self.port}", f"ipv4:127.0.0.1:{self.port},127.0.0.1:{other_port}"])
        with (
            mock.patch.object(connection, "channel_target", lambda *_: next(targets)),
            mock.patch.object(connection, "RENEW_SECONDS", 0.1),
        ):
            runner = await self.open_runner(self.port)
            end = asyncio.get_running_loop().time() + 60
            while not other.requests and asyncio.get_running_loop().time() < end:
                self.assertEqual((await runner.predict(PIXELS, 5)).label, "DOG")
                await asyncio.sleep(0.01)
            await runner.pipeline.close()
        self.assertTrue(other.requests)

    async def test_a_server_that_says_it_is_not_well_gets_no_calls(self) -> None:
        states: Any = health_pb2.HealthCheckResponse
        server = grpc.server(ThreadPoolExecutor(4))
        add_PredictionServiceServicer_to_server(self.model, server)
        add_ModelServiceServicer_to_server(self.model, server)
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        runner = await self.open_runner(port)
        servicer.set("", states.NOT_SERVING)
        with self.assertLogs(model_runner.logger, "WARNING"), self.assertRaises(errors.ModelUnavailable):
            await runner.predict(PIXELS, 5)
        self.assertEqual(self.model.requests, [])
        servicer.set("", states.SERVING)
        for _ in range(100):
            with contextlib.suppress(errors.ModelUnavailable):
                await runner.predict(PIXELS, 5)
                break
            await asyncio.sleep(0.05)
        self.assertEqual((await runner.predict(PIXELS, 5)).label, "DOG")

    async def test_an_answer_that_can_not_be_read_is_an_error_of_the_model(self) -> None:
        def cut_content(response: Any) -> None:
            response.outputs["scores"].tensor_content = b"123"

        def grow(response: Any) -> None:
            response.outputs["scores"].float_val.extend([0.0] * 5_000_000)

        for name, change in (("half a number", cut_content), ("over the limit", grow)):
            with self.subTest(name):
                self.model.change_answer = change
                with self.assertLogs(), self.assertRaises(errors.ModelError):
                    await self.runner.predict(PIXELS, 5)

    async def test_bytes_that_are_no_answer_are_an_error_of_the_model(self) -> None:
        server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(lambda *_: b"\xff\xff")
        methods = {"Predict": handler, "GetModelMetadata": grpc.unary_unary_rpc_method_handler(self.metadata)}
        services = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods)
        server.add_generic_rpc_handlers((services,))
        add_ModelServiceServicer_to_server(self.model, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        runner = await self.open_runner(port)
        with self.assertLogs(signature.logger, "ERROR"), self.assertRaises(errors.ModelError):
            await runner.predict(PIXELS, 5)

    def metadata(self, request: bytes, context: Any) -> bytes:
        content: bytes = self.model.GetModelMetadata(request, context).SerializeToString()
        return content

    async def test_signatures_that_can_not_be_read_are_an_error_of_the_model(self) -> None:
        self.model.metadata = b"\xff\xff"
        with self.assertLogs(signature.logger, "ERROR"), self.assertRaises(errors.ModelError):
            await self.runner.predict(PIXELS, 5)

    async def test_the_request_id_travels_as_metadata(self) -> None:
        seen: list[Any] = []
        self.model.before_answer = lambda context: seen.extend(context.invocation_metadata())
        await self.runner.predict(PIXELS, 5, "one")
        self.assertIn(("x-request-id", "one"), [tuple(item) for item in seen])

    async def test_a_call_for_several_photos_names_all_their_requests(self) -> None:
        seen: list[Any] = []
        self.model.before_answer = lambda context: seen.append(dict(context.invocation_metadata()))
        runner = await self.open_runner(self.port, server=ONE_BATCH)
        await asyncio.gather(*(runner.predict(PIXELS, 5, name) for name in ("one", "two", "", "three")))
        self.assertEqual([metadata["x-request-id"] for metadata in seen], ["one", "two,three"])

    async def test_without_a_model_server_it_is_unavailable(self) -> None:
        self.server.stop(None).wait()
        with self.assertLogs(model_runner.logger, "WARNING"), self.assertRaises(errors.ModelUnavailable):
            await self.runner.predict(PIXELS, 5)

    async def test_the_version_is_the_newest_available_one(self) -> None:
        states = messages.get_model_status_pb2.ModelVersionStatus
        self.model.states = {4: states.LOADING, 3: states.AVAILABLE, 2: states.AVAILABLE}
        self.assertEqual(await self.runner.runner.available(5), [3, 2])
        self.model.states = {4: states.LOADING}
        with self.assertRaisesRegex(errors.ModelUnavailable, "Version 4 of the model CAT-DOG is being loaded"):
            await self.runner.runner.available(5)
