"""Tests the bench: its statistics, its parsers of other programs' output, and that its servers answer right."""

import contextlib
import dataclasses
import http.server
import io
import json
import platform
import shutil
import tempfile
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from PIL import Image

from tools import service
from tools.bench import (
    closed_loop,
    comparison,
    contestants,
    environments,
    limit,
    open_loop,
    running,
    samples,
    scaling,
    turns,
)
from tools.bench import photos as bench_photos
from tools.bench import report as bench_report
from tools.system_packages import find, why_skipped
from unit_test.tools.programs import FOLDER, answering_with, run_tool

PRINTED = """Running 1s test @ http://127.0.0.1:1/predict
  Requests/sec:     98.00
{"requests":200,"microseconds":2000000,"refused":3,"broken":2,"percentiles_us":[%s]}
"""


def sample(rate: float = 100.0, milliseconds: float = 10.0, errors: int = 0) -> samples.Sample:
    """Return a load whose percentile p took p times `milliseconds`."""
    return samples.Sample(rate, [milliseconds * percent for percent in range(1, 100)], 1000, errors)


def turn(rate: float = 100.0, milliseconds: float = 10.0) -> turns.Turn:
    closed = {clients: sample(rate, milliseconds, errors=1) for clients in turns.CLIENTS}
    return turns.Turn(1.5, closed, sample(), {"front": 2.0, "back": 3.0}, 0.1, {"front": 100.0, "back": 200.0})


def results(**changes: Any) -> bench_report.Results:
    """Return results of two contestants in two rounds; ours is twice as fast."""
    ours = contestants.Contestant(contestants.OURS, "as it comes", "/predict", {})
    other = contestants.Contestant("another", "the best", "/predict", {})
    found = {ours.name: [turn(90), turn(110)], other.name: [turn(50), turn(50)]}
    run = {"rates": {"slow": 80.0, "fast": 125.0}, "best": "fast", "cpu_ms": 4.0, "megabytes": 50.0}
    limits = [run | {"steps_ms": {"decode": 100.0, "resize": 50.0, "network": 250.0}}] * 2
    plan = turns.Plan(seconds=4, rate=30)
    made = bench_report.Results([ours, other], found, limits, None, plan, "CAT-DOG version 1", 2)
    return dataclasses.replace(made, **changes)


def failing(broken: contestants.Contestant) -> mock.Mock:
    """Return a replacement for `take_turn` in which one contestant does not start."""

    def take(contestant: contestants.Contestant, *_: object) -> turns.Turn:
        if contestant.name == broken.name:
            raise environments.BenchError("its server ended")
        return turn()

    return mock.Mock(side_effect=take)


