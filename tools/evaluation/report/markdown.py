"""Writes Markdown in which names of classes and files are only text, whatever characters they have."""

import re
from collections.abc import Iterable, Sequence

from tools.evaluation.measures import Proportion

# What Markdown may read as more than a character: anywhere, in an entity, before a word, and at the
# beginning of a line. No `_` after a word needs it: it ends what another one began.
_SPECIAL = re.compile(r"[\\`*\[\]~<>|$]|&(?=#?\w+;)|(?<!\w)_++(?!\s)|^[-+#=]|(?<=^\d)[.)]|(?<=^\d\d)[.)]")
# Entities for what HTML, tables and formulas read: a backslash does not help everywhere.
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "$": "&#36;"}
_MOST = 80


def text(value: object, most: int = _MOST) -> str:
    """Return any text for a line or a table of Markdown, cut to `most` characters."""
    return _SPECIAL.sub(_escaped, short(value, most))


def short(value: object, most: int) -> str:
    """Return a text in one line, without control characters, cut to `most` characters."""
    line = "".join(each if each.isprintable() else " " for each in str(value))
    line = " ".join(line.split()) or "(no name)"
    return line if len(line) <= most else f"{line[: most - 1]}…"


def code(lines: str) -> str:
    """Return a block of code. The fence is longer than any in the code."""
    longest = max((len(found) for found in re.findall("`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{lines}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. The cells are Markdown. Columns whose head begins with `#` are aligned to the right."""
    names = [name.removeprefix("#") for name in head]
    lines = [names, ["---:" if name.startswith("#") else "---" for name in head], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    """Return a share of 0 to 1 in percent; never 100 % or 0 % of a share that is only near it."""
    shown = f"{100 * share:.1f}"
    if shown == "100.0" and share < 1:
        shown = "over 99.9"
    return f"{shown} %"


def interval(share: Proportion) -> str:
    """Return the 95 % interval in percent."""
    low, high = share.interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def cells(share: Proportion) -> tuple[str, str]:
    """Return a share and its interval for two cells of a table; "-" if nothing was counted."""
    return (percent(share.value), interval(share)) if share.total else ("-", "-")


def duration(seconds: float) -> str:
    """Return a time in seconds or minutes."""
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _escaped(match: re.Match[str]) -> str:
    return _ENTITIES.get(match[0]) or "".join(f"\\{character}" for character in match[0])
