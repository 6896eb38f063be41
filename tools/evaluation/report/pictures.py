"""Draws pictures for the reports: confusion matrix, reliability, the worst mistakes, and costs of candidates.

Names of classes and files are drawn as text, whatever characters they have. A character that the font lacks is a box;
so classes also have numbers, those of `labels.txt` from 0.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from preprocess_service.app.errors import ServiceError
from tools.evaluation.measures import Proportion
from tools.evaluation.report.markdown import short
from tools.evaluation.report.results import Results
from tools.service import PreprocessorConfig, decode_image

matplotlib.use("Agg")  # writes files and needs no screen

from matplotlib import ft2font, pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

THUMBNAIL = 200
COLUMNS = 6
MOST_PHOTOS = 36
# Up to these numbers of classes, the matrix has the counts, or the names.
WITH_COUNTS, WITH_NAMES = 20, 60
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_FONT_SIZE, _LINE = 12, 16
_NAME = 24
# Larger files are not read for a thumbnail.
_MOST_PIXELS = 51_000_000
_MOST_BYTES = 100 << 20
# How a photo for a thumbnail is decoded.
_SMALL = PreprocessorConfig.model_validate(
    {"size": {"height": THUMBNAIL, "width": THUMBNAIL}, "resize_mode": "pad", "decode": "fast"}
)


def draw_confusion(results: Results, target: Path) -> None:
    """Draw the confusion matrix: right answers in blue, mistakes in red, each as a share of its row."""
    matrix = results.matrix()
    classes = len(results.labels)
    has_names = classes <= WITH_NAMES
    side = np.clip(0.42 * classes, 3, 9) if classes <= WITH_COUNTS else np.clip(0.2 * classes, 9, 14)
    figure, axes = pyplot.subplots(figsize=(side + 2 * has_names, side + 2 * has_names), layout="constrained")
    axes.imshow(_colours(matrix), interpolation="nearest")
    if has_names:
        names = [drawable(f"{number} {short(label, _NAME)}") for number, label in enumerate(results.labels)]
        size = 9 if classes <= WITH_COUNTS else 7
        axes.set_xticks(range(classes), names, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(classes), names, fontsize=size, parse_math=False)
    if classes <= WITH_COUNTS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            dark = matrix[row, column] > 0.6 * matrix[row].sum()
            colour = "white" if dark else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=8)
    if 2 < classes <= WITH_NAMES:
        axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="#e4e4e4", linewidth=0.4)
        axes.tick_params(which="minor", length=0)
    names_of = "class" if has_names else "class number"
    axes.set(xlabel=f"answered {names_of}", ylabel=f"true {names_of}")
    _save(figure, target)


def draw_reliability(results: Results, target: Path) -> None:
    """Draw the accuracy of each bin of confidence with its 95 % interval, the diagonal, and the number of photos."""
    bins = results.bins()
    least = min(0.5, 1 / len(results.labels))
    figure, (axes, counts) = pyplot.subplots(
        2, 1, figsize=(4.8, 5.6), sharex=True, height_ratios=(4, 1), layout="constrained"
    )
    axes.plot([0, 1], [0, 1], "--", color="grey", label="confidence = accuracy")
    shares = [Proportion(round(found.accuracy * found.count), found.count) for found in bins]
    middles = [found.confidence for found in bins]
    values = [share.value for share in shares]
    # Rounding may put the end of an interval on the wrong side of the value.
    ends = [
        [max(0.0, share.value - share.interval[0]) for share in shares],
        [max(0.0, share.interval[1] - share.value) for share in shares],
    ]
    axes.errorbar(middles, values, ends, fmt="o", capsize=3, label="accuracy, 95 % interval")
    counts.bar(middles, [found.count for found in bins], width=0.03)
    title = f"{len(results.photos)} photos, calibration error {results.calibration_error:.3f}"
    axes.set(ylabel="accuracy", title=title, ylim=(-0.03, 1.03), xlim=(least - 0.03, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    counts.xaxis.set_major_formatter(PercentFormatter(1))
    counts.set(xlabel="confidence", ylabel="photos")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    _save(figure, target)


def draw_mistakes(results: Results, target: Path, most: int = MOST_PHOTOS) -> int:
    """Draw the wrong answers with the highest confidence, each with both names, as JPEG; return their number.

    Nothing is written if there is no mistake.
    """
    numbers = results.mistakes()[:most]
    if not numbers:
        return 0
    font = _font()
    columns = min(COLUMNS, max(3, len(numbers)))
    rows = -(-len(numbers) // columns)
    height = THUMBNAIL + 2 * _LINE + 8
    sheet = Image.new("RGB", (columns * THUMBNAIL, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, number in enumerate(numbers):
        left, top = place % columns * THUMBNAIL, place // columns * height
        sheet.paste(_thumbnail(results.photos[number].path), (left + 2, top + 2))
        actual, predicted = (results.labels[int(found[number])] for found in (results.actual, results.predicted))
        sure = f" {results.confidence[number]:.0%}"
        lines = (("true: ", actual, ""), ("answer: ", predicted, sure))
        for line, (begin, name, end) in enumerate(lines):
            prefix = f"{place + 1}. {begin}" if line == 0 else begin
            words = fitted(drawable(name), lambda name, a=prefix, b=end: font.getlength(f"{a}{name}{b}"))  # type: ignore[misc]
            colour = "black" if line == 0 else "#b00020"
            draw.text((left + 4, top + THUMBNAIL + line * _LINE), f"{prefix}{words}{end}", colour, font)
    sheet.save(target, quality=88, subsampling=0)
    return len(numbers)


def draw_pareto(points: Sequence[tuple[str, float, float]], target: Path) -> None:
    """Draw points of (name, relative cost, accuracy in percent)."""
    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for number, (name, cost, accuracy) in enumerate(points):
        marker = "os^Dv"[number % 5]
        axes.scatter(cost, accuracy, marker=marker, color=f"C{number % 10}", label=name, s=45)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set(xlabel="cost on one core, EfficientNet-Lite0 at 224 = 1", ylabel="mean over left-out sources, %")
    axes.margins(0.15)
    _save(figure, target)


def drawable(text: str) -> str:
    """Return a text in one line, with a box for each character that the font lacks."""
    return "".join(each if ord(each) in _characters() else "\N{WHITE SQUARE}" for each in text)


def fitted(name: str, length: Callable[[str], float]) -> str:
    """Return as much of a name as a thumbnail's caption has room for."""
    shown = short(name, 2 * _NAME)
    while len(shown) > 1 and length(shown) > THUMBNAIL - 8:
        shown = f"{shown.removesuffix('…')[:-1]}…"
    return shown


def _colours(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64 [classes, classes, 3]: white for 0. Even one mistake can be seen."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    strength = np.where(matrix > 0, 0.2 + 0.8 * np.sqrt(shares), 0)[..., None]
    blue, red = np.array([0.03, 0.27, 0.58]), np.array([0.75, 0.06, 0.1])
    full = np.where(np.eye(len(matrix), dtype=bool)[..., None], blue, red)
    return np.asarray(1 - strength * (1 - full))


def _save(figure: Figure, target: Path) -> None:
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def _thumbnail(path: Path) -> Image.Image:
    """Return the whole photo as a square; grey if it can't be read any more."""
    side = THUMBNAIL - 4
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise OSError("too large")
        return ImageOps.pad(decode_image(path.read_bytes(), _MOST_PIXELS, _SMALL), (side, side), color="black")
    except (OSError, ServiceError):
        return Image.new("RGB", (side, side), "grey")


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_FONT), _FONT_SIZE)


@cache
def _characters() -> frozenset[int]:
    return frozenset(ft2font.FT2Font(str(_FONT)).get_charmap())
