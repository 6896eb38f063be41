"""Tests the pages of the course: the blocks in them, the form of a chapter, both languages side by side, the pictures.

course_slow.py does what the chapters say.
"""

import codeop
import re
import unicodedata
import unittest
from collections.abc import Iterator

from tools.course import draw
from tools.course.blocks import COURSE, LANGUAGES, MARKER, Block, chapters, names_in, read_blocks, with_blocks

PICTURES = COURSE / "pictures"
FILES = {
    "pt": [
        *("01_ambiente", "02_imagens_docker", "03_microsservico", "04_testes", "05_o_que_quebra", "06_seu_modelo"),
        *("07_suas_fotos", "08_medir", "09_muitas_maquinas", "10_ler_o_codigo", "README", "glossario"),
    ],
    "en": [
        *("01_environment", "02_docker_images", "03_microservice", "04_tests", "05_what_breaks", "06_your_model"),
        *("07_your_photos", "08_measuring", "09_many_machines", "10_reading_the_code", "README", "glossary"),
    ],
}
OTHER = {"pt": ("en", "English"), "en": ("pt", "Português")}
CONTENTS = {"pt": "Sumário", "en": "Contents"}
FACTS = {
    "pt": r"\*\*Tempo:\*\* (\d+) minutos\. \*\*Você precisa de:\*\* .+ \*\*No fim:\*\* .+",
    "en": r"\*\*Time:\*\* (\d+) minutes\. \*\*You need:\*\* .+ \*\*At the end:\*\* .+",
}
QUESTIONS = {"pt": "## Perguntas", "en": "## Questions"}
QUESTION = re.compile(r"<details><summary>(\d)\. (.*?)</summary>\n\n(.*?)\n\n</details>", re.DOTALL)
LINES = {"pt": "| linha | o que faz |", "en": "| line | what it does |"}
TERMS = {
    "pt": ("glossario.md", "| termo | em inglês | significado |"),
    "en": ("glossary.md", "| term | in Portuguese | meaning |"),
}
MAX_LINES, MAX_WIDTH, MAX_MINUTES = 250, 120, 15
# What the shells of Windows, macOS and Linux do not understand in the same way.
SHELL_SYNTAX = re.compile(r"[|&;<>$`*~\\']|^\w+=", re.MULTILINE)
ACTIVATE = "source .venv/bin/activate"
TEXTS = {
    language: {number: path.read_text(encoding="utf-8") for number, path in chapters(language).items()}
    for language in LANGUAGES
}
EACH = [(language, number, text) for language, found in TEXTS.items() for number, text in found.items()]
BLOCKS = {number: read_blocks(number) for number in range(1, 11)}


