"""Tests the pages of the course, and the link to them, in a real browser."""

import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from preprocess_service.app import app_server, config
from preprocess_service.app.api.course import site
from unit_test.preprocess_service.app_server_test import FakeRunner
from unit_test.preprocess_service.course_pages_test import write_course
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.page_browser import Visit, browser

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
COMMAND = "python run.py serve <now> & a line"


class CourseBrowserTest(unittest.TestCase):
    browser: Any
    url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.browser = cls.enterClassContext(browser())
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        write_course(folder)
        cls.url = cls.serve(folder)

    @classmethod
    def serve(cls, folder: Path) -> str:
        with mock.patch.object(site, "FOLDER", folder):
            app = app_server.create_app(config.load_config({"SERVICE_ROOT_PATH": "/pets"}), FakeRunner())
        return f"{cls.enterClassContext(serving(app))}/pets"

    def visit(self, path: str = "", **settings: Any) -> Visit:
        """Open the service's page, then a path below it. At the end the browser must have no complaint."""
        visit = Visit(self.browser, f"{self.url}/", **settings)
        self.addCleanup(visit.close)
        self.addCleanup(lambda: self.assertEqual(visit.complaints, []))
        if path:
            visit.page.goto(f"{self.url}/{path}")
        return visit

    def test_the_page_leads_to_the_course_in_its_own_language(self) -> None:
        visit = self.visit(locale="pt-BR")
        for words, path in (("Curso: monte este serviço", "pt"), ("Course: build this service", "en")):
            visit.page.get_by_role("contentinfo").get_by_role("link", name=words).click()
            visit.page.wait_for_url(f"{self.url}/course/{path}/")
            visit.page.get_by_role("link", name={"pt": "Página do serviço", "en": "The service's page"}[path]).click()
            visit.page.wait_for_url(f"{self.url}/")
            if path == "pt":
                visit.page.get_by_role("button", name="English").click()

    def test_a_chapter_leads_to_its_other_language_and_shows_its_pictures(self) -> None:
        visit = self.visit("course/pt/")
        visit.page.get_by_role("link", name="O microsserviço").click()
        picture = visit.page.get_by_role("img", name="A diagram")
        self.assertTrue(picture.evaluate("image => image.complete && image.naturalWidth > 0"))
        visit.page.get_by_role("link", name="English").click()
        visit.page.wait_for_url(f"{self.url}/course/en/01_a.md")
        visit.page.get_by_text("1. Why <so>?").click()
        visit.page.get_by_text("Because so.").wait_for()

    def test_a_block_of_code_is_copied_by_keyboard(self) -> None:
        for language, words, done in (("pt", "Copiar", "Copiado"), ("en", "Copy", "Copied")):
            visit = self.visit(f"course/{language}/01_a.md", permissions=["clipboard-read", "clipboard-write"])
            button = visit.page.get_by_role("button", name=words)
            button.focus()
            visit.page.keyboard.press("Enter")
            visit.page.get_by_role("status").get_by_text(done).wait_for()
            copied = visit.page.evaluate("navigator.clipboard.readText()")
            self.assertTrue(copied.startswith(COMMAND) and copied.endswith("end\n"), copied)
            # The button offers it again.
            visit.page.get_by_role("button", name=words, exact=True).wait_for()

    def test_where_the_browser_forbids_to_copy_the_code_is_selected(self) -> None:
        visit = self.visit("course/en/01_a.md")
        visit.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        visit.page.get_by_role("button", name="Copy").click()
        visit.page.get_by_role("status").get_by_text("press Ctrl+C").wait_for()
        self.assertTrue(visit.page.evaluate("String(getSelection())").startswith(COMMAND))

    def test_it_can_be_read_without_the_script(self) -> None:
        context = self.browser.new_context(java_script_enabled=False, locale="pt-BR")
        self.addCleanup(context.close)
        page = context.new_page()
        page.goto(f"{self.url}/")
        page.locator("#course").click()
        page.wait_for_url(f"{self.url}/course/pt/")
        page.get_by_role("link", name="O microsserviço").click()
        page.get_by_text(COMMAND).wait_for()
        self.assertEqual(page.get_by_role("button").count(), 0)

    def test_axe_finds_nothing_in_any_colour_or_width_and_the_page_is_never_wider_than_the_window(self) -> None:
        for settings in ({}, {"color_scheme": "dark"}, PHONE, {**PHONE, "color_scheme": "dark"}):
            for path in ("course/pt/", "course/pt/01_a.md", "course/en/01_a.md"):
                with self.subTest(path, **settings):
                    visit = self.visit(path, **settings)
                    visit.page.locator("details").evaluate_all("all => all.forEach((it) => (it.open = true))")
                    self.assertEqual(visit.violations(), [])
                    self.assertLessEqual(*visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]"))

    def test_code_and_tables_that_are_too_wide_are_scrolled_by_keyboard(self) -> None:
        visit = self.visit("course/en/01_a.md", **PHONE)
        for name in ("pre", ".wide"):
            box = visit.page.locator(name).first
            self.assertGreater(*box.evaluate("it => [it.scrollWidth, it.clientWidth]"))
            box.focus()
            visit.page.keyboard.press("ArrowRight")
            visit.page.wait_for_function("name => document.querySelector(name).scrollLeft > 0", arg=name)


if __name__ == "__main__":
    unittest.main()
