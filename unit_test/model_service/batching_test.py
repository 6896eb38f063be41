"""Calls that wait at the same time are computed together, and each gets the answer that it would have got alone."""

import asyncio
import re
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import requests
from grpc import StatusCode

from model_service import errors
from model_service.models import saved_model, servables, tensors
from model_service.prediction import batching, executor, request_log
from model_service.prediction import predict as prediction
from serving_common import tensorflow_protos
from unit_test import processes
from unit_test.model_service.fixtures import Array, predict_request, served

FLOAT = tensorflow_protos.types_pb2.DT_FLOAT
NO_LIMIT = 2**40
SHIPPED = processes.MODEL_SERVER.with_name("batching.config")
MODELS = processes.MODEL_SERVER.parents[2] / "prev_trained_models" / "CAT-DOG"
TIMEOUT_S = 60


class ReadBatchingTest(unittest.TestCase):
    def read(self, text: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "batching.config")
            file.write_text(text)
            return batching.read_batching(True, str(file))

    def test_without_the_flag_calls_are_computed_one_by_one(self) -> None:
        self.assertEqual(batching.read_batching(False, ""), batching.Batching(executor.Batches(1), None, None))

    def test_a_file_without_the_flag_stops_the_start(self) -> None:
        with self.assertRaisesRegex(errors.StartError, "without setting server_options.enable_batching to true"):
            batching.read_batching(False, str(SHIPPED))

    def test_what_is_left_out_has_tensorflow_servings_default(self) -> None:
        expected = batching.Batching(executor.Batches(1000, 1000, 0.0), None, None)
        self.assertEqual(batching.read_batching(True, ""), expected)
        self.assertEqual(self.read('thread_pool_name { value: "mine" }'), expected)

    def test_everything_that_it_says_counts(self) -> None:
        text = "max_batch_size { value: 8 } batch_timeout_micros { value: 1500 } max_enqueued_batches { value: 3 }"
        expected = batching.Batching(executor.Batches(8, 8, 0.0015), 24, 5)
        self.assertEqual(self.read(text + " num_batch_threads { value: 5 }"), expected)

    def test_large_requests_may_be_taken_that_are_larger_than_a_batch(self) -> None:
        text = "max_batch_size { value: 32 } max_execution_batch_size { value: 4 }"
        self.assertEqual(self.read(text).batches, executor.Batches(32, 32))
        self.assertEqual(
            self.read(text + " enable_large_batch_splitting { value: true }").batches, executor.Batches(4, 32)
        )

    def test_sizes_to_fill_batches_up_to_are_warned_about(self) -> None:
        with self.assertLogs("batching", "WARNING"):
            self.read("max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 8")

    def test_what_it_can_not_be_stops_the_start_in_one_line(self) -> None:
        for text in (
            "max_batch_size: 8",
            "max_batch_size { value: 0 }",
            "num_batch_threads { value: -1 }",
            "batch_timeout_micros { value: -1 }",
            "pad_variable_length_inputs: true",
            "batch_size { value: 8 }",
            "{",
        ):
            with (
                self.subTest(text),
                self.assertRaisesRegex(errors.StartError, "^--batching_parameters_file=[^\\n]*\\Z"),
            ):
                self.read(text)
        with self.assertRaisesRegex(errors.StartError, "No such file"):
            batching.read_batching(True, "/no/such/file")

    def test_the_shipped_file_can_be_read_and_lets_nobody_wait(self) -> None:
        batches = batching.read_batching(True, str(SHIPPED)).batches
        self.assertGreater(batches.max_rows, 1)
        self.assertEqual(batches.wait_s, 0)


@dataclass(eq=False)
class Number:
    """A task that doubles a number, unless it is negative; takes down with which others."""

    value: int
    seen: list[list[int]]
    key: object = "double"
    rows: int = 1

    def compute(self, tasks: list["Number"]) -> list[Any]:
        self.seen.append([task.value for task in tasks])
        return [ValueError(task.value) if task.value < 0 else 2 * task.value for task in tasks]


