"""Tests that warm-up files are read as TensorFlow writes them, and that a broken one stops the start."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np

from model_service import errors
from model_service.models import saved_model, servables
from model_service.observability import metrics
from model_service.prediction import warmup
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import Array, copy_of_model, frame, saved_models, warmup_record

MAX_BYTES = 1 << 20


class CountingEngine:
    """Computes nothing. It records its calls, or rejects all of them."""

    def __init__(self, refuses: bool = False) -> None:
        self.infer_requests = 3
        self.calls: list[dict[str, Array]] = []
        self._refuses = refuses

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
        if self._refuses:
            raise errors.invalid_argument("no")
        self.calls.append(inputs)
        return {alias: np.zeros((1, 2), np.float32) for alias in outputs}


class RegressingEngine(CountingEngine):
    """Gives a score, or a value, for one example."""

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
        return {alias: np.ones((1, 1), np.float32) for alias in outputs}


class ReadRecordsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = saved_models() / "warmup"
        self.content = self.path.read_bytes()

    def test_what_tensorflow_wrote_is_read(self) -> None:
        records = list(warmup.read_records(self.content, self.path))
        self.assertEqual(len(records), 2)
        log = tensorflow_protos.load_prediction_log().PredictionLog.FromString(records[1])
        self.assertEqual(log.predict_log.request.inputs["image"].tensor_shape.dim[1].size, 24)

    def test_the_checksum_is_castagnolis(self) -> None:
        """The check value of CRC-32C, 0xE3069283, masked as TFRecord masks it."""
        rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
        self.assertEqual(warmup.masked_crc32c(b"123456789"), (rotated + 0xA282EAD8) & 0xFFFFFFFF)

    def test_a_broken_file_is_refused(self) -> None:
        flipped = bytearray(self.content)
        flipped[100] ^= 1
        cases = {
            "not_a_record_file": b"hello, these are no records",
            "a_flipped_bit": bytes(flipped),
            "cut_off_in_a_length": self.content + b"\x01",
            "cut_off_in_a_record": self.content[:-10],
            "a_length_past_the_end": frame(b"")[:0] + (2**62).to_bytes(8, "little") + b"\0" * 4,
        }
        for case, content in cases.items():
            with (
                self.subTest(case),
                self.assertRaisesRegex(errors.StartError, "verify your warmup data is in TFRecord"),
            ):
                list(warmup.read_records(content, self.path))


class CalledSignaturesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = copy_of_model("two_signatures", self.enterContext(tempfile.TemporaryDirectory()))

    def called(self, content: bytes | None) -> set[str]:
        """Return the signatures that a warm-up file with this content calls; None: there is no file."""
        if content is not None:
            (self.folder / "assets.extra").mkdir(exist_ok=True)
            (self.folder / warmup.WARMUP_FILE).write_bytes(content)
        return set(warmup.called_signatures(saved_model.read_saved_model(self.folder, 1)))

    def test_those_are_called_that_a_request_names_and_no_name_means_serving_default(self) -> None:
        for names, called in (
            (("features",), {"features"}),
            (("features", "features", ""), {"features", "serving_default"}),
            (("missing",), {"missing"}),
        ):
            with self.subTest(names):
                self.assertEqual(self.called(b"".join(warmup_record(name, {}) for name in names)), called)

    def test_all_count_as_called_where_no_file_says_otherwise(self) -> None:
        broken = warmup_record("features", {}) + b"no record"
        for case, content in (("no_file", None), ("empty", b""), ("broken_after_a_record", broken)):
            with self.subTest(case):
                self.assertLess({"serving_default", "features"}, self.called(content))


class WarmUpTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = copy_of_model("image", self.enterContext(tempfile.TemporaryDirectory()))
        self.engine = CountingEngine()

    def servable(self, engine: Any = None) -> Any:
        model = saved_model.read_saved_model(self.folder, 1)
        chosen: Any = engine or self.engine
        return servables.Servable("CAT-DOG", model, {"serving_default": chosen})

    def write(self, content: bytes) -> None:
        (self.folder / "assets.extra").mkdir()
        (self.folder / warmup.WARMUP_FILE).write_bytes(content)

    def test_each_request_is_replayed_as_often_as_asked_whatever_model_it_names(self) -> None:
        self.write((saved_models() / "warmup").read_bytes())
        self.engine.infer_requests = 1
        warmup.warm_up(self.servable(), iterations=2, max_bytes=MAX_BYTES)
        self.assertEqual([call["image"].max() for call in self.engine.calls], [0, 0, 1, 1])

    def test_the_first_request_reaches_every_slot(self) -> None:
        self.write((saved_models() / "warmup").read_bytes())
        warmup.warm_up(self.servable(), iterations=1, max_bytes=MAX_BYTES)
        self.assertEqual([call["image"].max() for call in self.engine.calls], [0, 0, 0, 1])

    def test_without_a_file_every_slot_computes_one_row_of_zeros(self) -> None:
        with self.assertLogs(level="INFO") as logs:
            warmup.warm_up(self.servable(), iterations=1, max_bytes=MAX_BYTES)
        self.assertIn("No warmup data file found at", logs.output[0])
        self.assertEqual([call["image"].shape for call in self.engine.calls], [(1, 24, 24, 3)] * 3)

    def test_a_request_that_fails_stops_the_start(self) -> None:
        self.write((saved_models() / "warmup").read_bytes())
        with self.assertRaisesRegex(errors.StartError, r"A warmup request in .* failed \(no\)"):
            warmup.warm_up(self.servable(CountingEngine(refuses=True)), iterations=1, max_bytes=MAX_BYTES)

    def test_a_model_that_cannot_compute_zeros_stops_the_start(self) -> None:
        with self.assertRaisesRegex(errors.StartError, "fails on zeros"):
            warmup.warm_up(self.servable(CountingEngine(refuses=True)), iterations=1, max_bytes=MAX_BYTES)

    def test_a_model_of_whole_numbers_may_refuse_zeros(self) -> None:
        self.folder = copy_of_model("two_inputs", self.enterContext(tempfile.TemporaryDirectory()))
        with self.assertLogs(level="INFO") as logs:
            warmup.warm_up(self.servable(CountingEngine(refuses=True)), iterations=1, max_bytes=MAX_BYTES)
        self.assertIn("serving_default was not warmed up: it refuses zeros (no)", logs.output[-1])

    def test_files_that_hold_something_else_stop_the_start(self) -> None:
        log = tensorflow_protos.load_prediction_log().PredictionLog()
        log.session_run_log.SetInParent()
        cases = {
            "record_that_is_no_message": (frame(b"\xff\xff"), "Failed to parse warmup record"),
            "other_kind_of_request": (
                frame(log.SerializeToString()),
                "Unsupported log_type for warmup: session_run_log",
            ),
        }
        for case, (content, text) in cases.items():
            with self.subTest(case), tempfile.TemporaryDirectory() as folder:
                self.folder = copy_of_model("image", folder)
                self.write(content)
                with self.assertRaisesRegex(errors.StartError, text):
                    warmup.warm_up(self.servable(), iterations=1, max_bytes=MAX_BYTES)

    def test_no_input_takes_more_than_a_request_may_bring(self) -> None:
        self.write((saved_models() / "warmup").read_bytes())
        with self.assertRaisesRegex(errors.StartError, r"failed \(The inputs take more than 100 bytes of memory"):
            warmup.warm_up(self.servable(), iterations=1, max_bytes=100)
        (self.folder / warmup.WARMUP_FILE).unlink()
        with self.assertLogs(level="INFO") as logs:
            warmup.warm_up(self.servable(), iterations=1, max_bytes=100)
        self.assertIn("its inputs take more than 100 bytes", logs.output[-1])
        self.assertEqual(self.engine.calls, [])

    def test_records_of_the_other_methods_are_replayed(self) -> None:
        self.folder = copy_of_model("examples", self.enterContext(tempfile.TemporaryDirectory()))
        made = tensorflow_protos.example_pb2.Example()
        made.features.feature["x"].float_list.value.extend([1, 2])
        logs = [tensorflow_protos.load_prediction_log().PredictionLog() for _ in range(3)]
        requests = logs[0].classify_log.request, logs[1].regress_log.request, logs[2].multi_inference_log.request
        requests[0].model_spec.signature_name = "scores"
        requests[1].model_spec.signature_name = "regress"
        requests[2].tasks.add(method_name="tensorflow/serving/regress").model_spec.signature_name = "wide"
        for request in requests:
            request.input.example_list.examples.append(made)
        self.write(b"".join(frame(log.SerializeToString()) for log in logs))
        model = saved_model.read_saved_model(self.folder, 1)
        self.assertEqual(set(warmup.called_signatures(model)), {"scores", "regress", "wide"})
        monitoring = metrics.Monitoring()
        timed = {name: monitoring.timed(RegressingEngine(), "M") for name in model.signatures}
        warmup.warm_up(servables.Servable("M", model, timed), iterations=5, max_bytes=MAX_BYTES)
        page = str(list(monitoring._runtime.metric.collect()))
        for api in ("Classify", "Regress", "MultiInference"):
            self.assertRegex(page, f"runtime_latency_count', labels={{'model_name': 'M', 'API': '{api}'.*?value=5.0")
        self.assertNotIn("Predict", page)
        with self.assertRaisesRegex(errors.StartError, "The examples take more than 10 bytes"):
            warmup.warm_up(servables.Servable("M", model, timed), iterations=1, max_bytes=10)

    def test_more_than_a_thousand_records_are_refused(self) -> None:
        record = next(iter(warmup.read_records((saved_models() / "warmup").read_bytes(), Path())))
        self.write(frame(record) * 1001)
        with self.assertRaisesRegex(errors.StartError, r"exceeds the maximum \(1000\)"):
            warmup.warm_up(self.servable(), iterations=0, max_bytes=MAX_BYTES)


if __name__ == "__main__":
    unittest.main()
