"""Tests the model card of a training run: its counts, figures, warnings, names and pictures."""

import re
import tempfile
import unittest
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
from markdown_it import MarkdownIt
from PIL import Image

from tools.evaluation.measures import Proportion
from tools.evaluation.photos import Photo
from tools.evaluation.report import markdown, pictures
from tools.evaluation.report.results import Results
from tools.training import model_card
from tools.training.run import FalseAlarms, Head, Part, Run

LABELS = ("great tit", "blåmes | <b>x</b> $a$ `b` [c](d) *e* & very " + "long " * 30, "鳥 _f_")


class Score:
    threshold = 0.5
    false_alarms = FalseAlarms(0.02, 0.003, 0.0504)


def part(folder: Path, classes: Sequence[int]) -> Part:
    photos = [Photo(folder / f"{number}.jpg", label, "unknown") for number, label in enumerate(classes)]
    return Part(photos, np.zeros((len(photos), 1, 2), np.float16), np.arange(len(photos)))


def logits(answers: Sequence[int], classes: int, size: float = 3.0) -> np.ndarray:
    found = np.zeros((len(answers), classes), np.float32)
    found[np.arange(len(answers)), list(answers)] = size
    return found


def made_run(folder: Path, each: int = 60, labels: tuple[str, ...] = LABELS) -> Run:
    """A run with `each` training photos in a class, and one mistake on four photos of validation in each class."""
    classes = len(labels)
    training = part(folder, [number for number in range(classes) for _ in range(each)])
    validation = part(folder, [number for number in range(classes) for _ in range(4)])
    answers = validation.classes.copy()
    answers[::4] = (answers[::4] + 1) % classes
    powers = np.exp(logits(answers.tolist(), classes))
    return Run(
        name="birds",
        version=3,
        command="python run.py train photos/ --name birds",
        evaluation="python run.py evaluate PHOTOS --model birds",
        data=folder,
        seed=5,
        labels=labels,
        notes=("a note", f"a copy: {folder / '2.jpg'}"),
        broken={str(folder / "torn|1.jpg"): "It is broken."},
        recipe={},
        training=training,
        validation=validation,
        head=Head(
            np.zeros((2, classes), np.float32),
            np.zeros(classes, np.float32),
            0.1,
            1.2,
            logits(training.classes.tolist(), classes),
        ),
        domain=Score(),  # type: ignore[arg-type]  # the card needs no more of it
        probabilities=(powers / powers.sum(1, keepdims=True)).astype(np.float32),
        domain_scores=np.linspace(0, 1, len(validation.photos), dtype=np.float32),
        seconds=40,
    )


def tables(card: str) -> list[list[list[str]]]:
    """Return the cells of each table of a card, as text, as a renderer of Markdown shows them."""
    html = MarkdownIt("commonmark").enable("table").render(card)
    rows = [
        [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)]
        for found in re.findall(r"<table>(.*?)</table>", html, re.DOTALL)
    ]
    return [[[unescape(cell) for cell in row] for row in table] for table in rows]


class CardTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def test_every_class_has_its_counts_and_its_figures(self) -> None:
        classes, *_ = tables(model_card.card(made_run(self.folder)))
        low, high = (100 * end for end in Proportion(3, 4).interval)
        self.assertEqual(classes[1][:6], ["0", "great tit", "60", "4", "75.0 %", f"{low:.1f} to {high:.1f} %"])
        self.assertEqual([row[6] for row in classes[1:]], ["100.0 %"] * 4)
        self.assertEqual(classes[4][2:5], ["180", "12", "75.0 %"])

    def test_names_are_text_whatever_they_contain(self) -> None:
        card = model_card.card(made_run(self.folder))
        classes, confusions, _, mistakes = tables(card)
        for row, label in zip(classes[1:], LABELS, strict=False):
            # Markup would be left in the cell as tags, or be missing from it.
            self.assertEqual(row[1].rstrip("…"), markdown.short(label, 80).rstrip("…"))
        self.assertEqual([len(row) for row in confusions], [3] * 4)
        # The photos of training are counted too: all of them are right.
        self.assertEqual([row[2] for row in confusions[1:]], ["1 of 64"] * 3)
        self.assertEqual((mistakes[1][1], mistakes[1][5]), ("0.jpg", "validation"))
        self.assertIn("torn&#124;1.jpg", card)
        self.assertIn("- a copy: 2.jpg", card)
        self.assertNotIn(str(self.folder), card)

    def test_few_photos_are_told_first(self) -> None:
        few = model_card.card(made_run(self.folder, each=20))
        first = few.partition("## How far to trust it")[2].split("\n- ")[1]
        self.assertIn("**Few photos.** The model learned from fewer than 50 photos of each class.", first)
        self.assertIn("This figure is rough", few)
        self.assertNotIn("Few photos", model_card.card(made_run(self.folder)))

    def test_the_interval_is_that_of_the_true_rate_and_a_large_calibration_error_has_a_direction(self) -> None:
        run = made_run(self.folder)
        low, high = (100 * end for end in Proportion(9, 12).interval)
        card = model_card.card(run)
        self.assertIn(f"Of many more photos like these, probably {low:.0f} to {high:.0f} % would be right", card)
        self.assertIn("the model is too sure: its mean confidence is 90.9 %, and 75.0 % of its answers", card)
        powers = np.exp(np.log(run.probabilities) * 0.2)
        careful = replace(run, probabilities=(powers / powers.sum(1, keepdims=True)).astype(np.float32))
        self.assertIn("the model is too careful: its mean", model_card.card(careful))
        at_75 = np.full_like(run.probabilities, 0.125)
        at_75[np.arange(len(at_75)), run.probabilities.argmax(1)] = 0.75
        self.assertNotIn("the model is too", model_card.card(replace(run, probabilities=at_75)))

    def test_names_are_escaped_only_where_markdown_would_read_them(self) -> None:
        for plain in ("Marks & Spencer", "AT&T", "great_tit", "a__b", "a _ b", "a __ b", "tits_", "a_, b_"):
            self.assertEqual(markdown.text(plain), plain)
        for name in ("&lt;", "_a_", "__init__", "_a", "_a, b_", "x _b_ c", "(_a_)"):
            with self.subTest(name):
                html = MarkdownIt("commonmark").renderInline(markdown.text(name))
                self.assertEqual(unescape(html), name)

    def test_the_command_and_what_it_takes_to_measure_again_are_there(self) -> None:
        card = model_card.card(replace(made_run(self.folder), command="python run.py train 'a```  b' --name birds"))
        blocks = re.findall(r"<pre><code>(.*?)\n</code>", MarkdownIt("commonmark").render(card), re.DOTALL)
        self.assertEqual(unescape(blocks[0]), "python run.py train 'a```  b' --name birds")
        self.assertIn("python run.py evaluate PHOTOS --model birds", blocks)

    def test_a_class_that_is_clearly_worse_is_named(self) -> None:
        run = made_run(self.folder)
        held_out = run.head.held_out.copy()
        held_out[:40] = logits([2] * 40, 3)
        card = model_card.card(replace(run, head=replace(run.head, held_out=held_out)))
        self.assertIn("Weakest, by cross-validation: great tit (33.3 %).", card)
        _, confusions, _, mistakes = tables(card)
        self.assertEqual(confusions[1][2], "40 of 64")
        self.assertEqual(mistakes[-1][5], "training")
        self.assertNotIn("Weakest", model_card.card(run))

    def test_false_alarms_of_the_domain_score_are_told(self) -> None:
        run = made_run(self.folder)
        card = model_card.card(run)
        self.assertIn("about 2.0 % of other photos like these; the 95 % interval is 0.3 to 5.0 %", card)
        self.assertIn("it happens to 6 of 12.", card)
        without = model_card.card(replace(run, domain=None, domain_scores=None))
        self.assertIn("This model has no domain score", without)

    def test_the_pictures_are_written_and_every_link_leads_to_one(self) -> None:
        run = made_run(self.folder)
        Image.new("RGB", (300, 200), "orange").save(self.folder / "0.jpg")
        model_card.write_card(self.folder, run)
        card = (self.folder / "MODEL_CARD.md").read_text("utf-8")
        links = re.findall(r"!\[[^]]*\]\(([^)]*)\)", card)
        self.assertEqual(links, ["card/confusion.png", "card/reliability.png", "card/mistakes.jpg"])
        for link in links:
            with self.subTest(link), Image.open(self.folder / link) as picture:
                self.assertGreater(picture.width, 300)
        with Image.open(self.folder / "card/mistakes.jpg") as sheet:
            red, _, blue = sheet.convert("RGB").getpixel((100, 100))  # type: ignore[misc]  # three numbers
            self.assertGreater(red - blue, 200)
            # The files of the other mistakes are gone.
            self.assertEqual(len(set(sheet.convert("RGB").getpixel((300, 100)))), 1)  # type: ignore[arg-type]

    def test_without_a_mistake_there_is_no_contact_sheet(self) -> None:
        run = made_run(self.folder)
        right = replace(run, probabilities=logits(run.validation.classes.tolist(), 3, 1.0))
        model_card.write_card(self.folder, right)
        self.assertFalse((self.folder / "card" / "mistakes.jpg").exists())
        self.assertNotIn("mistakes.jpg", (self.folder / "MODEL_CARD.md").read_text("utf-8"))


