"""Tests that /openapi.json and /docs are complete in both languages, and that the client's preferred one is sent."""

import re
import unittest
from collections.abc import Iterator
from typing import Any

import requests

from preprocess_service.app.api.documentation.portuguese import PORTUGUESE
from preprocess_service.app.api.documentation.site import TEXTS, in_language
from preprocess_service.app.app_server import create_app
from preprocess_service.app.config import load_config
from unit_test.preprocess_service.app_server_test import FakeRunner, settings
from unit_test.preprocess_service.http_server import serving

KEY = "k1-of-the-documentation-test-0123456789"
# CAT-DOG alone, several models, a model of one's own, and with API keys.
KINDS: tuple[dict[str, str], ...] = (
    {},
    {"MODEL_NAME": "CAT-DOG,BIRDS"},
    {"MODEL_NAME": "BIRDS"},
    {"SERVICE_API_KEYS": KEY},
)
# Names, which are the same in both languages: of the model, and of the bodies. (And those of the schemas.)
NAMES = {"BIRDS", "PredictRequest", "PredictBatchRequest"}
CODES = re.compile(r"`[a-z0-9_]+`(, `[a-z0-9_]+`)*")
# Words that are in one language only.
ENGLISH = re.compile(r"\b(the|of|is|are|was|that|which|with|and|or|for|photo|model|each|answer|not)\b", re.I)
PORTUGUESE_WORDS = re.compile(r"\b(da|de|dos|que|uma?|com|não|para|ou|foto|modelo|cada|requisição|resposta)\b", re.I)


def document_of(**variables: str) -> dict[str, Any]:
    """Return the English document of a service with these settings, as FastAPI makes it."""
    return create_app(load_config(variables), FakeRunner(), others=[FakeRunner()] * ("," in str(variables))).openapi()


