"""Tests that both glossaries of the course have the same pairs of terms, each sorted in its language."""

import re
import unicodedata
import unittest
from pathlib import Path

COURSE = Path(__file__).parents[2] / "docs" / "course"
FEWEST_TERMS = 60


def rows(page: str) -> list[list[str]]:
    """Return the cells of a glossary's rows: term, the same in the other language, meaning."""
    text = (COURSE / page).read_text(encoding="utf-8")
    return [row.strip("| ").split(" | ") for row in re.findall(r"^\| .*", text, re.MULTILINE)[2:]]


def without_accents(term: str) -> str:
    return unicodedata.normalize("NFD", term.lower()).encode("ascii", "ignore").decode()


class GlossaryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.pt, self.en = rows("pt/glossario.md"), rows("en/glossary.md")

    def test_every_term_has_its_translation_and_a_meaning(self) -> None:
        self.assertGreaterEqual(len(self.pt), FEWEST_TERMS)
        for row in self.pt + self.en:
            self.assertEqual(len(list(filter(None, row))), 3, row)

    def test_both_have_the_same_pairs_each_once(self) -> None:
        pairs = [(term, translation) for term, translation, _ in self.pt]
        self.assertEqual(sorted(pairs), sorted((translation, term) for term, translation, _ in self.en))
        for terms in zip(*pairs, strict=True):
            self.assertEqual(len(terms), len(set(terms)))

    def test_each_is_sorted_in_its_language(self) -> None:
        for glossary in (self.pt, self.en):
            terms = [without_accents(row[0]) for row in glossary]
            self.assertEqual(terms, sorted(terms))


if __name__ == "__main__":
    unittest.main()
