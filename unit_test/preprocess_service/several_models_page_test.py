"""Tests the page of a service with two models in a browser: the choice, by keyboard and in both languages."""

import re
import unittest

from unit_test.preprocess_service.hot_swap_test import PHOTOS, open_service
from unit_test.preprocess_service.page_browser import Visit, browser
from unit_test.preprocess_service.several_models_pair_test import two_models


class SeveralModelsPageTest(unittest.TestCase):
    def test_the_model_is_chosen_by_keyboard_and_answers_the_photos(self) -> None:
        chromium = self.enterContext(browser())
        _, server = self.enterContext(two_models())
        url = open_service(self, server, "A,B")
        for locale, name in (("en-US", "Models"), ("pt-BR", "Modelos")):
            with self.subTest(locale):
                visit = Visit(chromium, url, locale=locale)
                page = visit.page
                choice = page.get_by_role("navigation", name=name)
                self.assertEqual(choice.locator("[aria-current=page]").inner_text(), "A")
                choice.get_by_role("link", name="B").focus()
                page.keyboard.press("Enter")
                page.wait_for_url(re.compile(r"\?model=B$"))
                page.get_by_text("green b").wait_for()
                self.assertEqual(choice.locator("[aria-current=page]").inner_text(), "B")
                self.assertRegex(page.locator("#model").inner_text(), "B.*1.*red b")
                photo = {"name": "blue.jpg", "mimeType": "image/jpeg", "buffer": PHOTOS["blue"]}
                page.locator("#files").set_input_files([photo])
                self.assertEqual(visit.verdict("blue.jpg"), "blue b")
                self.assertEqual(visit.violations(), [])
                self.assertEqual(visit.complaints, [])
                visit.close()


if __name__ == "__main__":
    unittest.main()
