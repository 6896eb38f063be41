"""Tests that every message is in both languages, and that a client gets the language that it prefers."""

import string
import unittest

from preprocess_service.app import errors, translations


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


class MessagesTest(unittest.TestCase):
    def test_every_message_says_the_same_in_both_languages(self) -> None:
        for key, texts in translations.MESSAGES.items():
            with self.subTest(key):
                self.assertEqual(set(texts), {"en", "pt"})
                self.assertNotEqual(texts["en"], texts["pt"])
                self.assertEqual(places(texts["en"]), places(texts["pt"]))

    def test_every_error_can_speak(self) -> None:
        values = {"path": "/", "method": "GET"}
        for error in errors.ServiceError.__subclasses__():
            with self.subTest(error.__name__):
                key = error.code if error.code in translations.MESSAGES else "image_broken"
                self.assertTrue(error(key, **values).text("pt"))

    def test_the_best_liked_language_is_chosen(self) -> None:
        for header, language in (
            ("", "en"),
            ("pt", "pt"),
            ("pt-BR", "pt"),
            ("PT-br, en;q=0.5", "pt"),
            ("en-US,en;q=0.9,pt;q=0.8", "en"),
            ("en;q=0.1, pt;q=0.2", "pt"),
            ("de, fr;q=0.9", "en"),
            ("de, pt;q=0.3", "pt"),
            ("pt;q=0", "en"),
            ("*", "en"),
            ("pt;q=much", "en"),
            (";q=,;;", "en"),
        ):
            with self.subTest(header):
                self.assertEqual(translations.negotiate(header), language)