@contextmanager
def answering(seconds: float = 0.0, status: int = 200) -> Iterator[str]:
    """Run a service that answers each POST after `seconds`; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds)
            self.send_response(status)
            self.send_header("Server-Timing", "decode;dur=2.0, total;dur=5.0")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with answering_with(Handler) as port:
        yield f"http://127.0.0.1:{port}/predict"


class ClosedLoopTest(unittest.TestCase):
    def test_what_was_refused_is_no_answer(self) -> None:
        found = closed_loop.parse_wrk(PRINTED % ",".join(str(1000 * percent) for percent in range(1, 100)))
        self.assertEqual((found.requests, found.errors), (200, 5))
        self.assertAlmostEqual(found.requests_per_second, 98.5)
        self.assertEqual((found.percentile(1), found.percentile(99)), (1.0, 99.0))

    def test_wrk_that_measured_nothing_is_told_in_its_own_words(self) -> None:
        with self.assertRaisesRegex(samples.LoadError, "unable to connect"):
            closed_loop.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")

    def test_without_wrk_it_says_how_to_get_it(self) -> None:
        with (
            mock.patch.object(closed_loop.shutil, "which", return_value=None),
            self.assertRaisesRegex(samples.LoadError, "apt install wrk"),
        ):
            closed_loop.closed_loop("http://127.0.0.1:1/", [], 1, 1)

    @unittest.skipUnless(find("wrk"), why_skipped("wrk"))
    def test_wrk_sends_the_bodies_and_counts_what_is_refused(self) -> None:
        with answering(status=503) as url, tempfile.TemporaryDirectory() as folder:
            body = Path(folder, "body")
            body.write_bytes(b"{}")
            found = closed_loop.closed_loop(url, [body], 2, 1)
        self.assertGreater(found.requests, 0)
        self.assertEqual((found.errors, found.requests_per_second), (found.requests, 0))


class OpenLoopTest(unittest.TestCase):
    def test_latency_counts_from_the_moment_that_a_request_was_due(self) -> None:
        """One connection with answers of 50 ms, and requests that are due every 10 ms: each waits longer."""
        with answering(seconds=0.05) as url, mock.patch.object(open_loop, "CONNECTIONS", 1):
            found = open_loop.open_loop(url, [b"{}"], rate=100, seconds=0.3)
        self.assertEqual(found.errors, 0)
        self.assertGreater(found.percentile(99), 150)

    def test_refusals_are_errors_and_not_latencies(self) -> None:
        with answering(status=503) as url, self.assertRaisesRegex(samples.LoadError, "of 4 requests, 4 failed"):
            samples.sample_of((timings := open_loop.one_by_one(url, [b"{}"], 4)).latencies, timings.errors, 1)

    def test_steps_are_read_from_the_header(self) -> None:
        with answering() as url:
            timings = open_loop.one_by_one(url, [b"{}"], 3, clients=2)
        self.assertEqual(timings.steps, [{"decode": 2.0, "total": 5.0}] * 3)
        self.assertEqual(open_loop.parse_server_timing("miss, db;desc=x;dur=1.5"), {"db": 1.5})
        self.assertEqual(open_loop.parse_server_timing(""), {})


class ScalingTest(unittest.TestCase):
    def test_steps_and_what_is_left_over_add_up_to_what_the_client_waits(self) -> None:
        timings = open_loop.Timings([8.0, 12.0], [{"decode": 1, "total": 5}, {"decode": 3, "model": 2, "total": 9}])
        found = scaling.split(timings)
        self.assertEqual(found, {"decode": 2.0, "model": 1.0, "other": 4.0, "client": 3.0})
        self.assertAlmostEqual(sum(found.values()), 10.0)


class PhotosTest(unittest.TestCase):
    def test_the_largest_has_the_pixels_and_the_bytes_of_a_phones(self) -> None:
        largest = bench_photos.photos_by_size()[-1]
        with Image.open(io.BytesIO(largest.data)) as image:
            self.assertEqual(image.size, (4032, 3024))
        self.assertGreater(len(largest.data), 2_000_000)

    def test_the_smallest_is_of_ten_kilobytes(self) -> None:
        self.assertLess(abs(len(bench_photos.photos_by_size()[0].data) - 10_000), 3_000)

    def test_each_is_what_its_name_says(self) -> None:
        self.assertEqual({photo.label for photo in bench_photos.shipped_photos()}, {"CAT", "DOG"})


class ReportTest(unittest.TestCase):
    def test_the_table_has_a_row_for_each_and_as_many_cells_in_all(self) -> None:
        rows = [line for line in bench_report.markdown(results()).splitlines() if line.startswith("|")]
        self.assertEqual(len(rows), 2 + 1 + 2)
        self.assertEqual({row.count("|") for row in rows}, {rows[0].count("|")})
        self.assertIn("| **this project** | 100 ± 10 / 100 ± 10 / 100 ± 10 / 100 ± 10 | 500.0 |", rows[3])
        self.assertTrue(rows[3].endswith("| 5.0 | 300 | 1.5 | 8 |"), rows[3])

    def test_the_first_line_says_what_it_was_measured_on(self) -> None:
        first = bench_report.markdown(results()).splitlines()[0]
        self.assertIn(f"2 cores ({platform.machine()}), Python {platform.python_version()}, CAT-DOG version 1,", first)

    def test_ratios_are_those_of_medians(self) -> None:
        found = bench_report.ratios(results())
        self.assertAlmostEqual(found["throughput at 32 clients to the limit's"], 0.8)
        self.assertAlmostEqual(found["throughput at 32 clients to that of another"], 2.0)
        self.assertAlmostEqual(found["p50 at 1 client to decode, resize and network alone"], 1.25)
        self.assertAlmostEqual(found["p99 to p50 at 32 clients"], 1.98)

    def test_whoever_answers_nothing_is_infinitely_slower(self) -> None:
        sizes = {"ours": {0.1: 50.0, 2.8: 20.0}, "theirs": {0.1: 10.0, 2.8: 0.0}}
        found = bench_report.ratios(results(scaling=scaling.Scaling(sizes=sizes)))
        self.assertEqual(found["throughput with a photo of 12 megapixels to the tutorial's"], float("inf"))

    def test_json_and_pictures_are_written(self) -> None:
        grown = scaling.Scaling(
            clients={1: 50.0, 2: 90.0},
            sizes={"ours": {0.1: 50.0}, "theirs": {0.1: 10.0}},
            batches={1: 50.0, 2: 60.0},
            steps={1: {"decode": 1.0, "other": 2.0}},
        )
        with tempfile.TemporaryDirectory() as name, mock.patch("builtins.print"):
            comparison.publish(results(scaling=grown), Path(name))
            found = json.loads(Path(name, "bench.json").read_text("utf-8"))
            pictures = list(Path(name).glob("*.png"))
        self.assertEqual(found["turns"]["another"][0]["closed"]["32"]["requests_per_second"], 50)
        self.assertEqual(len(pictures), 4)


class BenchTest(unittest.TestCase):
    def test_each_round_begins_with_another_one(self) -> None:
        chosen: list[Any] = list("abcdef")
        orders = [comparison.rotated(chosen, number) for number in range(3)]
        self.assertEqual([order[0] for order in orders], ["a", "c", "e"])
        self.assertEqual([sorted(order) for order in orders], [chosen] * 3)

    def test_a_rival_that_does_not_start_is_left_out_and_the_others_go_on(self) -> None:
        ours, rival = results().contestants
        left_out: dict[str, str] = {}
        progress = mock.MagicMock()
        with mock.patch.object(comparison, "take_turn", failing(rival)) as take:
            rounds = [comparison.take_round([rival, ours], results().plan, left_out, progress) for _ in range(2)]
        self.assertEqual([list(taken) for taken in rounds], [[ours.name]] * 2)
        self.assertEqual(left_out, {rival.name: "its server ended"})
        # It is not tried again in the second round.
        self.assertEqual(take.call_count, 3)
        progress.write.assert_called_once()

    def test_without_ours_there_is_nothing_to_compare(self) -> None:
        ours, rival = results().contestants
        with (
            mock.patch.object(comparison, "take_turn", failing(ours)),
            self.assertRaisesRegex(environments.BenchError, "its server ended"),
        ):
            comparison.take_round([ours, rival], results().plan, {}, mock.MagicMock())

    def test_what_cannot_be_measured_is_refused_in_a_line(self) -> None:
        for arguments, text in ((["--rounds", "0"], "more than 0"), (["--only", "LitServe"], "this project")):
            with self.subTest(arguments):
                done = run_tool("bench", *arguments)
                self.assertNotEqual(done.returncode, 0)
                if shutil.which("wrk") or arguments[0] == "--rounds":
                    self.assertIn(text, done.stderr.splitlines()[-1])

    def test_every_rivals_packages_are_pinned(self) -> None:
        for path in (FOLDER / "bench" / "rivals").glob("*.txt"):
            lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
            with self.subTest(path.name):
                self.assertTrue(lines)
                self.assertEqual([line for line in lines if "==" not in line], [])


class EnvironmentsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.rivals = folder / "rivals"
        self.rivals.mkdir()
        self.enterContext(mock.patch.object(environments, "ENVIRONMENTS", folder))
        self.enterContext(mock.patch.object(environments, "RIVALS", self.rivals))

    def test_a_rival_that_cannot_be_installed_is_left_out_and_the_next_one_is_installed_once(self) -> None:
        (self.rivals / "broken.txt").write_text("not a requirement\n", "utf-8")
        (self.rivals / "sound.txt").write_text("# needs nothing\n", "utf-8")
        with contextlib.redirect_stderr(io.StringIO()) as told, contextlib.redirect_stdout(io.StringIO()) as first:
            failures = environments.install_all(["broken", "sound"])
        self.assertEqual(list(failures), ["broken"])
        self.assertIn("Left out: broken: pip could not install broken.txt", told.getvalue())
        self.assertIn("Installing sound", first.getvalue())
        with contextlib.redirect_stdout(io.StringIO()) as second:
            self.assertEqual(environments.install_all(["sound"]), {})
        self.assertEqual(second.getvalue(), "")

    def test_the_table_names_who_was_left_out_and_why(self) -> None:
        table = bench_report.markdown(results(left_out={"a rival": "it could not be installed"}))
        self.assertIn("Left out: a rival: it could not be installed.", table)


class RivalsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        self.enterContext(mock.patch.object(running, "LOGS", Path(folder)))
        model = limit.newest_version(limit.MODEL)
        self.all = contestants.contestants(service.read_config(None), model, cores=2)

    def test_sizes_of_photos_are_compared_with_the_tutorials_way(self) -> None:
        with mock.patch.object(scaling, "measure") as measure:
            comparison._grow(self.all, 2, mock.MagicMock())
        ours, tutorial, *_ = measure.call_args.args
        self.assertEqual(
            [ours.name, tutorial.name], [contestants.OURS, f"{contestants.TUTORIAL}, TensorFlow's runtime"]
        )

    def test_one_that_does_not_start_is_told_with_its_log(self) -> None:
        broken = contestants.Contestant("broken", "", "/", {"server": contestants.Part(["python3", "-c", "1/0"])})
        with self.assertRaisesRegex(environments.BenchError, "its server ended; its output is in"):
            self.enterContext(running.running(broken, bench_photos.shipped_photos()[0]))


if __name__ == "__main__":
    unittest.main()