class WorkersTest(unittest.IsolatedAsyncioTestCase):
    """One thread, which is held until `release` is set."""

    async def asyncSetUp(self) -> None:
        self.release = threading.Event()
        self.addCleanup(self.release.set)
        self.seen: list[list[int]] = []
        self.make(executor.Batches(4))

    def make(self, batches: Any) -> None:
        self.workers = executor.Workers(1, 20, batches)
        self.addCleanup(self.workers.close)

    async def hold(self) -> None:
        self.held = asyncio.create_task(self.workers.submit(None, executor.Alone(self.release.wait)))
        await asyncio.sleep(0.01)

    def submit(self, value: int, remaining: float | None = None, **more: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.workers.submit(remaining, Number(value, self.seen, **more)))

    async def answers(self, *tasks: "asyncio.Task[Any]") -> list[Any]:
        await asyncio.sleep(0.01)
        self.release.set()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    async def test_what_waits_is_computed_together_up_to_the_largest_batch(self) -> None:
        await self.hold()
        tasks = [self.submit(value) for value in range(6)]
        self.assertEqual(await self.answers(*tasks), [0, 2, 4, 6, 8, 10])
        self.assertEqual(self.seen, [[0, 1, 2, 3], [4, 5]])

    async def test_a_task_alone_does_not_wait(self) -> None:
        self.assertEqual(await asyncio.wait_for(self.submit(1), 10), 2)
        self.assertEqual(self.seen, [[1]])

    async def test_rows_count_and_not_tasks(self) -> None:
        await self.hold()
        tasks = [self.submit(value, rows=rows) for value, rows in ((1, 2), (2, 3), (3, 2), (4, 9))]
        self.assertEqual(await self.answers(*tasks), [2, 4, 6, 8])
        self.assertEqual(self.seen, [[1, 3], [2], [4]])

    async def test_only_those_of_the_same_key_go_together(self) -> None:
        await self.hold()
        tasks = [self.submit(value, key=key) for value, key in ((1, "a"), (2, "b"), (3, None), (4, "a"), (5, None))]
        self.assertEqual(await self.answers(*tasks), [2, 4, 6, 8, 10])
        self.assertEqual(self.seen, [[1, 4], [2], [3], [5]])

    async def test_one_by_one_where_no_batches_are_asked_for(self) -> None:
        self.make(executor.ONE_BY_ONE)
        await self.hold()
        await self.answers(self.submit(1), self.submit(2))
        self.assertEqual(self.seen, [[1], [2]])

    async def test_the_failure_of_one_is_its_own(self) -> None:
        await self.hold()
        first, second, third = await self.answers(self.submit(1), self.submit(-1), self.submit(3))
        self.assertEqual((first, third), (2, 6))
        self.assertIsInstance(second, ValueError)
        self.assertEqual(self.seen, [[1, -1, 3]])

    async def test_the_late_and_the_gone_are_left_out_of_a_batch(self) -> None:
        await self.hold()
        late, gone, kept = self.submit(1, remaining=0.02), self.submit(2), self.submit(3, remaining=60)
        await asyncio.sleep(0.05)
        gone.cancel()
        answers = await self.answers(late, gone, kept)
        self.assertEqual(answers[0].code, StatusCode.DEADLINE_EXCEEDED)
        self.assertIsInstance(answers[1], asyncio.CancelledError)
        self.assertEqual((answers[2], self.seen), (6, [[3]]))
        self.assertEqual((self.workers.expired, self.workers.abandoned, self.workers.waiting), (1, 1, 0))

    async def test_a_task_of_too_many_rows_is_refused(self) -> None:
        self.make(executor.Batches(4, max_task_rows=8))
        self.assertEqual(await self.submit(1, rows=8), 2)
        with self.assertRaises(errors.ServingError) as caught:
            await self.submit(1, rows=9)
        self.assertEqual(caught.exception.code, StatusCode.INVALID_ARGUMENT)
        self.assertEqual(caught.exception.message, "Task size 9 is larger than maximum input batch size 8")

    async def test_the_first_waits_for_others_where_it_is_told_to(self) -> None:
        self.make(executor.Batches(2, wait_s=60))
        first = self.submit(1)
        await asyncio.sleep(0.05)
        self.assertEqual((self.workers.waiting, self.workers.computing), (1, 0))
        self.assertEqual(await self.answers(first, self.submit(2)), [2, 4])
        self.assertEqual(self.seen, [[1, 2]])

    async def test_it_waits_no_longer_than_it_is_told_to(self) -> None:
        self.make(executor.Batches(2, wait_s=0.05))
        began = time.monotonic()
        self.assertEqual(await asyncio.wait_for(self.submit(1), 10), 2)
        self.assertGreaterEqual(time.monotonic() - began, 0.04)

    async def test_what_is_never_batched_does_not_wait_for_others(self) -> None:
        self.make(executor.Batches(2, wait_s=60))
        self.assertTrue(await asyncio.wait_for(self.workers.submit(None, executor.Alone(lambda: True)), 10))


