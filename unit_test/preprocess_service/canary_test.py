"""Tests a canary: a version that answers a share of the photos, and gets none when it fails its checks."""

import itertools
import json
import logging
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from preprocess_service.app import app_server, config, errors
from preprocess_service.app.inference import model_versions
from preprocess_service.app.serving_client.model_version import AnotherVersion
from preprocess_service.app.serving_client.predict_response import Prediction
from unit_test import processes
from unit_test.preprocess_service.app_server_test import CAT, FakeRunner
from unit_test.preprocess_service.hot_swap_test import PHOTOS, open_service, wait_until
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.recipes import SHIPPED, model_version
from unit_test.preprocess_service.several_models_pair_test import JPEG, write_version

GOLDEN = {"name": "golden_1.jpg", "photo": CAT, "probabilities": {"CAT": 0.75}}


class Versions(FakeRunner):
    """A model with several versions: what each says, and whether it fails."""

    def __init__(self, *versions: int) -> None:
        super().__init__()
        self.versions = list(versions)
        self.says: dict[int, float | Exception] = {}
        self.asked: Counter[tuple[int, bool]] = Counter()
        self.loaded: Counter[int] = Counter()

    async def available(self, timeout: float) -> list[int]:
        return sorted(self.versions, reverse=True)

    async def load(self, version: int, timeout: float) -> Any:
        self.loaded[version] += 1
        recipe = type(SHIPPED).model_validate(SHIPPED.model_dump() | {"golden": [GOLDEN]})
        return model_version(version, recipe)

    async def predict(self, pixels: Any, model: Any, timeout: float, request_id: str = "") -> Any:
        if request_id not in ("golden", "readyz"):
            self.asked[model.version, model.is_pinned] += 1
        if model.version not in self.versions:
            raise AnotherVersion
        said = self.says.get(model.version, 0.75)
        if isinstance(said, Exception):
            if request_id in ("golden", "readyz"):
                said = 0.75
            else:
                raise said
        return Prediction({"CAT": said, "DOG": 1 - said}, model.version)


class CanaryTest(unittest.TestCase):
    def setUp(self) -> None:
        # Every second photo is for the canary.
        draws = itertools.cycle([0.9, 0.1])
        self.enterContext(mock.patch.object(model_versions, "random", mock.Mock(random=lambda: next(draws))))
        self.enterContext(mock.patch.object(model_versions, "RETRY_SECONDS", 0.05))
        logging.getLogger(model_versions.__name__).setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger(model_versions.__name__).setLevel, logging.NOTSET)

    def serve(self, *versions: int, canary: str = "CAT-DOG/2=20%") -> Versions:
        runner = Versions(*versions)
        loaded = config.load_config({"SERVICE_CANARY": canary})
        self.url = self.enterContext(serving(app_server.create_app(loaded, runner)))
        return runner

    def ready(self) -> tuple[int, dict[str, str]]:
        response = requests.get(f"{self.url}/readyz", timeout=60)
        return response.status_code, response.json().get("warnings", {})

    def ask(self, photos: int) -> Counter[int]:
        """Return how many photos each version answered."""
        answers = [requests.post(f"{self.url}/predict", json={"image_b64": CAT}, timeout=60) for _ in range(photos)]
        return Counter(answer.json()["model"]["version"] for answer in answers)

    def metric(self, line: str) -> bool:
        return f"\n{line}\n" in requests.get(f"{self.url}/metrics", timeout=60).text

    def test_it_answers_its_share_whether_it_is_newer_or_older_and_each_request_names_its_version(self) -> None:
        for versions, other in (((1, 2), 1), ((2, 3), 3), ((1, 2, 3), 3)):
            with self.subTest(versions):
                runner = self.serve(*versions)
                wait_until(lambda: self.ready() == (200, {}))
                self.assertEqual(self.ask(8), {2: 4, other: 4})
                self.assertEqual(set(runner.asked), {(2, True), (other, True)})
                for version in (2, other):
                    self.assertTrue(self.metric(f'catdog_predictions_total{{label="CAT",version="{version}"}} 4.0'))
                self.assertTrue(self.metric("catdog_canary_ready 1.0"))
                self.assertTrue(self.metric("catdog_canary_failures_total 0.0"))
                self.assertEqual(requests.get(f"{self.url}/model", timeout=60).json()["version"], other)

    def test_one_that_fails_its_golden_check_gets_no_photo_and_is_not_tried_again(self) -> None:
        runner = self.serve(1, 2)
        runner.says[2] = 0.5
        wait_until(lambda: "golden_1.jpg: CAT 0.50, expected 0.75" in self.ready()[1].get("canary", ""))
        for _ in range(3):
            self.assertEqual(self.ask(4), {1: 4})
            wait_until(lambda: self.ready()[0] == 200)
            self.assertTrue(self.metric("catdog_canary_ready 0.0"))
        self.assertNotIn((2, True), runner.asked)
        self.assertEqual(runner.loaded[2], 1)

    def test_a_photo_that_it_fails_is_answered_by_the_other_version(self) -> None:
        runner = self.serve(1, 2)
        wait_until(lambda: self.ready() == (200, {}))
        runner.says[2] = errors.ModelError("model_output_type", name="probabilities")
        self.assertEqual(self.ask(2), {1: 2})
        self.assertTrue(self.metric("catdog_canary_failures_total 1.0"))
        # Its golden photos are right, so it gets photos again.
        runner.says.clear()
        wait_until(lambda: 2 in self.ask(2))

    def test_one_that_comes_later_or_goes_away_is_noticed(self) -> None:
        runner = self.serve(1)
        self.assertEqual(self.ask(4), {1: 4})
        wait_until(lambda: (self.ready()[0], set(self.ready()[1])) == (200, {"canary"}))
        runner.versions.append(2)
        wait_until(lambda: 2 in self.ask(2))
        runner.versions.remove(2)
        wait_until(lambda: set(self.ready()[1]) == {"canary"})
        self.assertEqual(self.ask(4), {1: 4})

    def test_a_broken_photo_is_refused_by_neither_version_twice(self) -> None:
        runner = self.serve(1, 2)
        wait_until(lambda: self.ready() == (200, {}))
        codes = [
            requests.post(f"{self.url}/predict", b"no photo", headers=JPEG, timeout=60).json()["code"] for _ in range(2)
        ]
        self.assertEqual((codes, runner.asked), (["invalid_image"] * 2, Counter()))