def texts_of(part: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each text for people."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in TEXTS and isinstance(value, str):
                yield f"{place}/{key}", value
            else:
                yield from texts_of(value, f"{place}/{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from texts_of(value, f"{place}/{number}")


def without_texts(part: Any) -> Any:
    """Return a part of the document with nothing in place of each text."""
    if isinstance(part, dict):
        return {key: "" if key in TEXTS and isinstance(it, str) else without_texts(it) for key, it in part.items()}
    return [without_texts(it) for it in part] if isinstance(part, list) else part


def undescribed(part: Any, place: str = "") -> Iterator[str]:
    """Yield the place of each route, parameter, header, response, field and key without a text."""
    if isinstance(part, list):
        for number, value in enumerate(part):
            yield from undescribed(value, f"{place}/{number}")
    elif isinstance(part, dict):
        for key, value in part.items():
            inner = f"{place}/{key}"
            # A form's field `file` is the photo, as its route says.
            if key in ("headers", "responses", "securitySchemes") or (key == "properties" and "multipart" not in place):
                # A field may have the text of the schema that it refers to.
                yield from (f"{inner}/{name}" for name, it in value.items() if not {"description", "$ref"} & it.keys())
            elif key == "parameters":
                yield from (f"{inner}/{it['name']}" for it in value if not it.get("description"))
            elif key in ("get", "post") and not (value.get("summary") and value.get("description")):
                yield inner
            yield from undescribed(value, inner)


class DocumentTest(unittest.TestCase):
    def test_every_text_is_in_both_languages_and_none_is_left_over(self) -> None:
        used: set[str] = set()
        for variables in KINDS:
            document = document_of(**variables)
            names = NAMES | set(document["components"]["schemas"])
            english, portuguese = (dict(texts_of(in_language(it, document))) for it in ("en", "pt"))
            self.assertEqual(list(english), list(portuguese))
            for place, text in english.items():
                with self.subTest(place, variables=variables):
                    if text in names or CODES.fullmatch(text):
                        self.assertEqual(portuguese[place], text)
                        continue
                    used.add(text)
                    self.assertNotEqual(portuguese[place], text)
        self.assertEqual(used, set(PORTUGUESE))

    def test_each_text_is_in_its_own_language(self) -> None:
        for english, portuguese in PORTUGUESE.items():
            with self.subTest(english):
                # Names of fields, in `...`, are English words, and so are the names of the labels.
                plain = [
                    re.sub(r"`[^`]*`|\bor DOG\b|/models\S*|docs/models.md", "", it) for it in (english, portuguese)
                ]
                self.assertNotRegex(plain[1], ENGLISH)
                self.assertNotRegex(plain[0], PORTUGUESE_WORDS)
                # What is in `...` is the same in both.
                self.assertEqual(*(sorted(re.findall(r"`[^`]+`", it)) for it in (english, portuguese)))

    def test_only_the_texts_differ(self) -> None:
        for variables in KINDS:
            with self.subTest(variables):
                document = document_of(**variables)
                english, portuguese = (in_language(it, document) for it in ("en", "pt"))
                self.assertNotEqual(english, portuguese)
                self.assertEqual(without_texts(english), without_texts(portuguese))

    def test_everything_has_a_text_and_no_title_only_repeats_a_name(self) -> None:
        for variables in KINDS:
            document = in_language("en", document_of(**variables))
            self.assertEqual(list(undescribed(document)), [])
            titles = {text for place, text in texts_of(document) if place.endswith("/title")}
            self.assertLessEqual(titles, NAMES | {"CAT or DOG"} | set(document["components"]["schemas"]))

    def test_a_summary_is_no_name_of_a_function(self) -> None:
        summaries = {text for place, text in texts_of(document_of()) if place.endswith("/summary")}
        self.assertGreater(len(summaries), 8)
        self.assertFalse(summaries & {"Predict", "Predict Batch", "Livez", "Readyz", "Golden Photo"})


class AnswersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.url = cls.enterClassContext(serving(create_app(settings(), FakeRunner())))

    def test_the_document_is_in_the_language_that_the_client_prefers(self) -> None:
        for accepted, language, title, summary in (
            (None, "en", "CAT or DOG", "Classify a photo"),
            ("en-US,pt;q=0.5", "en", "CAT or DOG", "Classify a photo"),
            ("pt-BR,pt;q=0.9,en;q=0.8", "pt", "CAT ou DOG", "Classificar uma foto"),
        ):
            # Twice, because the second answer is the kept one.
            for _ in range(2):
                with self.subTest(accepted):
                    answer = requests.get(f"{self.url}/openapi.json", headers={"Accept-Language": accepted}, timeout=30)
                    self.assertEqual(answer.headers["content-type"], "application/json")
                    self.assertEqual(answer.headers["content-language"], language)
                    self.assertEqual(answer.headers["vary"], "Accept-Language")
                    self.assertEqual(answer.json()["info"]["title"], title)
                    self.assertEqual(answer.json()["paths"]["/predict"]["post"]["summary"], summary)

    def test_the_page_of_the_docs_is_so_too(self) -> None:
        for path in ("/docs", "/docs/"):
            for language, html, title in (("en", "en", "CAT or DOG"), ("pt", "pt-BR", "CAT ou DOG")):
                with self.subTest(path, language=language):
                    answer = requests.get(f"{self.url}{path}", headers={"Accept-Language": language}, timeout=30)
                    self.assertEqual(answer.headers["content-language"], language)
                    self.assertEqual(answer.headers["vary"], "Accept-Language")
                    self.assertIn(f'<html lang="{html}">', answer.text)
                    self.assertIn(f"<title>{title} - Swagger UI</title>", answer.text)

    def test_answers_with_texts_say_their_language(self) -> None:
        for path in ("/readyz", "/models"):
            for language in ("en", "pt"):
                with self.subTest(path, language=language):
                    answer = requests.get(f"{self.url}{path}", headers={"Accept-Language": language}, timeout=30)
                    self.assertEqual(answer.headers["content-language"], language)
                    self.assertEqual(answer.headers["vary"], "Accept-Language")


if __name__ == "__main__":
    unittest.main()