@dataclass
class Doubler:
    """An engine that doubles x, and refuses a nine; `shapes` are those that it was given."""

    rows: int | None = None
    slots: int = 1
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
        self.shapes.append(inputs["x"].shape)
        if (inputs["x"] == 9).any():
            raise errors.invalid_argument("no nines")
        return {alias: 2 * (inputs["x"][: self.rows] if self.rows else inputs["x"]) for alias in outputs}


class PredictAllTest(unittest.TestCase):
    def serve(self, shape: tuple[int, ...] = (-1, -1), engine: Doubler | None = None) -> None:
        self.engine = engine or Doubler()
        spec = {alias: saved_model.TensorSpec(alias, f"{alias}:0", FLOAT, shape) for alias in ("x", "y", "z")}
        signature = saved_model.Signature("serving_default", {"x": spec["x"]}, {"y": spec["y"], "z": spec["z"]}, {})
        self.servables = served(self.engine, signature)

    def ask(self, *inputs: Any, filters: tuple[str, ...] = ("y",)) -> list[Any]:
        """Return for each request its answer: y as a list, or the text of the refusal."""
        requests = [predict_request({"x": np.array(x, np.float32)}, "M", output_filter=filters) for x in inputs]
        return [self.read(answer) for answer in prediction.predict_all(self.servables, requests, NO_LIMIT)]

    def read(self, answer: Any) -> Any:
        if isinstance(answer, errors.ServingError):
            return answer.message
        return tensors.to_array(answer.outputs["y"], NO_LIMIT).tolist()

    def test_requests_become_one_batch_and_each_gets_its_own_rows(self) -> None:
        self.serve()
        self.assertEqual(self.ask([[1]], [[2], [3]], [[4]]), [[[2]], [[4], [6]], [[8]]])
        self.assertEqual(self.engine.shapes, [(4, 1)])

    def test_other_shapes_are_another_batch(self) -> None:
        self.serve()
        self.assertEqual(self.ask([[1]], [[2, 3]], [[4]]), [[[2]], [[4, 6]], [[8]]])
        self.assertEqual(sorted(self.engine.shapes), [(1, 2), (2, 1)])

    def test_a_request_that_is_refused_is_so_alone(self) -> None:
        self.serve()
        first, second, third = self.ask([[1]], [1], [[3]])
        self.assertEqual((first, third), ([[2]], [[6]]))
        self.assertEqual(second, "Expects input x to have shape [?,?] but [1] is provided")
        self.assertEqual(self.engine.shapes, [(2, 1)])

    def test_what_a_batch_trips_over_spoils_only_its_own_request(self) -> None:
        self.serve()
        self.assertEqual(self.ask([[1]], [[9]], [[3]]), [[[2]], "no nines", [[6]]])
        self.assertEqual(self.engine.shapes, [(3, 1), (1, 1), (1, 1), (1, 1)])

    def test_a_graph_that_does_not_answer_row_by_row_is_run_for_each(self) -> None:
        self.serve(engine=Doubler(rows=1))
        self.assertEqual(self.ask([[1]], [[2]]), [[[2]], [[4]]])

    def test_a_signature_without_a_batch_dimension_is_run_for_each(self) -> None:
        for shape, value in (((1, 1), [[1]]), ((), 1)):
            with self.subTest(shape):
                self.serve(shape)
                self.assertEqual(self.ask(value, value), [np.multiply(value, 2).tolist()] * 2)
                self.assertEqual(self.engine.shapes, [shape, shape])

    def test_a_model_that_is_not_there_is_everybodys_own_refusal(self) -> None:
        self.serve()
        self.servables.retire("M", 1)
        self.assertEqual(self.ask([[1]], [[2]]), ["Servable not found for request: Latest(M)"] * 2)

    def test_no_request_keeps_the_version_in_use(self) -> None:
        self.serve()
        self.ask([[1]], [1], [[9]])
        self.servables.retire("M", 1)
        (status,) = self.servables.statuses(tensorflow_protos.model_pb2.ModelSpec(name="M"))
        self.assertEqual(status.state, servables.END)

    def test_tasks_go_together_that_ask_the_same_of_the_same_model(self) -> None:
        self.serve()
        asked = [("M", ""), ("M", ""), ("M", "other"), ("N", "")]
        requests = [predict_request({"x": np.zeros((3, 1), np.float32)}, *model) for model in asked]
        made = []
        for request in requests:
            call = request_log.Call("GRPC", "M", {})
            call.batch_size = prediction.batch_size(request)
            made.append(prediction.PredictTask(self.servables, request, NO_LIMIT, call))
        keys = [task.key for task in made]
        self.assertEqual(keys[0], keys[1])
        self.assertEqual(len(set(keys)), 3)
        self.assertEqual(made[0].rows, 3)


