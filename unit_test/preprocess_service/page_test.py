"""Tests the page at `/` in a real browser, with a real pair."""

import io
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import closing
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from preprocess_service.app import app_server, config, model_runner
from tools import page_picture
from tools.system_packages import why_skipped
from unit_test import processes
from unit_test.preprocess_service.http_server import serving
from unit_test.preprocess_service.page_browser import REPORT_VIOLATIONS, Browser, Visit, browser, photo
from unit_test.utils import IMAGES

MODEL = Path(__file__).parents[2] / "prev_trained_models" / "CAT-DOG"
TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"meow, said the dog"}
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
CAT = IMAGES / "cat_1.jpg"

# File names that are code in the page, a shell or a program. Each tries to make a file named `hacked`.
HOSTILE_NAMES = {
    "a shell's quote": "a'; touch hacked; '.jpg",
    "a shell's double quote": 'a"; touch hacked; ".jpg',
    "a shell's substitution": "$(touch hacked)`touch hacked`.jpg",
    "a shell's history": "a!!; touch hacked.jpg",
    "a new line": "a\ntouch hacked\n.jpg",
    "the end of a terminal's paste": "a\x1b[201~\ntouch hacked\n.jpg",
    "backslashes": "\\\\'\\\"; touch hacked #.jpg",
    "Python": '"+open("hacked","w").name+".jpg',
    "JavaScript": '"+(await import("node:fs")).writeFileSync("hacked","")+".jpg',
    "a template": "${process.exit(3)}.jpg",
    "an option": "-o hacked.jpg",
    "standard input": "-",
    "letters of everywhere": "açaí 猫 🐈\u200d⬛.jpg",
    "what turns the text around": "a\u202egpj.\u2028.jpg",
}
PASTED_INTO = {
    "curl": ["bash", "-c"],
    "Python": [sys.executable, "-c"],
    "JavaScript": ["node", "-e"],
}

# The texts of the page that are the same in both languages.
SAME_IN_BOTH = {"docs"}
# What the page has without its script: a text in each language, and the name of the other language.
IN_BOTH = (
    *(
        "This page needs JavaScript. Without it, see",
        "Esta página precisa de JavaScript. Sem ele, veja",
        "the API",
        "a API",
    ),
    *(".", "English", "Português"),
)
TEXTS_OF_A_PAGE = """(html) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const found = [];
    for (const node of page.querySelectorAll("*:not(script)")) {
        for (const child of node.childNodes) if (child.nodeType === Node.TEXT_NODE) found.push(child.data);
        for (const name of ["alt", "title", "aria-label", "placeholder"]) found.push(node.getAttribute(name) ?? "");
    }
    return [...new Set(found.map((text) => text.replace(/\\s+/g, " ").trim()).filter(Boolean))];
}"""


class World:
    """One browser and one pair for all tests of this module, because both start slowly."""

    browser: Browser
    url: str
    model_port: int


def setUpModule() -> None:
    World.browser = unittest.enterModuleContext(browser())
    model_server = unittest.enterModuleContext(processes.model_server(MODEL))
    World.model_port = model_server.grpc_port
    settings = config.load_config({"SERVICE_MODEL_PORT": str(World.model_port)})
    runner = model_runner.ModelRunner(settings)
    World.url = unittest.enterModuleContext(serving(app_server.create_app(settings, runner)))


def answer_with(visit: Visit, **answer: Any) -> None:
    """Answer the page's next requests instead of the service."""
    visit.page.route("**/predict*", lambda route: route.fulfill(**answer))


class PageTest(unittest.TestCase):
    def visit(self, **settings: Any) -> Visit:
        """Open the page. At the end of the test the browser must have no complaint."""
        visit = Visit(World.browser, World.url, **settings)
        self.addCleanup(visit.close)
        self.addCleanup(lambda: self.assertEqual(visit.complaints, []))
        return visit


