"""The page for a model of one's own: its name, its labels and its golden photos, and no word of cats and dogs."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from tools.model_folder import GoldenPhoto
from unit_test import processes, tiny_models
from unit_test.preprocess_service.hot_swap_test import PHOTOS, open_service
from unit_test.preprocess_service.page_browser import Visit, browser
from unit_test.utils import IMAGES

# Of each colour as many, so that the first one is the answer.
LABELS = [f"thing <b>{number}</b>" for number in range(1000)]
PHONE = {"viewport": {"width": 375, "height": 700}}


class OwnModelPageTest(unittest.TestCase):
    browser: Any
    url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.browser = cls.enterClassContext(browser())
        base = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        golden = GoldenPhoto("red one.jpg", PHOTOS["red"], {LABELS[0]: 1 / 334})
        colours = [number % 3 for number in range(len(LABELS))]
        tiny_models.write_model(base / "1", LABELS, colours, golden=[golden, replace(golden, name="made_1.jpg")])
        server = cls.enterClassContext(processes.model_server(base, "M"))
        cls.url = open_service(cls, server)

    def visit(self, **settings: Any) -> Visit:
        visit = Visit(self.browser, self.url, **settings)
        self.addCleanup(visit.close)
        self.addCleanup(lambda: self.assertEqual(visit.complaints, []))
        return visit

    def test_it_shows_the_models_name_its_labels_and_its_golden_photos(self) -> None:
        for locale, title, words in (
            ("en-US", "What is in the photo?", "and 985 more"),
            ("pt-BR", "O que há", "mais 985"),
        ):
            with self.subTest(locale):
                visit = self.visit(locale=locale)
                visit.page.locator("[data-golden]").wait_for()
                self.assertRegex(visit.page.title(), f"^M: {title}")
                text = visit.page.locator("body").inner_text()
                self.assertNotRegex(text, r"(?i)\b(cat|dog|gato|cachorro)s?\b")
                self.assertIn(words, text)
                self.assertEqual(visit.page.locator(".ear, .features, [data-sample]").count(), 0)
                self.assertEqual(visit.violations(), [])

    def test_of_a_thousand_labels_the_first_five_are_shown_and_more_behind_a_button(self) -> None:
        visit = self.visit(**PHONE)
        visit.page.locator("[data-golden]").click()
        card = visit.card("red one.jpg")
        self.assertEqual(visit.verdict("red one.jpg"), LABELS[0])
        self.assertEqual(card.locator(".bar:visible").count(), 5)
        self.assertEqual(visit.page.evaluate("document.documentElement.scrollWidth"), 375)
        card.get_by_role("button", name="Show 15 more labels of 1,000").click()
        self.assertEqual(card.locator(".bar:visible").count(), 20)
        self.assertEqual(visit.violations(), [])

    def test_an_answer_has_five_labels_and_a_batch_stays_small(self) -> None:
        answer = requests.post(
            f"{self.url}/predict?top_k=1000", data=PHOTOS["red"], headers={"Content-Type": "image/jpeg"}, timeout=30
        ).json()
        values = list(answer["probabilities"].values())
        self.assertEqual((len(values), values), (1000, sorted(values, reverse=True)))
        files = [("file", PHOTOS["blue"])] * 32
        batch = requests.post(f"{self.url}/predict/batch", files=files, timeout=60)
        self.assertEqual({len(one["probabilities"]) for one in batch.json()["predictions"]}, {5})
        self.assertLess(len(batch.content), 20_000)

    def test_golden_photos_and_the_documents_are_the_models_own(self) -> None:
        found = requests.get(f"{self.url}/model/golden/red%20one.jpg", timeout=30)
        self.assertEqual((found.content, found.headers["content-type"]), (PHOTOS["red"], "image/jpeg"))
        # A generated one is checked, but it is no sample.
        self.assertEqual(requests.get(f"{self.url}/model", timeout=30).json()["golden"], ["red one.jpg"])
        self.assertEqual(requests.get(f"{self.url}/model/golden/made_1.jpg", timeout=30).status_code, 200)
        self.assertEqual(requests.get(f"{self.url}/model/golden/other.jpg", timeout=30).status_code, 404)
        info = requests.get(f"{self.url}/openapi.json", timeout=30).json()["info"]
        self.assertEqual(info["title"], "M")
        self.assertNotRegex(info["description"], "(?i)cat|dog")

    def test_a_photo_of_ones_own_is_answered(self) -> None:
        visit = self.visit()
        visit.choose(IMAGES / "cat_1.jpg")
        visit.card("cat_1.jpg")


if __name__ == "__main__":
    unittest.main()
