"""The page for a model of one's own: its name, its labels and its golden photos, and no word of cats and dogs.

The model is as attentive to a place as it is bright, so a test knows where the page must show that it looked.
"""

import io
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

from tools.model_folder import GoldenPhoto
from unit_test import processes, tiny_models
from unit_test.preprocess_service.hot_swap_test import PHOTOS, open_service
from unit_test.preprocess_service.page_browser import Visit, browser
from unit_test.utils import IMAGES

# Of each colour as many, so that the first one is the answer.
LABELS = [f"thing <b>{number}</b>" for number in range(1000)]
PHONE = {"viewport": {"width": 375, "height": 700}}
# The model's input, and its rows and columns of places.
SIZE, PLACES = 32, 8
# The sides of a second look's box, as shares of those of the first look.
BOX = 0.4
ORIENTATION = 0x0112


def spot_photo(width: int, height: int, row: int, column: int, format: str = "JPEG", orientation: int = 1) -> bytes:
    """Return a black photo that is white at one place of the centre's square, which is what the model sees.

    Args:
        width, height: of the photo as it is shown.
        orientation: 6: the file's pixels lie on their left side.
    """
    place = min(width, height) // PLACES
    left, top = ((side - PLACES * place) // 2 for side in (width, height))
    image = Image.new("RGB", (width, height))
    image.paste(
        (255, 255, 255),
        (left + column * place, top + row * place, left + (column + 1) * place, top + (row + 1) * place),
    )
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    (image.rotate(90, expand=True) if orientation == 6 else image).save(stream, format, exif=exif)
    return stream.getvalue()


def bright_spot(picture: bytes) -> tuple[float, float, float, float]:
    """Return the edges of what is bright in a picture, leaving out its rim: left, top, right, bottom in pixels."""
    with Image.open(io.BytesIO(picture)) as image:
        levels = np.asarray(image.convert("RGB")).max(axis=2)[3:-3, 3:-3].astype(float)
    rows, columns = np.nonzero(levels > 0.7 * levels.max())
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


class OwnModelPageTest(unittest.TestCase):
    browser: Any
    url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.browser = cls.enterClassContext(browser())
        base = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        golden = GoldenPhoto("red one.jpg", PHOTOS["red"], {LABELS[0]: 1 / 334})
        colours = [number % 3 for number in range(len(LABELS))]
        # A photo of one colour has 1 / 334 as its highest probability, one without any colour has 1 / 1000.
        config = {"resize_mode": "crop", "second_look": {"max_confidence": 0.002, "min_side": BOX}}
        tiny_models.write_model(
            base / "1",
            LABELS,
            colours,
            SIZE,
            config,
            [golden, replace(golden, name="made_1.jpg")],
            places=PLACES,
        )
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

    def explained(self, visit: Visit, name: str, content: bytes) -> Any:
        """Return the card of a photo that shows where the model looked."""
        visit.choose({"name": name, "mimeType": "image/jpeg", "buffer": content})
        card = visit.card(name)
        card.get_by_role("switch").check()
        return card

    def test_the_map_lies_where_the_model_looked(self) -> None:
        visit = self.visit()
        for name, content in {
            "landscape.jpg": spot_photo(640, 400, 0, 0),
            "portrait.jpg": spot_photo(400, 640, 7, 7),
            "turned.jpg": spot_photo(400, 640, 0, 6, orientation=6),
            "wide.jpg": spot_photo(1000, 200, 3, 0),
            "as the preview.webp": spot_photo(400, 300, 6, 2, "WEBP"),
        }.items():
            with self.subTest(name):
                card = self.explained(visit, name, content)
                preview = card.locator(".preview")
                preview.locator("rect").evaluate_all("all => all.forEach((it) => (it.style.visibility = 'hidden'))")
                # Nothing else may be bright: neither the button nor what is around the card's round corners.
                card.evaluate("it => { it.style.borderRadius = 0; it.style.borderColor = '#000'; }")
                card.locator(".remove").evaluate("it => it.style.visibility = 'hidden'")
                preview.evaluate("async (it) => { it.style.background = '#000'; await it.firstChild.decode(); }")
                found = []
                for shown, hidden in (("img", ".map"), (".map", "img")):
                    preview.locator(shown).evaluate("it => it.style.visibility = 'visible'")
                    preview.locator(hidden).evaluate("it => it.style.visibility = 'hidden'")
                    found.append(bright_spot(preview.screenshot()))
                spot, light = found
                # The map is smooth: its light is narrower than the place, but around its centre.
                place = spot[2] - spot[0]
                self.assertTrue(5 < place < 50, place)
                for edge in range(4):
                    self.assertAlmostEqual(light[edge], spot[edge], delta=0.45 * place)
                # The second look: around the place, within what the first look shows.
                edges = """(it) => {
                    const from = it.closest(".preview").getBoundingClientRect();
                    const { left, top, right, bottom } = it.getBoundingClientRect();
                    return [left - from.left, top - from.top, right - from.left, bottom - from.top];
                }"""
                seen = preview.locator(".map image").evaluate(edges)
                box = preview.locator(".map .second-look").evaluate(edges)
                for axis in (0, 1):
                    self.assertAlmostEqual(box[axis + 2] - box[axis], BOX * (seen[axis + 2] - seen[axis]), delta=1)
                    self.assertGreater(box[axis], seen[axis] - 1)
                    self.assertLess(box[axis + 2], seen[axis + 2] + 1)
                    self.assertTrue(box[axis] < (spot[axis] + spot[axis + 2]) / 2 < box[axis + 2])

    def test_the_words_say_where_it_looked(self) -> None:
        visit = self.visit()
        card = self.explained(visit, "spot.jpg", spot_photo(400, 300, 7, 7))
        self.assertEqual(card.get_by_role("switch", name="Where the model looked").count(), 1)
        status = card.get_by_role("status")
        self.assertEqual(
            status.inner_text(), "Brightest: lower right. The frame is its second, closer look: lower right."
        )
        card.get_by_text("The model was not sure, so it looked again, closer.").wait_for()
        visit.page.get_by_role("button", name="Português").click()
        switch = visit.card("spot.jpg").get_by_role("switch", name="Para onde o modelo olhou")
        self.assertTrue(switch.is_checked())
        sample = visit.page.locator("[data-golden] img").first
        self.assertEqual(sample.get_attribute("alt"), "Foto de exemplo red one.jpg")
        self.assertIn("Lugar mais claro: no canto inferior direito. A moldura mostra", status.inner_text())
        visit.card("spot.jpg").get_by_text("olhou de novo, mais de perto.").wait_for()
        switch.uncheck()
        self.assertIn("algo que o modelo conhece", status.inner_text())
        red = self.explained(visit, "red.jpg", PHOTOS["red"])
        self.assertNotIn("moldura", red.get_by_role("status").inner_text())
        self.assertEqual(red.get_by_text("de novo").or_(red.locator(".second-look")).count(), 0)
        black = self.explained(self.visit(), "black.jpg", spot_photo(400, 300, 20, 20))
        self.assertIn("Nowhere does it look like", black.get_by_role("status").inner_text())

    def test_the_switch_works_by_keyboard_and_moves_nothing(self) -> None:
        # In Portuguese, the words that say where it looked take one line more than those that say what it shows.
        for settings in ({}, {**PHONE, "locale": "pt-BR"}):
            visit = self.visit(**settings)
            visit.choose({"name": "spot.jpg", "mimeType": "image/jpeg", "buffer": spot_photo(300, 500, 1, 1)})
            card = visit.card("spot.jpg")
            switch = card.get_by_role("switch")
            card.locator(".remove").focus()
            while not switch.evaluate("it => it === document.activeElement"):
                visit.page.keyboard.press("Tab")
            size = "it => [...it.querySelectorAll('*')].map((one) => one.getBoundingClientRect().top)"
            before = card.locator(".card-body").evaluate(size)
            visit.page.keyboard.press("Space")
            card.locator(".map").wait_for()
            self.assertEqual(card.locator(".card-body").evaluate(size), before)
            self.assertEqual(visit.violations(), [])
            visit.page.keyboard.press("Space")
            card.locator(".map").wait_for(state="detached")

    def test_without_a_preview_the_map_is_shown_in_the_shape_of_the_photo(self) -> None:
        visit = self.visit()
        card = self.explained(visit, "spot.tif", spot_photo(600, 300, 0, 0, "TIFF"))
        frame = card.locator(".map .photo").bounding_box()
        assert frame is not None
        self.assertAlmostEqual(frame["width"] / frame["height"], 2, 1)
        self.assertTrue(card.locator(".map image").is_visible())
        visit.page.get_by_role("button", name="Português").click()
        visit.card("spot.tif").locator(".map").wait_for()
        visit.card("spot.tif").get_by_role("switch").uncheck()
        self.assertIn("prévia", card.locator(".preview").inner_text())

    def test_a_photo_that_the_browser_does_not_turn_is_not_shown_below_the_map(self) -> None:
        # Chromium does not turn a WebP as its EXIF says. If it does one day, the map may lie over the photo.
        card = self.explained(self.visit(), "turned.webp", spot_photo(400, 640, 7, 7, "WEBP", orientation=6))
        shape = card.locator(".preview img").evaluate(
            "async (it) => (await it.decode(), it.naturalWidth / it.naturalHeight)"
        )
        self.assertEqual("alone" in (card.locator(".preview").get_attribute("class") or ""), shape > 1)
        self.assertEqual(card.get_by_text("Without the photo: this browser does not turn it").count(), int(shape > 1))
        self.assertIn("Brightest: lower right.", card.get_by_role("status").inner_text())

    def test_a_model_that_does_not_tell_has_no_switch(self) -> None:
        visit = self.visit()
        asked: list[str] = []
        visit.page.on("request", lambda request: asked.append(request.url))
        model = requests.get(f"{self.url}/model", timeout=30).json()
        self.assertTrue(model["attention"])
        visit.page.route("**/model", lambda route: route.fulfill(json={**model, "attention": False}))
        visit.page.reload()
        visit.choose(IMAGES / "cat_1.jpg")
        self.assertEqual(visit.card("cat_1.jpg").get_by_role("switch").count(), 0)
        self.assertNotIn("explain", " ".join(asked))
        # Another version of the model may tell no more.
        visit.page.unroute("**/model")
        visit.page.reload()
        refusal = {"status": "Failed", "msg": "?", "code": "no_explanation", "request_id": "1"}
        visit.page.route("**/predict?*explain=true", lambda route: route.fulfill(status=400, json=refusal))
        visit.choose(IMAGES / "cat_1.jpg")
        self.assertEqual(visit.card("cat_1.jpg").get_by_role("switch").count(), 0)
        self.assertTrue(visit.verdict("cat_1.jpg"))

    def test_a_photo_of_ones_own_is_answered(self) -> None:
        visit = self.visit()
        visit.choose(IMAGES / "cat_1.jpg")
        visit.card("cat_1.jpg")


if __name__ == "__main__":
    unittest.main()
