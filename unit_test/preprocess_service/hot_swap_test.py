"""Another version takes the place of the one in use, under load: no answer has another version's labels."""

import io
import os
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from preprocess_service.app import app_server, config, model_runner
from tools import model_folder
from unit_test import processes, tiny_models
from unit_test.preprocess_service.http_server import serving

# HOT_SWAP_ANSWERS=10000 for the long form.
ANSWERS = int(os.environ.get("HOT_SWAP_ANSWERS", "300"))
SENDERS = 4
COLOURS = ("red", "green", "blue")
# Of each version the size, the labels in the order of its outputs with the colour that each is, and whether it takes
# float32: other names, another size, another number of classes, another order; the last three differ in labels alone.
VERSIONS: dict[int, tuple[int, list[tuple[str, int]], bool]] = {
    1: (16, [("red 1", 0), ("green 1", 1), ("blue 1", 2)], False),
    2: (24, [("none 2", 1), ("blue 2", 2), ("green 2", 1), ("more 2", 0), ("red 2", 0)], True),
    3: (32, [("green 3", 1), ("red 3", 0), ("blue 3", 2)], False),
    4: (32, [("blue 4", 1), ("green 4", 0), ("red 4", 2)], False),
    5: (32, [("red 5", 1), ("blue 5", 0), ("green 5", 2)], False),
}
# What a version says of a colour: the first label of it, all of them being as probable.
EXPECTED = {
    version: {
        COLOURS[number]: {label for label, channel in labels if channel == number} for number in range(len(COLOURS))
    }
    for version, (_, labels, _) in VERSIONS.items()
}


def jpeg(colour: int, size: int = 64) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), tuple(255 * (number == colour) for number in range(3))).save(stream, "JPEG")
    return stream.getvalue()


PHOTOS = {name: jpeg(number) for number, name in enumerate(COLOURS)}


def write_version(base: Path, version: int, golden: Any = ()) -> None:
    """Write a version beside the others, and rename it into place."""
    size, labels, is_float = VERSIONS[version]
    beside = base / f".{version}"
    names, channels = [label for label, _ in labels], [channel for _, channel in labels]
    tiny_models.write_model(beside, names, channels, size, golden=golden, float_input=is_float)
    beside.rename(base / str(version))


def open_service(test: Any, server: processes.ModelServer, models: str = "M", **settings: Any) -> str:
    """The address of a preprocess service in front of a model server, for a test or a class of tests."""
    loaded = config.load_config({"MODEL_NAME": models})
    place = loaded.model_server.model_copy(update={"host": "127.0.0.1", "port": server.grpc_port})
    loaded = loaded.model_copy(update={"model_server": place, **settings})
    enter = test.enterContext if isinstance(test, unittest.TestCase) else test.enterClassContext
    runner = model_runner.ModelRunner(loaded)
    others = [runner.for_model(name) for name in loaded.models[1:]]
    url = enter(serving(app_server.create_app(loaded, runner, others=others)))
    wait_until(lambda: requests.get(f"{url}/readyz", timeout=60).status_code == 200)
    return url


def wait_until(is_so: Any) -> None:
    end = time.monotonic() + 60
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError("it did not happen within 60 s")
        time.sleep(0.02)


