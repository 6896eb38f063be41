"""Tests how a page of the course becomes HTML: its headings, links, tables, code, and the HTML in it."""

import re
import unittest
from typing import Any

from preprocess_service.app.api.course.markdown import render
from unit_test.preprocess_service.course_pages_test import Elements

HOSTILE = """# <img src=x onerror=alert(1)>

<script>alert(1)</script>

<details open onclick="alert(1)"><summary style="color:red">a</summary>

<!-- <b> --> text <b onclick=alert(1)>bold</b> [a](javascript:alert(1)) [b](data:text/html,x) [c](//evil.example/)
[d](vbscript:x) [e](mailto:a@b.example) ![f](https://evil.example/x.png) ![g](javascript:x)

<!-- not closed <script>alert(1)</script>
"""


class RenderingTest(unittest.TestCase):
    def body(self, text: str, served: Any = ()) -> str:
        return render(text, "pt/01_a.md", served, "Table").body

    def test_headings_have_the_anchors_of_github(self) -> None:
        text = "# Título\n## O que é `serve`? Já!\n## a_b - c\n## a_b - c\n"
        self.assertEqual(Elements(self.body(text)).values("id"), ["título", "o-que-é-serve-já", "a_b---c", "a_b---c-1"])
        self.assertEqual(render(text, "pt/01_a.md", (), "Table").title, "Título")

    def test_links_within_the_course_stay_as_they_are(self) -> None:
        served = {"pt/01_a.md", "pt/README.md", "en/01_a.md", "en", "pictures/a.svg"}
        links = ["README.md", "01_a.md#x", "#x", "../en/01_a.md", "../en/", "https://www.python.org/a?b=c"]
        body = self.body("".join(f"[a]({link}) " for link in links) + "![A b](../pictures/a.svg)", served)
        elements = Elements(body)
        self.assertEqual(elements.values("href"), links)
        self.assertEqual((elements.values("src"), elements.values("alt")), (["../pictures/a.svg"], ["A b"]))
        self.assertEqual(
            [attributes for _, attributes in elements.found if attributes.get("rel") == "noopener"],
            [{"href": links[-1], "rel": "noopener"}],
        )

    def test_links_out_of_it_become_text_with_the_path(self) -> None:
        for link, expected in (
            ("[the **app**](../../../app/x.py)", "the <strong>app</strong> (<code>app/x.py</code>)"),
            ("[`app/x.py`](../../../app/x.py)", "<code>app/x.py</code>"),
            ("[app/x.py](../../../app/x.py)", "app/x.py"),
            ("[`x.py`](../../../app/x.py)", "<code>x.py</code> (<code>app/x.py</code>)"),
            ("[errors](../../api.md#errors)", "errors (<code>docs/api.md</code>)"),
            ("[code](../../../course/)", "code (<code>course/</code>)"),
            ("[a](../blocks/01.yaml)", "a (<code>docs/course/blocks/01.yaml</code>)"),
            ("[a](99_none.md) b", "a (<code>docs/course/pt/99_none.md</code>) b"),
            ("![a picture](../../../images/page.png)", "a picture"),
        ):
            with self.subTest(link):
                self.assertEqual(self.body(link, {"pt/README.md"}), f"<p>{expected}</p>\n")

    def test_raw_html_is_text_but_for_details_and_comments(self) -> None:
        elements = Elements(self.body(HOSTILE))
        allowed = {"h1", "p", "em", "strong", "code"}
        self.assertLessEqual({tag for tag, _ in elements.found}, allowed, elements.found)
        self.assertEqual([attributes for tag, attributes in elements.found if tag != "h1" and attributes], [])
        kept = self.body("<details><summary>a &lt;b&gt; & c</summary>\n\nb\n\n</details>\n\n<!-- note -->\n")
        self.assertEqual(
            re.sub(r"\n+", "\n", kept).strip(),
            "<details><summary>a &lt;b&gt; &amp; c</summary>\n<p>b</p>\n</details>",
        )

    def test_tables_and_code_can_be_scrolled_by_keyboard_and_have_no_style(self) -> None:
        body = self.body("| a | b |\n| :-: | --: |\n| 1 | <b> |\n\n```python\nx < 1\n```\n\n    y > 2\n")
        self.assertIn('<div class="wide" role="group" aria-label="Table" tabindex="0"><table>', body)
        self.assertIn('<th class="center">a</th>', body)
        self.assertIn('<td class="right">&lt;b&gt;</td>', body)
        self.assertEqual(re.findall(r'<pre tabindex="0"><code>(.*?)\n</code>', body, re.S), ["x &lt; 1", "y &gt; 2"])
        self.assertNotIn("style", body)


if __name__ == "__main__":
    unittest.main()
