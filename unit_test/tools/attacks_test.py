"""Tests one attack of the fault suite in its short form, and that the suite reports the damage of an attack."""

import itertools
import json
import os
import subprocess
import sys
import time
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

from tools.chaos import hostile
from tools.chaos.attacks import attack, refused, watch, wire
from tools.chaos.attacks import pair as attack_pair
from unit_test.processes import free_port
from unit_test.tools.programs import run_tool


@unittest.skipIf(os.name == "nt", "Windows has no SIGKILL")
class AttacksTest(unittest.TestCase):
    """One of the attacks; attacks_slow.py has the others."""

    def test_under_attack_others_are_answered_and_memory_stays_within_that_of_the_containers(self) -> None:
        check_attacks(self, "144 bytes of TIFF", least=1)


def check_attacks(test: unittest.TestCase, *words: str, least: int) -> None:
    """Run the attacks whose names have these words, at least `least`, in their short form, and check each report."""
    ended = run_tool("chaos", "--attacks", "--short", "--json", *words)
    reports = json.loads(ended.stdout or "[]")
    test.assertGreaterEqual(len(reports), least, ended.stderr)
    for report in reports:
        with test.subTest(report["name"]):
            logs = "\n".join(f"{name}: {log[-2000:]}" for name, log in report["logs"].items())
            test.assertEqual(report["broken"], [], f"{report['answers']}\n{logs}")
            test.assertGreater(report["sent"], 0)


class HostileTest(unittest.TestCase):
    def test_every_format_has_its_hostile_pictures_and_each_says_why_it_hurts(self) -> None:
        pictures = hostile.load_all()
        for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"):
            self.assertTrue(any(picture.startswith(f"{name}: ") for picture in pictures), name)
        for case in attack.CASES.values():
            with self.subTest(case.name):
                self.assertTrue(case.why)

    def test_a_hostile_picture_is_of_the_format_that_its_name_says(self) -> None:
        begin = {"JPEG": b"\xff\xd8", "PNG": b"\x89PNG", "GIF": b"GIF89a", "BMP": b"BM", "TIFF": b"II", "WEBP": b"RIFF"}
        for name, picture in hostile.load_all().items():
            start = begin.get(name.partition(":")[0])
            if start and picture.is_short:
                with self.subTest(name):
                    self.assertTrue(picture.make().startswith(start))


def one_attack(seconds: float = 0.0, slack: float = 1.0) -> Any:
    """Return an attack that does nothing."""
    case = attack.Case("a case", lambda _: None, True, 1.0)
    ports = {"http": 1, "grpc": 1, "rest": 1}
    return attack.Attack(case, ports, attack.Pace(seconds, slack), Path(os.devnull))


