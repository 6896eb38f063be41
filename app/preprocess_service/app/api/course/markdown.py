"""Turns a page of the course from Markdown into HTML.

The only elements in it are those of Markdown, ``<details>`` and ``<summary>``. Other HTML in a page is shown as text.
"""

import functools
import html
import itertools
import posixpath
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# Where the course is in the project. Its pages link files of the project relative to this folder.
PLACE = "docs/course"
_COMMENT_OR_TAG = re.compile(r"<!--.*?-->|(</?(?:details|summary)>)", re.DOTALL)


@dataclass(frozen=True)
class Rendered:
    """A page: its first heading as plain text, and its HTML."""

    title: str
    body: str


def render(text: str, page: str, served: Container[str], table_name: str) -> Rendered:
    """Render a page.

    Args:
        text: its Markdown.
        page: its path in the course, for example ``pt/README.md``.
        served: the paths in the course that links may lead to. The target of any other relative link becomes text.
        table_name: what a screen reader calls a table.
    """
    parser = _parser()
    tokens = parser.parse(text)
    title = ""
    seen: dict[str, int] = {}
    for token, content in itertools.pairwise(tokens):
        if token.type == "heading_open":
            words = "".join(part.content for part in content.children or () if part.type in ("text", "code_inline"))
            title = title or words
            if words:
                token.attrSet("id", _anchor(words, seen))
        elif token.type in ("th_open", "td_open"):
            _align(token)
    for token in tokens:
        if token.type == "inline":
            token.children = _with_served_links(token.children or [], page, served)
    return Rendered(title, parser.renderer.render(tokens, parser.options, {"table": html.escape(table_name)}))


@functools.cache
def _parser() -> "MarkdownIt":
    # Imported when the first page is rendered: the service needs no memory for it if nobody reads the course.
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    for rule, function in (
        ("html_block", _allowed_html),
        ("html_inline", _allowed_html),
        ("fence", _code),
        ("code_block", _code),
        ("table_open", _table_open),
        ("table_close", _table_close),
    ):
        parser.add_render_rule(rule, function)
    return parser


def _allowed_html(_: Any, tokens: "Sequence[Token]", index: int, *__: Any) -> str:
    parts, end = [], 0
    text = tokens[index].content
    for found in _COMMENT_OR_TAG.finditer(text):
        parts += [_escaped(text[end : found.start()]), found[1] or ""]
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    """Return raw HTML as text that shows it. References such as ``&lt;`` keep their meaning."""
    return html.escape(html.unescape(text))


def _code(_: Any, tokens: "Sequence[Token]", index: int, *__: Any) -> str:
    # It may be wider than a phone, so the keyboard must reach it to scroll it.
    return f'<div class="listing"><pre tabindex="0"><code>{html.escape(tokens[index].content)}</code></pre></div>\n'


def _table_open(_: Any, tokens: "Sequence[Token]", index: int, options: Any, env: Any) -> str:
    return f'<div class="wide" role="group" aria-label="{env["table"]}" tabindex="0"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"


def _anchor(words: str, seen: dict[str, int]) -> str:
    """Return the anchor that GitHub gives a heading; headings with the same words are numbered."""
    anchor = re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-")
    count = seen[anchor] = seen.get(anchor, -1) + 1
    return f"{anchor}-{count}" if count else anchor


def _align(cell: "Token") -> None:
    """Replace the style of an aligned cell, which the Content-Security-Policy forbids, by a class."""
    style = str(cell.attrs.pop("style", ""))
    if style:
        cell.attrSet("class", style.removeprefix("text-align:"))


def _with_served_links(tokens: "list[Token]", page: str, served: Container[str]) -> "list[Token]":
    """Return a line's tokens. A link to a file that is not served becomes its text and the file's path."""
    from markdown_it.token import Token

    found: list[Token] = []
    path, words = "", ""
    for token in tokens:
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if token.type == "link_open":
            words, path = "", _unserved(target, page, served)
            if urlsplit(target).netloc:
                token.attrSet("rel", "noopener")
            token.hidden = bool(path)
        elif token.type == "image" and (urlsplit(target).netloc or _unserved(target, page, served)):
            # The policy of the page allows no picture of another host.
            token = Token("text", "", 0, content=token.content)
        elif token.type == "link_close" and path:
            token.hidden = True
            if words != path:
                opening, closing = (Token("text", "", 0, content=content) for content in (" (", ")"))
                found += [opening, Token("code_inline", "code", 0, content=path), closing]
        words += token.content
        found.append(token)
    return found


def _unserved(target: str, page: str, served: Container[str]) -> str:
    """Return the path in the project of what a link leads to; "" if the link works on the service's page."""
    parts = urlsplit(target)
    if parts.scheme in ("http", "https"):
        return ""
    if parts.scheme or parts.netloc:
        return target
    if not parts.path:
        return ""
    path = unquote(parts.path)
    found = posixpath.normpath(posixpath.join(PLACE, posixpath.dirname(page), path))
    if posixpath.relpath(found, PLACE) in served:
        return ""
    return f"{found}/" if path.endswith("/") else found