class HotSwapTest(unittest.TestCase):
    def setUp(self) -> None:
        self.base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_version(self.base, 1)
        server = self.enterContext(processes.model_server(self.base, "M"))
        self.url = open_service(self, server)
        self.answered: dict[int, int] = dict.fromkeys(VERSIONS, 0)
        self.problems: list[Any] = []
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def send(self) -> None:
        names = list(PHOTOS)
        with requests.Session() as session:
            number = 0
            while not self.stop.is_set():
                number += 1
                colour = names[number % 3]
                response = session.post(
                    f"{self.url}/predict", data=PHOTOS[colour], headers={"Content-Type": "image/jpeg"}, timeout=60
                )
                self.note(colour, response.status_code, response.json())

    def note(self, colour: str, status: int, answer: Any) -> None:
        with self.lock:
            if status != 200:
                self.problems.append((colour, status, answer))
                return
            version = answer["model"]["version"]
            self.answered[version] += 1
            if answer["label"] not in EXPECTED[version][colour]:
                self.problems.append((colour, answer))

    def test_no_answer_under_load_has_another_versions_labels(self) -> None:
        senders = [threading.Thread(target=self.send) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        try:
            for version in VERSIONS:
                if version > 1:
                    write_version(self.base, version)
                share = ANSWERS // len(VERSIONS)
                wait_until(lambda version=version, share=share: self.answered[version] >= share or self.problems)
        finally:
            self.stop.set()
            for sender in senders:
                sender.join()
        self.assertEqual(self.problems[:3], [])
        self.assertGreaterEqual(sum(self.answered.values()), ANSWERS)


class GoldenCheckTest(unittest.TestCase):
    """A version whose golden photo is answered otherwise than it says."""

    def setUp(self) -> None:
        self.base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_version(self.base, 3)
        # As where the model takes blue for red.
        self.bad = model_folder.GoldenPhoto("golden_1.jpg", PHOTOS["red"], {"blue 4": 0.95})

    def ready(self, url: str, language: str = "en") -> tuple[int, Any]:
        response = requests.get(f"{url}/readyz", headers={"Accept-Language": language}, timeout=60)
        return response.status_code, response.json()

    def predict(self, url: str) -> tuple[int, Any]:
        response = requests.post(
            f"{url}/predict", data=PHOTOS["red"], headers={"Content-Type": "image/jpeg"}, timeout=60
        )
        return response.status_code, response.json()

    def test_the_old_version_is_used_as_long_as_it_is_there(self) -> None:
        server = self.enterContext(processes.model_server(self.base, "M", "--unload_delay_seconds=5"))
        url = open_service(self, server)
        write_version(self.base, 4, [self.bad])
        wait_until(lambda: "warnings" in self.ready(url)[1])
        for _ in range(8):
            status, health = self.ready(url)
            self.assertEqual((status, health["failing"]), (200, {}))
            self.assertIn("golden_1.jpg: blue 4 0.00, expected 0.95", health["warnings"]["model"])
            status, answer = self.predict(url)
            self.assertEqual((status, answer["label"], answer["model"]["version"]), (200, "red 3", 3))
            # Longer in all than the old version stays by itself.
            time.sleep(0.8)
        write_version(self.base, 5)
        wait_until(lambda: self.predict(url)[1]["model"]["version"] == 5)
        wait_until(lambda: "warnings" not in self.ready(url)[1])

    def test_alone_it_is_not_ready_and_photos_are_refused_with_the_reason(self) -> None:
        server = self.enterContext(processes.model_server(self.base, "M"))
        url = open_service(self, server)
        write_version(self.base, 4, [self.bad])
        wait_until(lambda: self.ready(url)[0] == 503)
        wait_until(lambda: "golden" in self.ready(url)[1]["failing"])
        for language, words in (("en", "fails its golden check"), ("pt", "fotos de referência")):
            reason = self.ready(url, language)[1]["failing"]["golden"]
            self.assertIn("golden_1.jpg: blue 4 0.00, expected 0.95", reason)
            self.assertIn(words, reason)
        status, answer = self.predict(url)
        self.assertEqual((status, answer["code"]), (502, "model_error"))
        self.assertIn("golden_1.jpg: blue 4 0.00, expected 0.95", answer["msg"])


class MisfitTest(unittest.TestCase):
    """What is wrong between the services is said where it is seen: in /readyz, and to who asks."""

    def refusal(self, write: Any, name: str = "M") -> str:
        base = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write(base / "1")
        server = self.enterContext(processes.model_server(base, name))
        loaded = config.load_config({"MODEL_NAME": "M", "SERVICE_MODEL_PORT": str(server.grpc_port)})
        url = self.enterContext(serving(app_server.create_app(loaded, model_runner.ModelRunner(loaded))))
        response = requests.post(
            f"{url}/predict", data=PHOTOS["red"], headers={"Content-Type": "image/jpeg"}, timeout=60
        )
        message: str = response.json()["msg"]
        ready = requests.get(f"{url}/readyz", timeout=60)
        self.assertEqual(ready.status_code, 503)
        # On a slow machine, the decoders may start too late for the check.
        (reason,) = (text for name, text in ready.json()["failing"].items() if name != "process")
        # The numbers in it are of another photo.
        self.assertEqual(reason.partition("(")[0], message.partition("(")[0])
        self.assertNotIn(str(base), message)
        self.assertNotIn("/", message.replace("GET /model", ""))
        return message

    def test_each_misfit_is_named_with_what_to_do(self) -> None:
        def model(**settings: Any) -> Any:
            return lambda folder: tiny_models.write_model(folder, ["A", "B"], [0, 1], **settings)

        def plain(folder: Path) -> None:
            folder.mkdir()
            tiny_models.write_graph(folder, 2, [0, 1], 16)

        def other_labels(folder: Path) -> None:
            plain(folder)
            model_folder.write_recipe(folder, {"size": {"height": 16, "width": 16}}, ["A", "B", "C"])

        def one_value(folder: Path) -> None:
            folder.mkdir()
            tiny_models.write_graph(folder, 1, [0], 16, activation="Sigmoid")
            model_folder.write_recipe(folder, {"size": {"height": 16, "width": 16}}, ["A", "B"])

        for name, write, served, words in (
            ("no recipe", plain, "M", "has no recipe.*python run.py import.*section recipe"),
            ("labels", other_labels, "M", r"gives 2 values.* 3 labels.*python run\.py import"),
            ("one value", one_value, "M", "sigmoid.*python run.py import"),
            (
                "shape",
                model(config={"size": {"height": 24, "width": 16}}),
                "M",
                r"\[\?, 16, 16, 3\].*\[\?, 24, 16, 3\]",
            ),
            ("logits", model(activation="Identity"), "M", "logits.*python run.py import"),
            ("two outputs", model(outputs=("a", "b")), "M", "2 outputs.*a, b.*model_output_name"),
            ("another name", model(), "N", "no model M; it serves N.*MODEL_NAME"),
        ):
            with self.subTest(name):
                self.assertRegex(self.refusal(write, served), words)


if __name__ == "__main__":
    unittest.main()
