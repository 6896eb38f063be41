"""Tests the evaluation: its figures, and both ways to an answer, through a service and from a version folder."""

import contextlib
import io
import json
import tempfile
import unicodedata
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from model_service.engines import openvino as openvino_engine
from preprocess_service.app.recipe import parse_recipe
from tools.evaluation import evaluate, labelled, measures
from tools.evaluation.photos import PhotosError
from tools.evaluation.predictors import service as service_predictor
from tools.evaluation.predictors.version import VersionPredictor
from tools.model_folder import read_recipe
from tools.quiet import quiet
from unit_test import tiny_models
from unit_test.tools.programs import PROJECT, answering_with

IMAGES = PROJECT / "images"
MODEL = next((PROJECT / "prev_trained_models" / "CAT-DOG").glob("[0-9]*"))
COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}
BIRDS = ("great tit", "Grünfink", "wren")


class Service(BaseHTTPRequestHandler):
    """Answers like the preprocess service, for a model of eight birds: the first byte of a photo is the class."""

    labels: ClassVar = [f"bird {number}" for number in range(8)]
    version: ClassVar = 4

    def do_GET(self) -> None:
        if self.path == "/model":
            self.answer(200, {"name": "birds", "version": 4, "labels": self.labels, "domain_threshold": 0.5})
        else:
            self.answer(200, {})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if data == b"broken":
            self.answer(400, {"status": "Failed", "msg": "The picture is broken.", "code": "invalid_image"})
        elif data == b"crash":
            self.answer(503, {"status": "Failed", "msg": "No model.", "code": "model_unavailable"})
        else:
            shares = {label: 0.3 if number == data[0] else 0.1 for number, label in enumerate(self.labels)}
            # As the service does: so many labels as are asked for, the largest first.
            count = int(parse_qs(urlsplit(self.path).query).get("top_k", ["5"])[0])
            largest = dict(sorted(shares.items(), key=lambda row: -row[1])[:count])
            model = {"name": "birds", "version": data[1] if len(data) > 1 else 4}
            body = {"pet_type": "", "probabilities": largest, "domain_score": 0.4, "looks": 1 + data[0] % 2}
            self.answer(200, body | {"status": "Success", "model": model})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def service() -> Iterator[str]:
    with answering_with(Service) as port:
        yield f"http://127.0.0.1:{port}"


