"""Tests the fault suite in its short form, and that it reports faults: a suite without findings might miss them."""

import contextlib
import http.server
import json
import os
import unittest
from collections.abc import Iterator
from email.message import Message
from typing import Any

from tools import load
from tools.chaos import soak, trial
from unit_test.tools.programs import answering_with, run_tool

SUCCESS = {"status": "Success", "pet_type": "DOG", "model_conf": 99.9}
FAILURE = {"status": "Failed", "msg": "Wait.", "code": "overloaded", "request_id": "one"}


@unittest.skipIf(os.name == "nt", "Windows has no SIGSTOP")
class ChaosTest(unittest.TestCase):
    """Two of the cases; chaos_slow.py has the others."""

    def test_while_the_model_server_is_killed_requests_are_refused_and_then_answered_again(self) -> None:
        check_case(self, "model server killed")

    def test_what_is_in_flight_is_answered_before_the_service_ends(self) -> None:
        check_case(self, "service ends with requests in flight")


def check_case(test: unittest.TestCase, name: str) -> None:
    """Run a case of the fault suite in its short form, and check that no request was lost."""
    ended = run_tool("chaos", "--short", "--json", name)
    (report,) = json.loads(ended.stdout or "[{}]")
    if report.get("skipped"):
        test.skipTest(report["skipped"])
    logs = "\n".join(f"{name}: {log[-3000:]}" for name, log in report.get("logs", {}).items())
    test.assertEqual((ended.returncode, report.get("broken")), (0, []), f"{ended.stderr}\n{logs}")
    test.assertEqual(report["lost"], 0)
    test.assertEqual(report["sent"], report["right"] + sum(report["refused"].values()))


class EnduranceTest(unittest.TestCase):
    def test_a_soak_tells_growth_leaks_and_undeserved_answers(self) -> None:
        sample = soak.Sample
        for name, last, is_broken in (
            ("nothing", sample(104.9, 20, 9), False),
            ("memory", sample(105.1, 20, 9), True),
            ("a file", sample(100, 21, 9), True),
            ("a thread", sample(100, 20, 10), True),
        ):
            with self.subTest(name):
                diary = soak.Diary({"a service": [sample(100, 20, 9), sample(300, 99, 99), last]})
                self.assertEqual(bool(diary.broken()), is_broken)
        diary = soak.Diary()
        diary.note(soak.Kind("a kind", 1, (200,)), 200)
        self.assertEqual(diary.broken(), [])
        for answer in (503, "ConnectionResetError"):
            diary.note(soak.Kind("a kind", 1, (200,)), answer)
            self.assertIn(f"a kind: {answer}", str(diary.broken()))


class JudgeTest(unittest.TestCase):
    def verdict(self, status: int, answer: Any, **headers: str) -> str:
        sent = Message()
        for name, value in headers.items():
            sent[name.replace("_", "-")] = value
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return load.judge(status, sent, body, "DOG")[0]  # type: ignore[arg-type]  # HTTPMessage is a Message

    def test_the_right_animal_is_right_and_all_else_with_200_is_lost(self) -> None:
        self.assertEqual(self.verdict(200, SUCCESS), load.RIGHT)
        for wrong in ({"pet_type": "CAT"}, {"model_conf": 60.0}, {"status": "Failed"}, {"model_conf": None}):
            with self.subTest(str(wrong)):
                self.assertEqual(self.verdict(200, SUCCESS | wrong), load.LOST)
        for body in (b"", b"<html>", b"[]", b"3"):
            with self.subTest(str(body)):
                self.assertEqual(self.verdict(200, body), load.LOST)

    def test_a_refusal_is_proper_only_with_all_that_belongs_to_it(self) -> None:
        headers = {"X_Request_ID": "one", "Retry_After": "1"}
        self.assertEqual(self.verdict(503, FAILURE, **headers), load.REFUSED)
        self.assertEqual(self.verdict(500, FAILURE, **headers), load.LOST)
        self.assertEqual(self.verdict(503, FAILURE, X_Request_ID="one"), load.LOST)
        for name in ("msg", "code", "request_id", "status"):
            with self.subTest(f"without {name}"):
                self.assertEqual(
                    self.verdict(503, {k: v for k, v in FAILURE.items() if k != name}, **headers), load.LOST
                )
        self.assertEqual(self.verdict(502, b"<html>502 Bad Gateway</html>"), load.LOST)


class AnswerAll(http.server.BaseHTTPRequestHandler):
    """Answers DOG to every photo."""

    protocol_version = "HTTP/1.1"
    status, answer = 200, SUCCESS

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(self.answer).encode()
        self.send_response(self.status)
        for name, value in (("Content-Length", len(body)), ("X-Request-ID", "one"), ("Retry-After", "1")):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Refuse(AnswerAll):
    status, answer = 503, FAILURE


class TrialTest(unittest.TestCase):
    @contextlib.contextmanager
    def under_load(self, handler: type[AnswerAll], *refusals: str) -> Iterator[Any]:
        port = self.enterContext(answering_with(handler))
        case = trial.Case("a case", lambda _: None, frozenset(refusals), True)
        one = trial.Trial(case, None, trial.Pace(rate=200, clients=2))  # type: ignore[arg-type]  # no stage is needed
        with one.under_load(port):
            yield one

    def test_wrong_answers_break_the_promise(self) -> None:
        with self.under_load(AnswerAll) as one:
            one.go_on(20)
        self.assertGreater(one.report.lost, 0)
        self.assertIn("wrong answer", str(one.report.broken))

    def test_a_refusal_is_excused_only_while_the_fault_lasts_and_with_a_code_that_it_explains(self) -> None:
        with self.under_load(Refuse, "overloaded") as one:
            one.suffer(5)
        self.assertIn("should have been answered", str(one.report.broken))
        for code in ("overloaded", "model_error"):
            with self.subTest(code):
                with self.under_load(Refuse, code) as one:
                    # Before the first request, because its failure would be unexcused otherwise.
                    one.fault("a fault")
                    one.suffer(5)
                unexcused = "should have been answered" in str(one.report.broken)
                self.assertEqual(unexcused, code != "overloaded", one.report.broken)

    def test_a_connection_that_is_refused_is_a_lost_request(self) -> None:
        with contextlib.closing(load.Client("http://127.0.0.1:1")) as client:
            outcome = client.ask(load.questions()[0])
        self.assertEqual(outcome.verdict, load.LOST)
        self.assertIn("ConnectionRefusedError", outcome.detail)