class PhotosComeInTest(PageTest):
    def test_a_dropped_photo_gets_its_label_its_probabilities_and_its_times(self) -> None:
        visit = self.visit()
        visit.drop(IMAGES / "dog_1.jpg")
        card = visit.card("dog_1.jpg")
        self.assertEqual(visit.verdict("dog_1.jpg"), "Dog")
        confidence = card.locator(".verdict span").inner_text()
        self.assertRegex(confidence, r"^> 99\.99 %$|^\d\d\.\d\d %$")
        dog = card.get_by_role("meter", name="Dog")
        self.assertEqual(dog.get_attribute("aria-valuetext"), confidence)
        for step in ("read", "decode", "resize", "model", "network"):
            self.assertRegex(card.locator(f'.steps [data-step="{step}"]').inner_text(), rf"(?s){step}.*\d ms")
        self.assertTrue(
            card.get_by_role("img", name="Preview of dog_1.jpg").evaluate("image => image.naturalWidth > 0")
        )

    def test_photos_that_are_chosen_together_are_all_answered(self) -> None:
        visit = self.visit()
        visit.choose(*(IMAGES / name for name in ("cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg")))
        labels = {name: visit.verdict(name) for name in ("cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg")}
        self.assertEqual(labels, {"cat_1.jpg": "Cat", "cat_2.jpg": "Cat", "dog_1.jpg": "Dog", "dog_2.jpg": "Dog"})
        self.assertEqual(visit.page.locator("#tally").inner_text(), "4 photos · Cat 2 · Dog 2")

    def test_a_pasted_photo_is_answered(self) -> None:
        visit = self.visit(permissions=["clipboard-read", "clipboard-write"])
        visit.page.evaluate(
            """async () => {
                const canvas = new OffscreenCanvas(300, 300);
                const sample = await (await fetch("samples/cat_2.jpg")).blob();
                canvas.getContext("2d").drawImage(await createImageBitmap(sample), 0, 0, 300, 300);
                const png = await canvas.convertToBlob({ type: "image/png" });
                await navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
            }"""
        )
        visit.page.keyboard.press("Control+V")
        self.assertEqual(visit.verdict("pasted-1.png"), "Cat")
        self.assertEqual(visit.card("pasted-1.png").get_by_role("link", name="Save the photo").count(), 1)

    def test_pasted_words_are_told_from_a_photo(self) -> None:
        visit = self.visit(permissions=["clipboard-read", "clipboard-write"])
        visit.page.evaluate("navigator.clipboard.writeText('https://example.com/cat.jpg')")
        visit.page.keyboard.press("Control+V")
        visit.page.get_by_role("alert").get_by_text("no picture in the clipboard").wait_for()

    def test_the_camera_takes_a_photo_and_goes_out(self) -> None:
        visit = self.visit(permissions=["camera"])
        visit.page.get_by_role("button", name="Use the camera").click()
        visit.page.locator("#shutter:enabled").click()
        self.assertEqual(visit.verdict("camera-1.jpg"), "Dog")
        # A black picture might get the label Dog too, but not with this probability.
        dog = visit.card("camera-1.jpg").get_by_role("meter", name="Dog")
        self.assertGreater(float(dog.get_attribute("aria-valuenow") or 0), 95)
        self.assertIsNone(visit.page.evaluate("document.getElementById('video').srcObject"))

    def test_a_camera_that_may_not_be_used_is_explained(self) -> None:
        visit = self.visit()
        visit.context.clear_permissions()
        visit.page.get_by_role("button", name="Use the camera").click()
        visit.page.get_by_text("The browser may not use the camera.").wait_for()
        visit.page.keyboard.press("Escape")
        self.assertFalse(visit.page.get_by_role("dialog").is_visible())

    def test_a_phone_hands_over_to_its_own_camera(self) -> None:
        visit = self.visit(**PHONE)
        with visit.page.expect_file_chooser() as chooser:
            visit.page.get_by_role("button", name="Use the camera").tap()
        self.assertEqual(chooser.value.element.get_attribute("capture"), "environment")
        chooser.value.set_files(IMAGES / "cat_2.jpg")
        self.assertEqual(visit.verdict("cat_2.jpg"), "Cat")

    def test_a_click_on_a_sample_is_answered(self) -> None:
        visit = self.visit()
        visit.page.get_by_role("button", name="Sample photo: a small grey dog").click()
        self.assertEqual(visit.verdict("dog_2.jpg"), "Dog")

    def test_a_sample_can_be_dragged_too(self) -> None:
        visit = self.visit()
        visit.page.drag_and_drop('[data-sample="cat_1.jpg"]', "#drop")
        self.assertEqual(visit.verdict("cat_1.jpg"), "Cat")

    def test_dragged_words_are_told_from_a_photo(self) -> None:
        visit = self.visit()
        visit.page.drag_and_drop("nav a", "#drop")
        visit.page.get_by_role("alert").get_by_text("No file was in that.").wait_for()

    def test_photos_are_sent_raw_and_three_at_a_time(self) -> None:
        visit = self.visit()
        held: list[Any] = []
        visit.page.route("**/predict*", lambda route: held.append(route))
        visit.choose(*(photo(CAT, f"{number}.jpg") for number in range(6)))
        visit.page.wait_for_timeout(500)
        self.assertEqual(len(held), 3)
        request = held[0].request
        self.assertEqual(request.headers["content-type"], "image/jpeg")
        self.assertEqual(request.post_data_buffer, CAT.read_bytes())
        for index in range(6):
            held[index].continue_()
            visit.page.wait_for_function(
                "count => document.querySelectorAll('.card[aria-busy=false]').length == count", arg=index + 1
            )
        self.assertEqual(len(held), 6)