class MeasuresTest(unittest.TestCase):
    def test_interval_is_that_of_wilson(self) -> None:
        # Calculated by hand from the formula with z = 1.96: for example 0 of 10 gives z^2 / (10 + z^2).
        for right, total, low, high in ((0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)):
            with self.subTest(right=right, total=total):
                found = measures.Proportion(right, total).interval
                np.testing.assert_allclose(found, (low, high), atol=5e-5)

    def test_nothing_measured_leaves_everything_open(self) -> None:
        self.assertEqual(measures.Proportion(0, 0).interval, (0.0, 1.0))

    def test_confusion_matrix_has_a_row_for_each_actual_class(self) -> None:
        found = measures.confusion_matrix([0, 0, 0, 1], [0, 1, 1, 1], 2)
        self.assertEqual(found.tolist(), [[1, 2], [0, 1]])

    def test_groups_are_counted_apart(self) -> None:
        found = measures.by_group(np.array([True, False, True]), ["b", "b", "a"])
        self.assertEqual(
            {name: (share.right, share.total) for name, share in found.items()}, {"a": (1, 1), "b": (1, 2)}
        )


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder = self.scratch / "photos"
        self.report = self.scratch / "report.json"

    def photo(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def coloured(self, name: str, colour: str) -> None:
        file = io.BytesIO()
        Image.new("RGB", (40, 30), COLOURS[colour]).save(file, "PNG")
        self.photo(name, file.getvalue())

    def run_evaluate(self, *arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = evaluate.main([str(self.folder), *map(str, arguments)])
            except SystemExit as exc:
                code = int(exc.code or 0)
        return code, out.getvalue(), err.getvalue()

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.report.read_text("utf-8"))
        return found


class ServiceTest(Scratch):
    def test_service_is_asked_for_every_photo_and_the_figures_are_written(self) -> None:
        # The service names five labels unless it is asked for more.
        for name, data in {
            "Bird_7/1": b"\x07",
            "Bird_7/2": b"\x03",
            "bird 3/1": b"\x03",
            "bird 3/2": b"broken",
        }.items():
            self.photo(f"{name}.jpg", data)
        (self.folder / "INDEX.csv").write_text("path,source\nBird_7/1.jpg,studio\nbird 3/1.jpg,studio\n", "utf-8")
        with service() as url:
            code, out, err = self.run_evaluate("--url", url, "--model", "birds", "--json", self.report)
        self.assertEqual(code, 0, err)
        found = self.figures()
        self.assertEqual((found["overall"]["right"], found["overall"]["photos"]), (2, 3))
        self.assertEqual(found["overall"]["interval_95"], list(measures.Proportion(2, 3).interval))
        counts = np.array(found["confusion_matrix"]["counts"])
        self.assertEqual([counts[7, 7], counts[7, 3], counts[3, 3], counts.sum()], [1, 1, 1, 3])
        self.assertEqual({name: one["photos"] for name, one in found["by_source"].items()}, {"studio": 2, "unknown": 1})
        self.assertEqual([Path(row["photo"]).name for row in found["mistakes"]], ["2.jpg"])
        self.assertEqual(list(found["refused"].values()), ["The picture is broken."])
        self.assertEqual(found["flagged"]["right"], 3)
        self.assertEqual(found["second_looks"], 1.0)
        for words in ("66.67%", "The picture is broken.", "birds, version 4"):
            self.assertIn(words, out)
        self.assertIn("6 of 8 classes have no photos", err)
        with service() as url:
            self.run_evaluate("--url", url, "--threshold", 0.3, "--json", self.report)
        self.assertEqual(self.figures()["flagged"]["right"], 0)

    def test_what_is_wrong_is_said_in_one_line(self) -> None:
        self.photo("bird 1/1.jpg", b"crash")
        with service() as url:
            cases: dict[str, list[object]] = {
                "No model.": ["--url", url],
                "serves birds, not CAT-DOG": ["--url", url, "--model", "CAT-DOG"],
                "no service at http://127.0.0.1:9": ["--url", "http://127.0.0.1:9"],
                "there are: CAT-DOG": ["--model", "nothing"],
                "say what to measure": [],
                "none.csv": ["--url", url, "--index", self.folder / "none.csv"],
                "--url localhost:43000: begin with http:// or https://": ["--url", "localhost:43000"],
                "there is no folder": ["--url", url, "--json", self.folder / "none" / "figures.json"],
            }
            for words, arguments in cases.items():
                with self.subTest(words):
                    code, _, err = self.run_evaluate(*arguments)
                    self.assertEqual(code, 2)
                    self.assertIn(words, err.splitlines()[-1])

    def test_a_version_that_changes_meanwhile_ends_the_run(self) -> None:
        self.photo("bird 1/1.jpg", b"\x01\x05")
        with service() as url:
            code, _, err = self.run_evaluate("--url", url)
        self.assertEqual(code, 2)
        self.assertIn("the service changed from version 4 to 5", err)

    def test_the_key_of_the_environment_is_sent(self) -> None:
        with patch.dict("os.environ", {"CATDOG_API_KEY": "secret"}), service() as url:
            predictor = service_predictor.ServicePredictor(url)
        self.assertEqual(predictor._client._headers["Authorization"], "Bearer secret")


class VersionTest(Scratch):
    """A model of three birds, whose classes are the colours of a photo."""

    def setUp(self) -> None:
        super().setUp()
        self.models = self.scratch / "models"
        self.version = self.models / "birds" / "1"
        tiny_models.write_model(self.version, BIRDS, (0, 1, 2), float_input=True)

    def run_birds(self, *arguments: object) -> tuple[int, str, str]:
        return self.run_evaluate("--models", self.models, "--json", self.report, *arguments)

    def photos(self) -> None:
        self.coloured("great_tit/1.png", "red")
        # macOS has other bytes for ü, and a photo needs no suffix.
        self.coloured(unicodedata.normalize("NFD", "grünfink") + "/in/2", "green")
        self.coloured("Wren/3.png", "green")

    def test_any_labels_are_measured(self) -> None:
        self.photos()
        code, out, err = self.run_birds("--model", "birds")
        self.assertEqual(code, 0, err)
        found = self.figures()
        self.assertEqual(found["labels"], list(BIRDS))
        self.assertEqual(found["confusion_matrix"]["counts"], [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
        self.assertEqual((found["mistakes"][0]["actual"], found["mistakes"][0]["predicted"]), ("wren", "Grünfink"))
        self.assertIsNone(found["flagged"])
        self.assertIn("birds, version 1: 3 classes", out)

    def test_a_network_in_openvinos_own_format_is_measured(self) -> None:
        self.photos()
        openvino = openvino_engine.import_openvino()
        network = openvino.Core().read_model(str(self.version))
        (self.version / "openvino").mkdir()
        openvino.save_model(network, str(self.version / "openvino" / "model.xml"), compress_to_fp16=False)
        # The graph is not read any more.
        tiny_models.write_graph(self.version, 3, (2, 2, 2), 16, float_input=True)
        code, _, err = self.run_birds("--model", self.version)
        self.assertEqual(code, 0, err)
        self.assertEqual(self.figures()["confusion_matrix"]["counts"], [[1, 0, 0], [0, 1, 0], [0, 1, 0]])

    def test_the_newest_version_is_measured_unless_another_is_named(self) -> None:
        self.photos()
        tiny_models.write_model(self.models / "birds" / "12", BIRDS, (0, 2, 1), float_input=True)
        for name, right in (("birds", 2), ("birds/1", 2), (self.models / "birds" / "12", 2)):
            with self.subTest(name):
                self.assertEqual(self.run_birds("--model", name)[0], 0)
                found = self.figures()
                self.assertEqual(found["overall"]["right"], right)
                self.assertIn("version 1:" if name == "birds/1" else "version 12:", found["model"] + ":")

    def test_what_is_not_there_is_said(self) -> None:
        self.photos()
        nothing = self.scratch / "nothing"
        for words, arguments in {
            "the model 'birds' has no version 9; there are: 1": ["--model", "birds/9"],
            f"{nothing}: no such folder": ["--model", "birds", "--neither", nothing],
        }.items():
            code, _, err = self.run_birds(*arguments)
            self.assertEqual((code, err.count("\n")), (2, 1), err)
            self.assertIn(words, err)

    def test_pictures_are_drawn(self) -> None:
        self.photos()
        code, _, err = self.run_birds("--model", "birds", "--pictures", self.scratch / "pictures")
        self.assertEqual(code, 0, err)
        for name in ("confusion.png", "reliability.png", "mistakes.jpg"):
            with Image.open(self.scratch / "pictures" / name) as picture:
                self.assertGreater(picture.width, 100)

    def test_what_is_wrong_with_the_model_is_said(self) -> None:
        self.photos()
        graph = self.version / "saved_model.pb"
        labels = self.version / "assets.extra" / "labels.txt"
        wrong: dict[str, Callable[[], object]] = {
            "saved_model.pb": lambda: graph.write_bytes(b"no graph"),
            "its recipe makes [?, 16, 16, 3]": lambda: tiny_models.write_graph(self.version, 3, (0, 1, 2), 24),
            "gives 2 values": lambda: tiny_models.write_graph(self.version, 2, (0, 1), 16),
            "not a probability distribution": lambda: tiny_models.write_graph(
                self.version, 3, (0, 1, 2), 16, activation="Identity"
            ),
            "labels must differ": lambda: labels.write_text("wren\nwren\n"),
            "has no valid recipe": labels.unlink,
        }
        for words, change in wrong.items():
            with self.subTest(words):
                change()
                code, _, err = self.run_birds("--model", "birds")
                self.assertEqual((code, err.count("\n"), words in err), (2, 1, True), err)

    def test_a_folder_of_no_class_is_named_with_what_it_may_mean(self) -> None:
        self.photos()
        self.coloured("great tits/1.png", "blue")
        code, _, err = self.run_birds("--model", "birds")
        self.assertEqual(code, 2)
        self.assertIn("no class 'great tits'. Did you mean 'great tit'?", err)
        code, _, err = self.run_birds("--model", "birds", "--skip-others")
        self.assertEqual(code, 0)
        self.assertIn("left out: 'great tits'", err)
        self.assertEqual(self.figures()["overall"]["photos"], 3)

    def test_photos_that_cant_be_read_are_counted_and_named(self) -> None:
        self.photos()
        self.photo("Wren/torn.jpg", b"\xff\xd8\xff and then nothing")
        self.photo("Wren/large.jpg", b"\xff\xd8\xff" + bytes(21_000_000))
        code, out, err = self.run_birds("--model", "birds")
        self.assertEqual(code, 0, err)
        reasons = {Path(name).name: reason for name, reason in self.figures()["refused"].items()}
        self.assertEqual(set(reasons), {"torn.jpg", "large.jpg"})
        self.assertIn("20 MB", reasons["large.jpg"])
        self.assertIn("torn.jpg", out)


class CatDogTest(Scratch):
    def test_shipped_model_is_right_on_the_photos_of_this_project(self) -> None:
        for path in sorted(IMAGES.glob("*_?.jpg")):
            # One photo is in the wrong folder, so that there is a mistake.
            self.photo(f"{'dog' if path.stem == 'cat_1' else path.stem[:3]}/{path.name}", path.read_bytes())
        neither = self.scratch / "neither"
        (neither / "grey").mkdir(parents=True)
        Image.new("RGB", (300, 200), (127, 120, 90)).save(neither / "grey" / "1.png")
        code, out, err = self.run_evaluate("--model", MODEL, "--neither", neither, "--json", self.report)
        self.assertEqual(code, 0, err)
        found = self.figures()
        self.assertEqual(found["confusion_matrix"]["counts"], [[1, 0], [1, 2]])
        self.assertEqual(found["neither"]["auroc_without_lookalikes"], 1.0)
        self.assertEqual(found["neither"]["by_group"]["grey"]["photos"], 1)
        self.assertEqual(found["flagged"]["right"], 0)
        self.assertIn("expected calibration error", out)

    def test_a_second_look_is_taken_where_the_recipe_asks_for_it(self) -> None:
        recipe = read_recipe(MODEL)
        config = recipe.preprocessor_config.model_dump() | {"second_look": {"max_confidence": 1.0}}
        always = parse_recipe({"preprocessor_config": config, "labels": recipe.labels})
        photo = IMAGES / "dog_2.jpg"
        predictor = VersionPredictor(MODEL, always)
        once, twice = predictor.look(photo.read_bytes()), predictor(photo)
        self.assertEqual(twice.looks, 2)
        self.assertGreater(float(np.abs([*once.probabilities.values()] - twice.probabilities).max()), 0)
        self.assertEqual(once.domain_score, twice.domain)
        predictor.max_looks = 1
        self.assertEqual(predictor(photo).looks, 1)


class QuietTest(Scratch):
    def test_warnings_about_large_pictures_are_hidden_in_threads_too(self) -> None:
        self.coloured("a.png", "red")
        data = (self.folder / "a.png").read_bytes()
        with (
            patch.object(Image, "MAX_IMAGE_PIXELS", 1000),
            contextlib.redirect_stderr(io.StringIO()) as err,
            quiet(),
            ThreadPoolExecutor(1) as pool,
        ):
            pixel = pool.submit(lambda: Image.open(io.BytesIO(data)).getpixel((0, 0))).result()
        self.assertEqual((pixel, err.getvalue()), (COLOURS["red"], ""))


class FoldersTest(Scratch):
    def test_names_are_matched_exactly_first(self) -> None:
        labels = ["Cat", "cat", "sea lion", "a-b"]
        found = labelled.match_folders(["cat", "Cat", "Sea_Lion", "A B", "x"], labels)
        self.assertEqual(found, {"cat": 1, "Cat": 0, "Sea_Lion": 2, "A B": 3, "x": None})

    def test_what_can_be_read_in_two_ways_is_refused(self) -> None:
        with self.assertRaisesRegex(PhotosError, "may be one of 'a b', 'a_b'"):
            labelled.match_folders(["A-B"], ["a b", "a_b"])
        with self.assertRaisesRegex(PhotosError, "both of the class 'a b'"):
            labelled.match_folders(["a_b", "a b"], ["a b", "c"])

    def test_of_train_and_val_only_val_is_used(self) -> None:
        for name in ("train/a", "val/a", "val/b"):
            self.coloured(f"{name}/1.png", "red")
        found = labelled.find_labelled(self.folder, ["a", "b"])
        self.assertEqual({photo.path.parent.parent.name for photo in found.photos}, {"val"})
        self.assertIn("only val/ is used", found.notes[0])

    def test_a_folder_around_the_folders_is_told(self) -> None:
        self.coloured("inner/a/1.png", "red")
        with self.assertRaisesRegex(PhotosError, "Did you mean .*inner"):
            labelled.find_labelled(self.folder, ["a", "b"])

    def test_photos_of_other_things_are_grouped_by_folder(self) -> None:
        for name in ("people/1.png", "2.png"):
            self.coloured(name, "red")
        found = labelled.find_others(self.folder).photos
        self.assertEqual(sorted(photo.source for photo in found), ["people", "photos"])


if __name__ == "__main__":
    unittest.main()