class PairTest(unittest.TestCase):
    def test_two_versions_of_a_model_server_share_the_photos_and_a_bad_one_gets_none(self) -> None:
        base = Path(self.enterContext(tempfile.TemporaryDirectory()), "A")
        for version, golden in ((1, ""), (2, ""), (3, "blue a")):
            write_version(base, "A", version, golden)
        policy = "model_version_policy { all {} }"
        listed = base / "models.config"
        text = f'config {{ name: "A" base_path: {json.dumps(str(base))} model_platform: "tensorflow" {policy} }}'
        listed.write_text(f"model_config_list {{ {text} }}", encoding="utf-8")
        server = self.enterContext(processes.model_server("", "", f"--model_config_file={listed}"))
        for canary, passes in ((1, True), (3, False)):
            with self.subTest(canary):
                share = config.load_config({"MODEL_NAME": "A", "SERVICE_CANARY": f"A/{canary}=50%"}).canary
                url = open_service(self, server, "A", canary=share)
                metrics = f"{url}/metrics"
                if passes:
                    wait_until(lambda url=metrics: "catdog_canary_ready 1.0" in requests.get(url, timeout=60).text)
                answered: Counter[int] = Counter()
                for _ in range(60):
                    answer = requests.post(f"{url}/predict", PHOTOS["green"], headers=JPEG, timeout=60).json()
                    self.assertEqual(answer["label"], "green a")
                    answered[answer["model"]["version"]] += 1
                # The newest other version that passes. Chance gives one of two less than 5 of 60 once in 10**11 times.
                self.assertEqual(set(answered), {1, 2} if passes else {2})
                self.assertGreater(min(answered.values()), 4)


class ConfigTest(unittest.TestCase):
    def test_a_share_that_is_none_or_a_model_that_is_not_served_is_refused(self) -> None:
        for text, words in (
            ("CAT-DOG/2", "MODEL/VERSION=PERCENT%"),
            ("CAT-DOG/2=0%", "greater than 0"),
            ("CAT-DOG/2=100%", "MODEL/VERSION=PERCENT%"),
            ("CAT-DOG/x=10%", "MODEL/VERSION=PERCENT%"),
            ("FISH/2=10%", "'FISH' must be one of the models"),
            ("CAT-DOG/2=10%,CAT-DOG/3=10%", "one canary at most"),
        ):
            with self.subTest(text), self.assertRaisesRegex(config.ConfigError, f"(?i)canary.*{words}"):
                config.load_config({"SERVICE_CANARY": text})
        (canary,) = config.load_config({"SERVICE_CANARY": "CAT-DOG/002=2.5%"}).canary
        self.assertEqual((canary.model, canary.version, canary.share), ("CAT-DOG", 2, 0.025))


if __name__ == "__main__":
    unittest.main()