class JudgeTest(unittest.TestCase):
    def judged(self, **seen: Any) -> list[str]:
        one = one_attack()
        measured = watch.Seen(**{"peaks": dict(attack.MEMORY), "photos": [1.0], "livez": [0.25]} | seen)
        attack_pair.judge(attack.Case("a case", lambda _: None, True, 1.0), one, measured)
        broken: list[str] = one.report.broken
        return broken

    def test_what_is_within_the_bounds_is_held(self) -> None:
        self.assertEqual(self.judged(), [])

    def test_each_bound_is_a_promise(self) -> None:
        for broken, seen in (
            ("MB, more than 512", {"peaks": attack.MEMORY | {"model server": 513.0}}),
            ("MB, more than 700", {"peaks": attack.MEMORY | {"preprocess service": 701.0}}),
            ("a small photo took", {"photos": [0.1, 1.1]}),
            ("/livez took", {"livez": [0.3]}),
            ("503", {"failures": ["a small photo (png): 503 after 0.1 s"]}),
        ):
            with self.subTest(broken):
                self.assertIn(broken, str(self.judged(**seen)))

    def test_an_answer_that_is_a_defect_or_gives_no_reason_or_is_late_breaks_a_promise(self) -> None:
        refusal = b'{"status": "Failed", "msg": "No."}'
        for status, body, seconds, broken in (
            (400, refusal, 1.0, ""),
            (200, b"{}", 1.0, ""),
            (500, refusal, 1.0, "answered with 500"),
            (400, b"<html>", 1.0, "without a reason"),
            (504, refusal, 12.5, "answered only after"),
        ):
            with self.subTest(f"{status} {seconds}"):
                one = one_attack()
                one.note(wire.Answer(status, b"", body), seconds)
                self.assertEqual(bool(one.report.broken), bool(broken))
                self.assertIn(broken, str(one.report.broken))

    def test_no_answer_breaks_a_promise_unless_the_attack_excuses_it(self) -> None:
        for is_fine in (True, False):
            one = one_attack()
            one.note_cut("closed", is_fine)
            self.assertEqual(one.report.broken == [], is_fine)

    def rested(self, megabytes: Sequence[float], is_busy: bool = False, slack: float = 1.0) -> Any:
        """Return the report on a service whose memory has these values in MB, one per reading; then the last one stays.

        Each call to the clock, and each reading, takes half a second.
        """
        one, made = one_attack(slack=slack), attack_pair.Pair.__new__(attack_pair.Pair)
        readings, clock = [*megabytes], itertools.count(one.last_byte, 0.5)
        service = Mock(has_ended=Mock(return_value=False))
        made.start, made.ports, made._photos, made._services = {"a": 100.0}, {"http": 1}, [Mock()], {"a": service}
        with (
            patch.object(attack_pair, "time", Mock(monotonic=lambda: next(clock))),
            patch.object(attack_pair, "ask", return_value=(0.0, "200")),
            patch.object(made, "_is_busy", return_value=is_busy),
            patch.object(made, "megabytes", lambda: {"a": readings.pop(0) if len(readings) > 1 else readings[0]}),
        ):
            made._rest(one)
        return one.report

    def test_memory_may_stand_still_for_a_while_before_it_is_back(self) -> None:
        report = self.rested([150.0] * 10 + [119.0])
        self.assertEqual((report.back, report.broken), ({"a": 119.0}, []))
        for megabytes in ([150.0], [150.0, 140.0, 121.0], [150.0] * 1000 + [100.0]):
            self.assertIn("MB, but 100 MB before it", str(self.rested(megabytes).broken))

    def test_a_service_that_is_never_idle_breaks_a_promise_with_any_slack(self) -> None:
        for slack in (1.0, 4.0):
            with self.subTest(slack):
                self.assertIn("idle only after", str(self.rested([100.0], is_busy=True, slack=slack).broken))
                self.assertEqual(self.rested([100.0], slack=slack).broken, [])

    def test_growth_over_refused_files_and_answers_of_5xx_are_told(self) -> None:
        for megabytes, statuses, is_broken in (
            ([100.0, 109.0], {400: 9}, False),
            ([100.0, 111.0, 100.0], {400: 9}, True),
            ([100.0, 100.0], {500: 1}, True),
        ):
            told = refused.Refused(megabytes, refused.Counter(statuses))
            told.judge()
            self.assertEqual(bool(told.broken), is_broken)


@unittest.skipIf(os.name == "nt", "Windows has no SIGKILL")
class WatchTest(unittest.TestCase):
    def process(self, program: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout
        self.addCleanup(process.stdout.close)
        process.stdout.readline()
        return process

    def test_memory_of_a_child_counts_and_what_it_shares_with_its_parent_counts_once(self) -> None:
        program = (
            "import os, time; shared = b'x' * 100_000_000; child = os.fork()\n"
            "if child: time.sleep(60)\n"
            "own = b'x' * 50_000_000; print(flush=True); time.sleep(10)"
        )
        tree = watch.Tree(self.process(program).pid)
        megabytes = tree.megabytes()
        self.assertGreater(megabytes, 150)
        self.assertLess(megabytes, 200)

    def test_what_takes_too_much_or_too_long_is_killed_with_its_children(self) -> None:
        for program, limit_s, why in (("x = b'x' * 80_000_000", 60, "MB"), ("x = 0", 0.1, "took more than")):
            with self.subTest(why):
                process = self.process(f"{program}; import time; print(flush=True); time.sleep(60)")
                target = watch.Target("a service", process.pid, free_port(), 60.0)
                with watch.Watcher([target], free_port(), [watch.Photo("none", b"", "image/png")]) as watcher:
                    watcher.begin(limit_s)
                    process.wait(30)
                    seen = watcher.end()
                self.assertIn(why, seen.killed)

    def test_photos_and_livez_that_are_not_answered_are_told(self) -> None:
        process = self.process("import time; print(flush=True); time.sleep(60)")
        target = watch.Target("a service", process.pid, free_port(), 1000.0)
        with watch.Watcher([target], free_port(), [watch.Photo("none", b"", "image/png")]) as watcher:
            watcher.begin(60)
            time.sleep(0.3)
            seen = watcher.end()
        self.assertEqual(seen.killed, "")
        self.assertIn("a small photo (none): ConnectionRefusedError", str(seen.failures))
        self.assertIn("/livez of the a service: ConnectionRefusedError", str(seen.failures))


if __name__ == "__main__":
    unittest.main()
