"""Tests that each prediction writes one JSON line, with the id that the preprocess service logs too."""

import asyncio
import json
import time
import unittest
from typing import Any

import grpc
import requests

from model_service import errors
from model_service.prediction import request_log
from serving_common import json_logging, tensorflow_protos
from unit_test import processes
from unit_test.model_service.fixtures import expected, predict_request, saved_models

TIMEOUT_S = 30
INPUTS = expected("two_signatures")[0]


def lines(server: processes.ModelServer) -> list[dict[str, Any]]:
    """Return the log lines of all predictions; raises ValueError for a line that is not JSON."""
    return [line for line in map(json.loads, server.output().splitlines()) if line["logger"] == "call"]


class RequestLoggerTest(unittest.TestCase):
    def line(self, error: BaseException | None, metadata: dict[str, str] | None = None) -> Any:
        with self.assertLogs("call", "INFO") as log:
            try:
                with request_log.RequestLogger(is_logged=True).record("GRPC", "M", metadata or {}) as record:
                    if error:
                        raise error
                    record.compute(lambda: time.sleep(0.01))
            except BaseException as exc:
                self.assertIs(exc, error, "it is told, not caught")
        (line,) = log.records
        return json.loads(json_logging.json_formatter().format(line))

    def test_a_line_tells_how_the_call_ended(self) -> None:
        for status, error in (
            ("OK", None),
            ("NOT_FOUND", errors.not_found("no")),
            ("CANCELLED", asyncio.CancelledError()),
            ("INTERNAL", ZeroDivisionError()),
        ):
            with self.subTest(status):
                line = self.line(error)
                self.assertEqual((line["status"], line["message"]), (status, f"Predict {status}"))

    def test_a_line_tells_microseconds_and_none_for_what_never_came(self) -> None:
        line = self.line(None)
        self.assertGreaterEqual(line["computing_us"], 10_000)
        self.assertLessEqual(line["waiting_us"] + line["computing_us"], line["total_us"] + 1)
        self.assertIsNone(self.line(errors.unavailable("full"))["computing_us"])

    def test_a_client_s_id_is_cut_and_can_t_break_the_line(self) -> None:
        self.assertEqual(self.line(None, {"x-request-id": "a\n" + 2000 * "x"})["request_id"], "a\n" + 1054 * "x")

    def test_the_ids_of_32_requests_in_one_call_are_told_whole(self) -> None:
        ids = ",".join(f"{number:032x}" for number in range(32))
        self.assertEqual(self.line(None, {"x-request-id": ids})["request_id"], ids)

    def test_nothing_is_told_unless_asked(self) -> None:
        with self.assertNoLogs("call"), request_log.RequestLogger().record("GRPC", "M", {}):
            pass


class ServerTest(unittest.TestCase):
    def predict(self, server: processes.ModelServer, **spec: str) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = tensorflow_protos.prediction_service_pb2_grpc.PredictionServiceStub(channel)
            stub.Predict(predict_request(INPUTS, **spec), timeout=TIMEOUT_S, metadata=(("x-request-id", "one"),))

    def test_both_apis_write_it_with_the_client_s_id(self) -> None:
        with processes.model_server(saved_models() / "two_signatures") as server:
            self.predict(server)
            with self.assertRaises(grpc.RpcError):
                self.predict(server, name="other")
            body = {"inputs": {name: array.tolist() for name, array in INPUTS.items()}}
            url = f"{server.url}/v1/models/CAT-DOG:predict"
            requests.post(url, json=body, headers={"X-Request-ID": "two"}, timeout=TIMEOUT_S).raise_for_status()
            requests.get(f"{server.url}/v1/models/CAT-DOG", timeout=TIMEOUT_S).raise_for_status()
            size = len(next(iter(INPUTS.values())))
            keys = ("request_id", "model", "version", "entrypoint", "status", "batch_size")
            self.assertEqual(
                [tuple(line[key] for key in keys) for line in lines(server)],
                [
                    ("one", "CAT-DOG", 1, "GRPC", "OK", size),
                    ("one", "other", None, "GRPC", "NOT_FOUND", size),
                    ("two", "CAT-DOG", 1, "REST", "OK", size),
                ],
            )
            for line in lines(server):
                self.assertTrue(0 < line["total_us"] < TIMEOUT_S * 1e6)

    def test_the_flag_turns_it_off(self) -> None:
        with processes.model_server(saved_models() / "two_signatures", "CAT-DOG", "--log_calls=false") as server:
            self.predict(server)
            self.assertEqual(lines(server), [])


if __name__ == "__main__":
    unittest.main()
