"""Tests two models of one embedded model server behind one service: answers, new versions and calls in flight."""

import json
import tempfile
import threading
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from preprocess_service.app.serving_client import connection
from tools.model_folder import GoldenPhoto
from unit_test import processes, tiny_models
from unit_test.preprocess_service.hot_swap_test import PHOTOS, open_service, wait_until

JPEG = {"Content-Type": "image/jpeg"}
# The labels of each model for red, green and blue, and its input: uint8 of 16 x 16, float32 of 24 x 24.
MODELS = {"A": (["red a", "green a", "blue a"], 16, False), "B": (["red b", "green b", "blue b"], 24, True)}


def write_version(base: Path, name: str, version: int, golden: str = "") -> None:
    """Write a version whose golden photo has the label ``golden``, and rename it into place."""
    labels, size, is_float = MODELS[name]
    photos = [GoldenPhoto("red.jpg", PHOTOS["red"], {golden or labels[0]: 1.0})]
    tiny_models.write_model(base / f".{version}", labels, [0, 1, 2], size, golden=photos, float_input=is_float)
    (base / f".{version}").rename(base / str(version))


@contextmanager
def two_models() -> Iterator[tuple[Path, processes.ModelServer]]:
    """Yield a folder with the models, and a model server that serves them."""
    with tempfile.TemporaryDirectory() as folder:
        configs = []
        for name in MODELS:
            base = Path(folder, name)
            write_version(base, name, 1)
            configs.append(
                f'config {{ name: "{name}" base_path: {json.dumps(str(base))} model_platform: "tensorflow" }}'
            )
        listed = Path(folder, "models.config")
        listed.write_text(f"model_config_list {{ {' '.join(configs)} }}", encoding="utf-8")
        flags = (f"--model_config_file={listed}", "--unload_delay_seconds=60")
        with processes.model_server("", "", *flags) as server:
            yield Path(folder), server


class TwoModelsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder, self.server = self.enterContext(two_models())
        self.url = open_service(self, self.server, "A,B")

    def ask(self, name: str, colour: str) -> Any:
        return requests.post(f"{self.url}/models/{name}/predict", data=PHOTOS[colour], headers=JPEG, timeout=60)

    def test_photos_for_both_at_once_get_their_own_models_labels_and_share_the_calls_in_flight(self) -> None:
        running, most, lock = [0], [0], threading.Lock()
        ask = connection.ask

        async def counted(method: Any, request: Any, *arguments: Any) -> Any:
            if not isinstance(request, bytes):
                return await ask(method, request, *arguments)
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            try:
                return await ask(method, request, *arguments)
            finally:
                with lock:
                    running[0] -= 1

        with (
            mock.patch("preprocess_service.app.model_runner.ask", counted),
            mock.patch("preprocess_service.app.model_runner.usable_cores", return_value=1),
        ):
            # Two calls at a time; a service of its own, so that this is what it starts with.
            url = open_service(self, self.server, "A,B")
            asked = [(name, colour) for _ in range(20) for name in MODELS for colour in PHOTOS]
            with ThreadPoolExecutor(8) as senders:
                sent = [
                    senders.submit(requests.post, f"{url}/models/{name}/predict", data=PHOTOS[colour], headers=JPEG)
                    for name, colour in asked
                ]
                answers = [one.result().json() for one in sent]
        for (name, colour), answer in zip(asked, answers, strict=True):
            self.assertEqual(answer.get("label"), f"{colour} {name.lower()}", answer)
            self.assertEqual(answer["model"], {"name": name, "version": 1})
        self.assertLessEqual(most[0], 2)

    def test_a_new_version_of_one_is_used_and_one_that_fails_its_golden_check_harms_neither(self) -> None:
        write_version(self.folder / "B", "B", 2)
        wait_until(lambda: self.ask("B", "red").json()["model"]["version"] == 2)
        write_version(self.folder / "B", "B", 3, golden="blue b")

        def warnings() -> Any:
            return requests.get(f"{self.url}/readyz", timeout=60).json().get("warnings", {})

        wait_until(lambda: (self.ask("B", "green"), "3" in warnings().get("B/model", ""))[1])
        for name, version in (("A", 1), ("B", 2)):
            with self.subTest(name):
                answer = self.ask(name, "green").json()
                self.assertEqual((answer["label"], answer["model"]["version"]), (f"green {name.lower()}", version))
        self.assertEqual(set(warnings()), {"B/model"})
        listed = requests.get(f"{self.url}/models", timeout=60).json()["models"]
        self.assertEqual([one["version"] for one in listed], [1, 2])
        golden = requests.get(f"{self.url}/models/B/model/golden/red.jpg", timeout=60)
        self.assertEqual(golden.content, PHOTOS["red"])


if __name__ == "__main__":
    unittest.main()