class ServedTest(unittest.TestCase):
    """The shipped model with the shipped file, asked by many at once."""

    def test_each_gets_the_answer_that_it_would_have_got_alone(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "monitoring.config")
            config.write_text("prometheus_config { enable: true }")
            flags = ("--enable_batching", f"--batching_parameters_file={SHIPPED}", "--max_queued_requests=64")
            flags += (f"--monitoring_config_file={config}",)
            server = self.enterContext(processes.model_server(MODELS, "CAT-DOG", *flags))
        channel = self.enterContext(grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}"))
        stub = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
        shape = self.shape(stub)
        random = np.random.default_rng(0)
        pictures = [random.uniform(-1, 1, (rows, *shape)).astype(np.float32) for rows in (1, 1, 2, 1, 6, 1) * 4]

        def ask(picture: Array) -> list[float]:
            response = stub.Predict(predict_request({"image": picture}), timeout=TIMEOUT_S)
            values: list[float] = tensors.to_array(response.outputs["probabilities"], NO_LIMIT).reshape(-1).tolist()
            return values

        alone = [ask(picture) for picture in pictures]
        before = self.batches(server.url)
        with ThreadPoolExecutor(len(pictures)) as pool:
            together = list(pool.map(ask, pictures))
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        computed = self.batches(server.url) - before
        self.assertLess(computed, len(pictures))

    def shape(self, stub: Any) -> tuple[int, ...]:
        request = tensorflow_protos.get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "CAT-DOG"
        signatures = tensorflow_protos.get_model_metadata_pb2.SignatureDefMap()
        stub.GetModelMetadata(request, timeout=TIMEOUT_S).metadata["signature_def"].Unpack(signatures)
        dimensions = signatures.signature_def["serving_default"].inputs["image"].tensor_shape.dim
        return tuple(dimension.size for dimension in dimensions[1:])

    def batches(self, url: str) -> float:
        page = requests.get(f"{url}/monitoring/prometheus/metrics", timeout=TIMEOUT_S).text
        found = re.search(r'^model_server_batch_size_count{model_name="CAT-DOG"} (\d+)$', page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])


if __name__ == "__main__":
    unittest.main()
