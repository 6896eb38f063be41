"""Charts for the reports: a reliability diagram, a Pareto plot, and a contact sheet of mistakes."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageOps

from tools.evaluation.measures import Bin

matplotlib.use("Agg")  # writes files and needs no screen

from matplotlib import pyplot

THUMBNAIL = 200
COLUMNS = 6
CAPTION = 16


def draw_reliability(bins: Sequence[Bin], error: float, target: Path) -> None:
    """Draw accuracy against confidence for each bin, with the diagonal on which both are equal; PNG."""
    figure, axes = pyplot.subplots(figsize=(4.5, 4.5))
    axes.plot([0.5, 1], [0.5, 1], "--", color="grey", label="calibrated")
    sizes = [20 + 200 * found.count / sum(each.count for each in bins) for found in bins]
    axes.scatter([found.confidence for found in bins], [found.accuracy for found in bins], s=sizes)
    axes.set(xlabel="confidence", ylabel="accuracy", title=f"reliability, ECE {error:.4f}", xlim=(0.48, 1.02))
    axes.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def draw_pareto(points: Sequence[tuple[str, float, float]], target: Path) -> None:
    """Draw points of (name, relative cost, accuracy in percent); PNG."""
    figure, axes = pyplot.subplots(figsize=(9, 5))
    for number, (name, cost, accuracy) in enumerate(points):
        marker = "os^Dv"[number % 5]
        axes.scatter(cost, accuracy, marker=marker, color=f"C{number % 10}", label=name, s=45)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set(xlabel="cost on one core, EfficientNet-Lite0 at 224 = 1", ylabel="mean over left-out sources, %")
    axes.margins(0.15)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def contact_sheet(mistakes: Sequence[tuple[Path, str]], target: Path) -> None:
    """Draw photos in rows with a caption each; PNG. A photo that Pillow can't open is grey."""
    rows = max(1, -(-len(mistakes) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * THUMBNAIL, rows * (THUMBNAIL + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (path, caption) in enumerate(mistakes):
        left, top = number % COLUMNS * THUMBNAIL, number // COLUMNS * (THUMBNAIL + CAPTION)
        sheet.paste(_thumbnail(path), (left, top))
        draw.text((left + 3, top + THUMBNAIL + 2), caption, "black")
    sheet.save(target)


def _thumbnail(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            size = (THUMBNAIL - 4, THUMBNAIL - 4)
            return ImageOps.pad(ImageOps.exif_transpose(image).convert("RGB"), size, color="black")
    except OSError:
        return Image.new("RGB", (THUMBNAIL - 4, THUMBNAIL - 4), "grey")