class AnswersTest(PageTest):
    def test_what_is_no_picture_gets_the_services_own_words(self) -> None:
        visit = self.visit()
        visit.choose(TEXT)
        card = visit.card("notes.txt")
        body = requests.post(
            f"{World.url}/predict", TEXT["buffer"], headers={"Content-Type": "application/octet-stream"}, timeout=10
        )
        self.assertIn(body.json()["msg"], card.inner_text())
        self.assertIn(body.json()["code"], card.inner_text())
        self.assertEqual(card.get_by_role("button", name="Try again").count(), 0)
        self.assertIn("txt", card.locator(".ending").inner_text().lower())

    def test_a_photo_that_the_browser_knows_nothing_of_is_answered_without_a_preview(self) -> None:
        tiff = io.BytesIO()
        with Image.open(CAT) as image:
            image.save(tiff, "TIFF")
        visit = self.visit()
        visit.choose({"name": "cat.tif", "mimeType": "", "buffer": tiff.getvalue()})
        self.assertEqual(visit.verdict("cat.tif"), "Cat")
        self.assertIn("no preview", visit.card("cat.tif").locator(".preview").inner_text())

    def test_a_photo_over_the_limit_is_told_so(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        Path(folder, "huge.jpg").write_bytes(bytes(30_000_000))
        visit = self.visit()
        visit.drop(Path(folder, "huge.jpg"))
        self.assertRegex(visit.card("huge.jpg").inner_text(), "image_too_large|It has 30.0 MB")

    def test_a_folder_is_told_from_a_photo(self) -> None:
        visit = self.visit()
        visit.drop(IMAGES)
        self.assertIn("If it is a folder, drop the photos in it", visit.card("images").inner_text())

    def test_a_service_that_is_away_is_told_and_asked_again(self) -> None:
        visit = self.visit()
        visit.page.route("**/predict*", lambda route: route.abort("connectionrefused"))
        visit.choose(CAT)
        self.assertIn("The service can't be reached.", visit.card("cat_1.jpg").inner_text())
        visit.page.unroute("**/predict*")
        visit.card("cat_1.jpg").get_by_role("button", name="Try again").click()
        self.assertEqual(visit.verdict("cat_1.jpg"), "Cat")

    def test_a_busy_service_says_how_long_to_wait(self) -> None:
        visit = self.visit()
        answer = {"status": "Failed", "msg": "Too busy.", "code": "overloaded", "request_id": "1"}
        answer_with(visit, status=503, json=answer, headers={"Retry-After": "2"})
        visit.choose(CAT)
        card = visit.card("cat_1.jpg")
        self.assertIn("Too busy. Try again in 2 seconds.", card.inner_text())
        self.assertEqual(card.get_by_role("button", name="Try again").count(), 1)

    def test_answers_that_no_one_foresaw_are_told_in_own_words(self) -> None:
        for name, answer, words in (
            ("a proxy's page", {"status": 502, "body": "<h1>Bad gateway</h1>"}, "status 502 and no explanation"),
            ("no JSON", {"status": 200, "body": "<h1>Welcome</h1>"}, "doesn't understand"),
            ("other JSON", {"status": 200, "json": {"label": "CAT", "probabilities": None}}, "doesn't understand"),
        ):
            with self.subTest(name):
                visit = self.visit()
                answer_with(visit, **answer)
                visit.choose(CAT)
                self.assertIn(words, visit.card("cat_1.jpg").inner_text())

    def test_a_photo_of_neither_is_called_doubtful(self) -> None:
        visit = self.visit()
        answer = {"label": "DOG", "probabilities": {"CAT": 0.4, "DOG": 0.6}, "in_domain": False}
        answer_with(visit, json=answer)
        visit.choose(CAT)
        self.assertIn("This may be neither a cat nor a dog.", visit.card("cat_1.jpg").inner_text())

    def test_labels_of_another_model_are_shown_as_they_are(self) -> None:
        visit = self.visit()
        markup = "<img src=x onerror=alert(1)>"
        answer = {"label": markup, "probabilities": {markup: 0.9, "fox": 0.06, "owl": 0.04}}
        answer_with(visit, json=answer)
        visit.choose(photo(CAT, f"{markup}.jpg"))
        self.assertEqual(visit.verdict(f"{markup}.jpg"), markup)
        self.assertEqual(visit.page.get_by_role("meter", name="owl").inner_text().split()[-2:], ["4.00", "%"])

    def test_cards_go_one_by_one_or_all_and_leave_no_photo_behind(self) -> None:
        visit = self.visit()
        visit.choose(CAT, IMAGES / "dog_1.jpg", IMAGES / "dog_2.jpg")
        visit.card("dog_2.jpg")
        kept = visit.page.locator(".preview img").evaluate_all("images => images.map(image => image.src)")
        visit.page.get_by_role("button", name="Remove cat_1.jpg").click()
        self.assertEqual(visit.page.locator(".card").count(), 2)
        focused = visit.page.evaluate("document.activeElement.getAttribute('aria-label')")
        self.assertEqual(focused, "Remove dog_1.jpg")
        visit.page.get_by_role("button", name="Clear all").click()
        visit.page.get_by_text("Nothing here yet").wait_for()
        shown = visit.page.evaluate(
            """urls => Promise.all(urls.map((url) => new Promise((resolve) => {
                const image = new Image();
                image.onload = () => resolve(true);
                image.onerror = () => resolve(false);
                image.src = url;
            })))""",
            kept,
        )
        self.assertEqual(shown, [False, False, False])


class CopyAsTest(PageTest):
    def run_pasted(self, language: str, text: str, folder: str) -> str:
        program, *arguments = PASTED_INTO[language]
        for name in {program, "curl"} if language == "curl" else {program}:
            if shutil.which(name) is None:
                self.skipTest(f"{name} is not on this machine: what the page says for {language} was not run")
        return self.run_in(folder, [program, *arguments, text])

    def run_in(self, folder: str, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def folder_with(self, name: str) -> str:
        folder = self.enterContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        try:
            Path(folder, name).write_bytes(CAT.read_bytes())
        except OSError:
            self.skipTest("this system knows no such name")
        return folder

    def snippets(self, visit: Visit, name: str) -> dict[str, str]:
        card = visit.card(name)
        texts = {}
        for language in PASTED_INTO:
            card.get_by_role("button", name=language).click()
            card.get_by_text("Copied.").wait_for()
            texts[language] = visit.page.evaluate("navigator.clipboard.readText()")
            self.assertEqual(card.locator("pre").inner_text().strip(), texts[language].strip())
        return texts

    def test_each_text_gives_the_answer_of_the_card(self) -> None:
        visit = self.visit(permissions=["clipboard-read", "clipboard-write"])
        visit.choose(IMAGES / "dog_1.jpg")
        for language, text in self.snippets(visit, "dog_1.jpg").items():
            with self.subTest(language):
                self.assertRegex(self.run_pasted(language, text, str(IMAGES)), "pet_type.*DOG")

    def test_the_texts_of_a_sample_fetch_it_first(self) -> None:
        visit = self.visit(permissions=["clipboard-read", "clipboard-write"])
        visit.page.locator('[data-sample="cat_2.jpg"]').click()
        for language, text in self.snippets(visit, "cat_2.jpg").items():
            with self.subTest(language), tempfile.TemporaryDirectory() as folder:
                self.assertRegex(self.run_pasted(language, text, folder), "pet_type.*CAT")

    def test_where_a_key_is_needed_the_page_asks_for_it_and_the_texts_hold_it(self) -> None:
        key = "a-key/of+16._~letters=="
        keyed = config.load_config({"SERVICE_API_KEYS": key, "SERVICE_MODEL_PORT": str(World.model_port)})
        url = self.enterContext(serving(app_server.create_app(keyed, model_runner.ModelRunner(keyed))))
        visit = Visit(World.browser, url, permissions=["clipboard-read", "clipboard-write"])
        self.addCleanup(visit.close)
        field = visit.page.get_by_label("This service asks for a key")
        field.wait_for()
        self.assertEqual(visit.violations(), [])
        visit.page.locator("#language").click()
        visit.page.get_by_text("Este serviço pede uma chave").wait_for()
        visit.page.locator("#language").click()
        visit.choose(IMAGES / "dog_1.jpg")
        visit.card("dog_1.jpg").get_by_text("A valid API key is needed.").wait_for()
        for sent, words in (("not-the-right-key", "A valid API key is needed."), (key, "Dog")):
            field.fill(sent)
            field.press("Enter")
            visit.page.locator('.card[aria-busy="false"]').get_by_text(words).first.wait_for()
        self.assertFalse(field.is_visible())
        visit.page.get_by_text("Model CAT-DOG").wait_for()
        # Whether the model tells where it looked is known with a key only.
        self.assertEqual(visit.card("dog_1.jpg").get_by_role("switch").count(), 1)
        for language, text in self.snippets(visit, "dog_1.jpg").items():
            with self.subTest(language):
                self.assertRegex(self.run_pasted(language, text, str(IMAGES)), "pet_type.*DOG")
        visit.page.reload()
        visit.page.get_by_text("Model CAT-DOG").wait_for()
        self.assertEqual(visit.page.evaluate("JSON.stringify(localStorage)"), '{"language":"en"}')
        refused = [text for text in visit.complaints if "401" not in text]
        self.assertEqual(refused, [])

    def test_the_texts_work_at_a_prompt_too(self) -> None:
        visit = self.visit(permissions=["clipboard-read", "clipboard-write"])
        visit.choose(IMAGES / "dog_1.jpg")
        texts = self.snippets(visit, "dog_1.jpg")
        for language, program in {"Python": sys.executable, "JavaScript": "node"}.items():
            with self.subTest(language):
                if shutil.which(program) is None:
                    self.skipTest(why_skipped(program))
                self.assertRegex(self.typed_at_a_prompt([program, "-i"], texts[language]), "pet_type.*DOG")

    def typed_at_a_prompt(self, command: list[str], text: str) -> str:
        """Return what a prompt prints after ``text``, until it has answered and its input has ended."""
        with subprocess.Popen(
            command, cwd=IMAGES, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as prompt:
            assert prompt.stdin is not None and prompt.stdout is not None
            prompt.stdin.write(f"{text}\n")
            prompt.stdin.flush()
            # Node's prompt does not wait for the answer after its input has ended.
            printed = ""
            while "pet_type" not in printed and (line := prompt.stdout.readline()):
                printed += line
            rest, _ = prompt.communicate(timeout=30)
            return " ".join((printed + rest).split())

    def test_no_name_of_a_photo_is_taken_for_code(self) -> None:
        visit = self.visit()
        for case, name in HOSTILE_NAMES.items():
            for language in PASTED_INTO:
                with self.subTest(case, language=language):
                    folder = self.folder_with(name)
                    text = visit.page.evaluate(
                        """([language, endpoint, name]) => import("/static/snippets.js").then(({ snippet }) =>
                            snippet(language, endpoint, { name, type: "image/jpeg" }))""",
                        [language, f"{World.url}/predict", name],
                    )
                    self.assertRegex(text.replace("\n", " "), "^[^\x00-\x1f\x7f\u202e\u2028]*$")
                    self.assertRegex(self.run_pasted(language, text, folder), "pet_type.*CAT")
                    self.assertEqual([path.name for path in Path(folder).iterdir()], [name])

    def test_windows_gets_its_own_curl_and_quotes(self) -> None:
        visit = self.visit()
        for name, argument in (
            ("it's a cat; & dog.jpg", '"@it\'s a cat; & dog.jpg"'),
            ("a'; calc; '$b.jpg", "'@a''; calc; ''$b.jpg'"),
            ("100%.jpg", "'@100%.jpg'"),
            ("a\u2019; calc; $b.jpg", "'@a\u2019\u2019; calc; $b.jpg'"),
        ):
            with self.subTest(name):
                text = visit.page.evaluate(
                    """(name) => import("/static/snippets.js").then(({ snippet }) =>
                        snippet("curl", "http://localhost/predict", { name, type: "image/jpeg" }, "", true))""",
                    name,
                )
                self.assertTrue(text.startswith("curl.exe "), text)
                self.assertTrue(text.endswith(f"--data-binary {argument}\n"), text)


class ForEveryoneTest(PageTest):
    def test_it_speaks_the_browsers_language(self) -> None:
        visit = self.visit(locale="pt-BR")
        self.assertEqual(visit.page.get_by_role("heading", level=1).inner_text(), "Gato ou cachorro?")
        self.assertEqual(visit.page.evaluate("document.documentElement.lang"), "pt-BR")
        visit.choose(IMAGES / "dog_1.jpg", TEXT)
        self.assertEqual(visit.verdict("dog_1.jpg"), "Cachorro")
        in_portuguese = requests.post(
            f"{World.url}/predict",
            TEXT["buffer"],
            headers={"Content-Type": "application/octet-stream", "Accept-Language": "pt-BR"},
            timeout=10,
        )
        self.assertIn(in_portuguese.json()["msg"], visit.card("notes.txt").inner_text())

    def test_the_other_language_is_one_click_away_and_remembered(self) -> None:
        visit = self.visit()
        visit.choose(CAT)
        self.assertEqual(visit.verdict("cat_1.jpg"), "Cat")
        visit.page.get_by_role("button", name="Português").click()
        self.assertEqual(visit.verdict("cat_1.jpg"), "Gato")
        visit.page.reload()
        visit.page.get_by_role("heading", name="Gato ou cachorro?").wait_for()
        visit.page.get_by_role("button", name="English").click()
        self.assertEqual(visit.page.title(), "Cat or dog?")

    def test_both_languages_say_the_same_things(self) -> None:
        visit = self.visit()
        texts = visit.page.evaluate('import("/static/texts.js").then((texts) => ({ ...texts }))')
        for part, words in texts.items():
            self.assertEqual(words["en"].keys(), words["pt-BR"].keys(), part)
            for key, english in words["en"].items():
                with self.subTest(key, part=part):
                    self.assertEqual(set(filter_names(english)), set(filter_names(words["pt-BR"][key])))
                    self.assertEqual(english == words["pt-BR"][key], key in SAME_IN_BOTH)

    def test_no_text_is_outside_of_the_two_languages(self) -> None:
        page = self.visit(locale="pt-BR").page
        english = page.evaluate('import("/static/texts.js").then((texts) => Object.values(texts.LANGUAGES.en))')
        html = requests.get(World.url, timeout=5).text
        # The text of each element of the page as it is served, and the texts that only some can see or hear.
        found = page.evaluate(TEXTS_OF_A_PAGE, html)
        self.assertGreater(len(found), 20)
        for text in found:
            with self.subTest(text):
                self.assertTrue(text in english or text in IN_BOTH)
        shown = page.evaluate(TEXTS_OF_A_PAGE, page.content())
        self.assertFalse({*shown} & {*english} - {"API"} - {*IN_BOTH})

    def test_all_of_it_works_by_keyboard(self) -> None:
        visit = self.visit()
        keyboard = visit.page.keyboard
        reached = []
        for _ in range(9):
            keyboard.press("Tab")
            reached.append(visit.page.evaluate("document.activeElement.dataset.sample ?? document.activeElement.id"))
            outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            self.assertNotEqual(outline, "none", reached)
        samples = ["cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg"]
        self.assertEqual(reached, ["", "", "language", "choose", "use-camera", *samples])
        keyboard.press("Enter")
        self.assertEqual(visit.verdict("dog_2.jpg"), "Dog")
        for focused in ("Clear all", "Remove dog_2.jpg", "Where the model looked", "curl"):
            keyboard.press("Tab")
            name = "({ ariaLabel, labels, textContent }) => ariaLabel ?? labels?.[0]?.textContent ?? textContent"
            self.assertIn(focused, visit.page.locator(":focus").evaluate(name))
        keyboard.press("Space")
        visit.page.locator("pre").wait_for()

    def test_a_screen_reader_hears_each_answer(self) -> None:
        visit = self.visit()
        visit.choose(CAT, TEXT)
        for name in ("cat_1.jpg", "notes.txt"):
            visit.card(name)
        heard = visit.page.get_by_role("log").inner_text()
        self.assertRegex(heard, r"cat_1\.jpg: Cat, (> )?\d\d\.\d\d %")
        self.assertIn("notes.txt: No answer. ", heard)

    def test_axe_finds_nothing_in_any_state_colour_or_width(self) -> None:
        for name, settings in {
            "light": {},
            "dark": {"color_scheme": "dark"},
            "phone": PHONE,
            "dark phone in Portuguese": {**PHONE, "color_scheme": "dark", "locale": "pt-BR"},
        }.items():
            with self.subTest(name):
                visit = self.visit(permissions=["camera"], **settings)
                self.assertEqual(visit.violations(), [])
                self.fill(visit)
                self.assertEqual(visit.violations(), [])
                self.assertLessEqual(*visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]"))
                visit.page.evaluate("document.getElementById('camera').showModal()")
                self.assertEqual(visit.violations(), [])

    def fill(self, visit: Visit) -> None:
        """Make one card of each kind: an answer with all it can show, an uncertain one, a failure, one in progress."""
        visit.choose(IMAGES / "dog_1.jpg", TEXT)
        visit.card("notes.txt")
        visit.card("dog_1.jpg").get_by_role("button", name="curl").click()
        visit.card("dog_1.jpg").get_by_role("switch").check()
        doubtful = {"label": "CAT", "probabilities": {"CAT": 0.6, "DOG": 0.4}, "in_domain": False}
        answer_with(visit, json=doubtful)
        visit.choose(CAT)
        visit.card("cat_1.jpg")
        visit.page.route("**/predict*", lambda route: None)
        visit.choose(IMAGES / "cat_2.jpg")
        visit.page.locator('.card[aria-busy="true"]').wait_for()

    def test_the_policy_allows_only_what_the_service_serves(self) -> None:
        policy = requests.get(f"{World.url}/", timeout=5).headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)

    def test_the_docs_work_under_their_policy(self) -> None:
        policy = requests.get(f"{World.url}/docs", timeout=5).headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", re.findall("script-src [^;]*", policy)[0])
        page = self.enterContext(closing(World.browser.new_context())).new_page()
        complaints: list[str] = []
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda it: complaints.append(it.text) if it.type in ("error", "warning") else None)
        page.goto(f"{World.url}/docs")
        operations = page.locator(".opblock")
        operations.first.wait_for()
        for i in range(operations.count()):
            operations.nth(i).locator(".opblock-summary-control").click()
        page.locator(".opblock.is-open .opblock-body").nth(operations.count() - 1).wait_for()
        livez = page.locator("#operations-default-livez_livez_get")
        livez.get_by_role("button", name="Try it out").click()
        livez.get_by_role("button", name="Execute").click()
        livez.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
        self.assertEqual(complaints, [])
        # This shows that a refused script is noticed, so that the checks above can fail.
        page.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: '1'}))")
        page.wait_for_timeout(100)
        self.assertNotEqual(complaints, [])


def filter_names(words: str) -> list[str]:
    """Return the {names} of a text's placeholders."""
    return [part.partition("}")[0] for part in words.split("{")[1:]]


class PictureTest(unittest.TestCase):
    def test_the_picture_in_the_readme_is_of_the_page_as_it_is(self) -> None:
        with Image.open(page_picture.PICTURE) as picture:
            digest = picture.info.get(page_picture.DIGEST)
        self.assertEqual(digest, page_picture.digest_of_page(), "Make it anew: python -m tools.page_picture")


if __name__ == "__main__":
    unittest.main()
