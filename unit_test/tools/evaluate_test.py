"""Tests the evaluation: its figures, and both ways to an answer, through a service and through a SavedModel."""

import base64
import contextlib
import io
import json
import shutil
import tempfile
import unittest
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.evaluation import evaluate, measures
from unit_test.tools.programs import PROJECT, answering_with, run_tool

IMAGES = PROJECT / "images"
MODEL = next((PROJECT / "prev_trained_models" / "CAT-DOG").glob("[0-9]*"))


class Service(BaseHTTPRequestHandler):
    """Answers like the preprocess service: DOG if the bytes say so, an error if there are no bytes."""

    def do_POST(self) -> None:
        data = base64.b64decode(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["image_b64"])
        if data == b"broken":
            self.answer(400, {"status": "Failed", "msg": "The picture is broken.", "code": "invalid_image"})
        elif data == b"crash":
            self.answer(503, {"status": "Failed", "msg": "No model.", "code": "model_unavailable"})
        else:
            dog = 0.9 if data == b"dog" else 0.2
            self.answer(200, {"pet_type": "DOG", "probabilities": {"CAT": 1 - dog, "DOG": dog}})

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


class EvaluateTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "photos"
        self.report = Path(scratch.name) / "report.json"
        for label in ("cat", "dog"):
            (self.folder / label).mkdir(parents=True)

    def photo(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def run_evaluate(self, *arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = evaluate.main([str(self.folder), *map(str, arguments)])
        return code, out.getvalue(), err.getvalue()

    def test_service_is_asked_for_every_photo_and_the_figures_are_written(self) -> None:
        for name, data in {"cat/1.jpg": b"cat", "cat/2.jpg": b"dog", "cat/3.jpg": b"cat", "dog/1.jpg": b"dog"}.items():
            self.photo(name, data)
        self.photo("dog/2.jpg", b"broken")
        (self.folder / "INDEX.csv").write_text("path,source\ncat/1.jpg,studio\ndog/1.jpg,studio\n", "utf-8")
        with service() as url:
            code, out, err = self.run_evaluate("--url", url, "--json", self.report)
        self.assertEqual(code, 0, err)
        found = json.loads(self.report.read_text("utf-8"))
        self.assertEqual((found["overall"]["right"], found["overall"]["photos"]), (3, 4))
        self.assertEqual(found["overall"]["interval_95"], list(measures.Proportion(3, 4).interval))
        self.assertEqual(found["confusion_matrix"]["counts"], [[2, 1], [0, 1]])
        self.assertEqual(
            {name: share["photos"] for name, share in found["by_source"].items()}, {"studio": 2, "unknown": 2}
        )
        self.assertEqual([Path(row["photo"]).name for row in found["mistakes"]], ["2.jpg"])
        self.assertEqual(list(found["refused"].values()), ["The picture is broken."])
        self.assertIn("75.00%", out)
        self.assertIn("The picture is broken.", out)

    def test_shipped_model_is_right_on_the_photos_of_this_project(self) -> None:
        for path in sorted(IMAGES.glob("*_?.jpg")):
            shutil.copy(path, self.folder / path.stem[:3])
        self.photo("dog/torn.jpg", b"\xff\xd8\xff and then nothing")
        code, _, err = self.run_evaluate("--model", MODEL, "--json", self.report)
        self.assertEqual(code, 0, err)
        found = json.loads(self.report.read_text("utf-8"))
        self.assertEqual(found["confusion_matrix"]["counts"], [[2, 0], [0, 2]])
        self.assertEqual([Path(name).name for name in found["refused"]], ["torn.jpg"])

    def test_neither_and_pictures_are_in_the_report(self) -> None:
        for path in sorted(IMAGES.glob("*_?.jpg")):
            # One photo is in the wrong folder, so that there is a mistake to draw.
            shutil.copy(path, self.folder / ("dog" if path.stem == "cat_1" else path.stem[:3]))
        neither, pictures = self.report.with_name("neither"), self.report.with_name("pictures")
        (neither / "grey").mkdir(parents=True)
        Image.new("RGB", (300, 200), (127, 120, 90)).save(neither / "grey" / "1.png")
        more = ["--neither", neither, "--pictures", pictures, "--json", self.report]
        done = run_tool("evaluation.evaluate", self.folder, "--model", MODEL, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(self.report.read_text("utf-8"))
        self.assertEqual(found["neither"]["auroc_without_lookalikes"], 1.0)
        self.assertEqual(found["neither"]["by_group"]["grey"]["photos"], 1)
        self.assertIn("expected calibration error", done.stdout)
        for name in ("reliability.png", "mistakes.jpg"):
            with Image.open(pictures / name) as picture:
                self.assertGreater(picture.width, 100)

    def test_what_is_wrong_is_said_in_one_line(self) -> None:
        self.photo("cat/1.jpg", b"cat")
        self.photo("dog/1.jpg", b"crash")
        empty = self.folder / "empty"
        for label in ("cat", "dog"):
            (empty / label).mkdir(parents=True)
        with service() as url:
            cases: dict[str, list[object]] = {
                "status 503": ["--url", url],
                "Connection refused": ["--url", "http://127.0.0.1:9"],
                "no SavedModel that OpenVINO reads": ["--model", self.folder],
                "can't be read": ["--model", MODEL, "--config", self.folder / "none.yaml"],
                "none.csv": ["--index", self.folder / "none.csv"],
            }
            for words, arguments in cases.items():
                with self.subTest(words):
                    code, _, err = self.run_evaluate(*arguments)
                    self.assertEqual(code, 2)
                    self.assertIn(words, err.splitlines()[-1])
        with self.subTest("no photos"), contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(evaluate.main([str(empty)]), 2)
        self.assertIn("the folder of class 'Cat' holds no photos", said.getvalue())

    def test_model_that_takes_other_pictures_than_the_recipe_makes_is_refused(self) -> None:
        for label in ("cat", "dog"):
            self.photo(f"{label}/1.jpg", b"any")
        config = self.report.with_name("preprocessor_config.json")
        config.write_text('{"size": {"height": 240, "width": 1240}}', "utf-8")
        code, _, err = self.run_evaluate("--model", MODEL, "--config", config)
        self.assertEqual(code, 2)
        self.assertIn("but the recipe makes pictures of", err)


if __name__ == "__main__":
    unittest.main()