def without_code(text: str) -> str:
    """Return a chapter without its fenced code."""
    return re.sub(r"^(`{3,})\w+\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)


def title(language: str, number: int) -> str:
    """Return a chapter's title."""
    return TEXTS[language][number].partition("\n")[0].removeprefix("# ")


def links_between(language: str, number: int) -> str:
    """Return the links to the chapters before and after, and to the contents."""
    found = chapters(language)
    links = [f"[{CONTENTS[language]}](README.md)"]
    if number - 1 in found:
        links.insert(0, f"[← {title(language, number - 1)}]({found[number - 1].name})")
    if number + 1 in found:
        links.append(f"[{title(language, number + 1)} →]({found[number + 1].name})")
    return " · ".join(links)


def table_rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the header and the cells of each row of all tables."""
    for header, body in re.findall(r"^(\|.*\|)\n\|[ :|-]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE):
        for row in body.splitlines():
            cells = re.split(r"(?<!\\)\|", row)[1:-1]
            yield header, [cell.strip().replace("\\|", "|") for cell in cells]


def without_accents(term: str) -> str:
    """Return what a term is sorted by."""
    letters = unicodedata.normalize("NFD", term.strip("`*_").casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def parts(diagram: str) -> str:
    """Return a diagram without its texts for readers."""
    lines = [line for line in diagram.split("\n") if not line.strip().startswith(("accTitle:", "accDescr:", "%%"))]
    sequence = lines[0].strip() == "sequenceDiagram"
    return re.sub(r"( as |: ).*" if sequence else r'"[^"]*"', r"\1" if sequence else "", "\n".join(lines))


def all_blocks() -> Iterator[tuple[str, Block]]:
    """Yield the place and the block of all blocks."""
    for number, blocks in BLOCKS.items():
        for name, block in blocks.items():
            yield f"{number:02}.yaml: {name}", block


def paste(code: str) -> None:
    """Read code as Python's prompt reads pasted lines; raises SyntaxError."""
    waiting: list[str] = []
    # The reader presses Enter at the end.
    for line in [*code.split("\n"), ""]:
        waiting.append(line)
        if codeop.compile_command("\n".join(waiting), "<stdin>", "single") is not None:
            waiting = []
    if any(waiting):
        raise SyntaxError(f"the prompt waits for the end of {waiting}")


class PagesTest(unittest.TestCase):
    def test_all_pages_exist_in_both_languages(self) -> None:
        for language, names in FILES.items():
            self.assertEqual(sorted(path.stem for path in (COURSE / language).glob("*")), sorted(names))
        self.assertEqual(sorted(path.name for path in (COURSE / "blocks").glob("*")), [f"{n:02}.yaml" for n in BLOCKS])

    def test_the_contents_link_every_chapter_by_its_title_the_glossary_and_the_other_language(self) -> None:
        for language in LANGUAGES:
            text = (COURSE / language / "README.md").read_text(encoding="utf-8")
            other, name = OTHER[language]
            for link in (
                *(f"[{title(language, number)}]({path.name})" for number, path in chapters(language).items()),
                f"]({TERMS[language][0]})",
                f"[{name}](../{other}/README.md)",
            ):
                with self.subTest(link):
                    self.assertIn(link, text)

    def test_the_glossaries_have_the_same_pairs_of_terms_in_order(self) -> None:
        pairs = {}
        for language, (name, header) in TERMS.items():
            text = (COURSE / language / name).read_text(encoding="utf-8")
            found = [cells for head, cells in table_rows(text) if head == header]
            self.assertGreater(len(found), 10, f"{name}: {header}")
            self.assertTrue(all(all(cells) for cells in found), name)
            terms = [without_accents(cells[0]) for cells in found]
            self.assertEqual(terms, sorted(set(terms)), name)
            pairs[language] = {(cells[0], cells[1]) for cells in found}
        self.assertEqual(pairs["en"], {(english, portuguese) for portuguese, english in pairs["pt"]})


class ChapterTest(unittest.TestCase):
    def test_it_begins_and_ends_with_links_to_the_others(self) -> None:
        for language, number, text in EACH:
            with self.subTest(f"{language} {number}"):
                other, name = OTHER[language]
                between = links_between(language, number)
                with_other = f"{between} · [{name}](../{other}/{chapters(other)[number].name})"
                lines = text.rstrip("\n").split("\n")
                self.assertRegex(lines[0], rf"^# {number}\. \S")
                self.assertEqual(lines[1:4], ["", with_other, ""])
                facts = re.fullmatch(FACTS[language], lines[4])
                assert facts is not None, lines[4]
                self.assertLessEqual(int(facts[1]), MAX_MINUTES)
                self.assertIn(lines[-1], (between, with_other))

    def test_it_is_short_and_plain_markdown(self) -> None:
        for language, number, text in EACH:
            with self.subTest(f"{language} {number}"):
                self.assertLessEqual(len(text.rstrip("\n").split("\n")), MAX_LINES)
                tags = set(re.findall(r"<[a-zA-Z/!][^>]*>", re.sub("`[^`\n]*`", "", without_code(text))))
                known = {"<details>", "</details>", "<summary>", "</summary>"}
                self.assertEqual({tag for tag in tags if not re.match("<!-- block: |<https?:", tag)} - known, set())

    def test_it_asks_three_to_five_questions_and_answers_them(self) -> None:
        counts: dict[int, set[int]] = {}
        for language, number, text in EACH:
            with self.subTest(f"{language} {number}"):
                before, _, asked = text.partition(f"\n{QUESTIONS[language]}\n")
                questions = QUESTION.findall(asked)
                self.assertIn(len(questions), range(3, 6))
                self.assertEqual((asked.count("<details>"), before.count("<details>")), (len(questions), 0))
                self.assertEqual([int(one) for one, _, _ in questions], list(range(1, len(questions) + 1)))
                for _, question, answer in questions:
                    self.assertIn("?", question)
                    self.assertGreater(len(answer.strip()), 20, question)
                counts.setdefault(number, set()).add(len(questions))
        self.assertEqual({number for number, found in counts.items() if len(found) != 1}, set())

    def test_both_languages_have_the_same_headings_blocks_tables_and_files(self) -> None:
        def form(text: str) -> list[str]:
            return re.findall(r"^#+(?= )|^<!-- .*|^\|(?= -)|^!\[", without_code(text), re.MULTILINE)

        def files(text: str) -> set[str]:
            return set(re.findall(r"\]\((\.\./\.\./[^)#]*)", text))

        for number in BLOCKS:
            with self.subTest(number):
                one, two = (TEXTS[language][number] for language in LANGUAGES)
                self.assertEqual(form(one), form(two))
                self.assertEqual(files(one), files(two))

    def test_each_line_that_a_table_explains_is_in_the_block_above_it(self) -> None:
        explained = 0
        for language, number, text in EACH:
            for header, cells in table_rows(text):
                if header != LINES[language]:
                    continue
                with self.subTest(f"{language} {number}: {cells[0]}"):
                    spans = re.findall(r"(`+) ?(.+?) ?\1", cells[0])
                    self.assertTrue(spans)
                    above = names_in(text[: text.index("| " + cells[0].replace("|", "\\|") + " |")])
                    code = next(
                        block.code() for name in reversed(above) if (block := BLOCKS[number][name]).kind != "stop"
                    )
                    for _, span in spans:
                        self.assertIn(" ".join(span.split()), " ".join(code.split()))
                    explained += 1
        self.assertGreater(explained, 0)


class BlocksTest(unittest.TestCase):
    def test_the_code_in_the_chapters_is_up_to_date(self) -> None:
        for language, number, text in EACH:
            with self.subTest(f"{language} {number}"):
                written = with_blocks(text, BLOCKS[number], f"{language} {number}")
                self.assertEqual(text, written, "python -m tools.course writes it")

    def test_all_code_comes_from_a_block(self) -> None:
        for language, number, text in EACH:
            lines, fence = text.split("\n"), ""
            for before, line in zip(["", *lines], lines, strict=False):
                with self.subTest(f"{language} {number}: {line}"):
                    if fence:
                        fence = "" if line == fence else fence
                    elif found := re.match(r"\s*(`{3,}|~{3,})", line):
                        fence = found[1]
                        self.assertRegex(before, MARKER)
                    elif "<!--" in line:
                        self.assertIsNotNone(MARKER.fullmatch(line), "a marker with something around it has no effect")
        for language, names in FILES.items():
            for name in names:
                if not name[0].isdigit():
                    self.assertNotRegex((COURSE / language / f"{name}.md").read_text(encoding="utf-8"), "```|~~~")

    def test_every_block_is_used(self) -> None:
        for language, number, text in EACH:
            with self.subTest(f"{language} {number}"):
                self.assertEqual(set(names_in(text)), set(BLOCKS[number]))

    def test_a_block_can_be_read_without_scrolling(self) -> None:
        for place, block in all_blocks():
            for line in block.code().split("\n"):
                with self.subTest(place):
                    self.assertLessEqual(len(line), MAX_WIDTH, line)

    def test_python_can_be_pasted_into_its_prompt(self) -> None:
        for place, block in all_blocks():
            if block.python is not None:
                with self.subTest(place):
                    paste(block.code())
        for code in ("for n in (1, 2):\n    print(n)\nprint(3)", "def f():\n    a = 1\n\n    return a", "f(1,"):
            with self.subTest(code), self.assertRaises(SyntaxError):
                paste(code)

    def test_a_command_is_the_same_on_all_systems(self) -> None:
        for place, block in all_blocks():
            if block.run is not None and block.on is None:
                with self.subTest(place):
                    self.assertNotRegex(re.sub(r'"[^"$`\\]*"', "", block.run), SHELL_SYNTAX)
        for number, blocks in BLOCKS.items():
            with self.subTest(number):
                systems = {block.on for block in blocks.values() if block.on and not block.hidden}
                self.assertIn(systems, ({"posix", "windows"}, set()))

    def test_what_is_done_without_being_shown_is_an_activation_or_was_shown_before(self) -> None:
        for language, number, text in EACH:
            shown = {ACTIVATE}
            for block in (BLOCKS[number][name] for name in names_in(text)):
                if block.hidden:
                    with self.subTest(f"{language} {number}"):
                        self.assertIn(block.code(), shown)
                shown.add(block.code())


class PicturesTest(unittest.TestCase):
    def test_the_diagrams_are_up_to_date(self) -> None:
        self.assertEqual(draw.outdated(), [])
        self.assertGreater(len(draw.texts(PICTURES)), 0)

    def test_a_diagram_has_the_same_parts_in_both_languages(self) -> None:
        for one in PICTURES.glob("*.pt.mmd"):
            two = one.with_name(one.name.replace(".pt.", ".en."))
            with self.subTest(one.name):
                self.assertEqual(*(parts(path.read_text(encoding="utf-8")) for path in (one, two)))
        names = {language: {path.name[:-7] for path in PICTURES.glob(f"*.{language}.mmd")} for language in LANGUAGES}
        self.assertEqual(names["pt"], names["en"])

    def test_every_picture_is_used_by_the_pages_of_its_language(self) -> None:
        found = {path.name for path in PICTURES.iterdir() if path.suffix != ".mmd"}
        for language in LANGUAGES:
            pages = "".join(path.read_text(encoding="utf-8") for path in (COURSE / language).glob("*.md"))
            shown = set(re.findall(r"!\[[^]]+\]\(\.\./pictures/([^)]+)\)", pages))
            other = OTHER[language][0]
            self.assertEqual(shown, {name for name in found if f".{other}." not in name})


if __name__ == "__main__":
    unittest.main()