class PicturesTest(unittest.TestCase):
    def test_a_single_mistake_can_be_seen_among_200_classes(self) -> None:
        classes = 200
        actual = [number for number in range(classes) for _ in range(20)]
        answers = [*actual]
        answers[20 * 30] = 150
        photos = [Photo(Path("none"), label, "") for label in actual]
        results = Results(tuple(f"name {n}" for n in range(classes)), photos, logits(answers, classes, 1.0))
        with tempfile.TemporaryDirectory() as name:
            pictures.draw_confusion(results, Path(name) / "matrix.png")
            with Image.open(Path(name) / "matrix.png") as picture:
                self.assertLess(picture.width, 2000)
                pixels = np.asarray(picture.convert("RGB")).astype(int)
        # More red than blue.
        self.assertGreater(int((pixels[..., 0] - pixels[..., 2] > 40).sum()), 9)

    def test_a_character_that_the_font_lacks_is_a_box(self) -> None:
        self.assertEqual(pictures.drawable("Ö 鳥 я"), "Ö □ я")

    def test_candidates_are_drawn(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            pictures.draw_pareto([("one", 1.0, 96.0)], Path(name) / "pareto.png")
            with Image.open(Path(name) / "pareto.png") as picture:
                self.assertGreater(picture.width, 100)

    def test_a_caption_fits_its_photo(self) -> None:
        shown = pictures.fitted("x" * 500, lambda name: 10.0 * len(name))
        self.assertEqual(len(shown), 19)
        self.assertTrue(shown.endswith("…"))


class ResultsTest(unittest.TestCase):
    def test_figures_are_counted(self) -> None:
        photos = [Photo(Path("none"), label, "a") for label in (0, 0, 0, 2)]
        found = Results(("a", "b", "c"), photos, np.eye(3, dtype=np.float32)[[0, 1, 1, 2]] * 0.6)
        self.assertEqual([(one.right, one.total) for one in found.by_class()], [(1, 3), (0, 0), (1, 1)])
        (only,) = found.confusions(5)
        self.assertEqual((only.actual, only.predicted, only.count, only.total), (0, 1, 2, 3))
        self.assertEqual(found.mistakes(), [1, 2])
        self.assertEqual(found.above(0.7).total, 0)
        self.assertEqual(found.by_source(), {})


if __name__ == "__main__":
    unittest.main()
