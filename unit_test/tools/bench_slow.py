"""Runs the bench with its contestants and its theoretical maximum."""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tools import service
from tools.bench import (
    contestants,
    limit,
    running,
)
from tools.bench import photos as bench_photos
from unit_test.tools.programs import run_tool


class LimitTest(unittest.TestCase):
    def test_it_counts_photos_in_every_way_to_share_the_cores(self) -> None:
        done = run_tool("bench.limit", "--seconds", "0.2")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(found["best"], max(found["rates"], key=found["rates"].__getitem__))
        self.assertTrue(all(rate > 0 for rate in found["rates"].values()))
        self.assertEqual(found["steps_ms"].keys(), {"decode", "resize", "network"})


class SlowRivalsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        self.enterContext(mock.patch.object(running, "LOGS", Path(folder)))
        model = limit.newest_version(limit.MODEL)
        self.all = contestants.contestants(service.read_config(None), model, cores=2)

    def test_those_that_need_no_other_packages_answer_right(self) -> None:
        photos = bench_photos.shipped_photos()
        for contestant in (one for one in self.all if one.packages is None):
            with self.subTest(contestant.name), running.running(contestant, photos[0]) as service_running:
                running.check(service_running, photos)
                self.assertEqual(service_running.megabytes().keys(), contestant.parts.keys())
                self.assertTrue(all(seconds > 0 for seconds in service_running.cpu_seconds().values()))


if __name__ == "__main__":
    unittest.main()
