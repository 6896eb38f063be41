"""Draws "photos" of circles, squares and triangles: one folder per label, as a photographer would sort them.

    python course/shapes/draw.py shapes --photos 40

They stand in for your own photos. The same seed draws the same photos. --look draws another kind: `outlines`, or
`backlight`.
"""

import argparse
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

LABELS = ("circle", "square", "triangle")
LOOKS = ("usual", "outlines", "backlight")
WIDTH, HEIGHT = 160, 120
# The corners of a shape: many of them look like a circle.
CORNERS = {"circle": 72, "square": 4, "triangle": 3}

Colour = tuple[int, int, int]


def photo(label: str, rng: random.Random, look: str = "usual") -> Image.Image:
    """Return one photo: a shape of a random colour, size, place and rotation, with blur and noise."""
    dark, light = colour(rng, 0, 110), colour(rng, 150, 256)
    ink, background = (dark, light) if look == "backlight" else (light, dark)
    image = Image.new("RGB", (WIDTH, HEIGHT), background)
    radius, turn = rng.uniform(22, 42), rng.uniform(0, 2 * math.pi)
    x, y = rng.uniform(62, WIDTH - 62), rng.uniform(48, HEIGHT - 48)
    angles = [turn + 2 * math.pi * corner / CORNERS[label] for corner in range(CORNERS[label])]
    corners = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    line = ImageDraw.Draw(image)
    if look == "outlines":
        line.line([*corners, corners[0], corners[1]], ink, width=3)
    else:
        line.polygon(corners, ink)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    noise = Image.frombytes("RGB", image.size, rng.randbytes(3 * WIDTH * HEIGHT))
    return Image.blend(image, noise, rng.uniform(0.05, 0.2))


def colour(rng: random.Random, least: int, end: int) -> Colour:
    """Return a colour that is made of numbers in this range."""
    return rng.randrange(least, end), rng.randrange(least, end), rng.randrange(least, end)


def draw(folder: Path, photos: int, seed: int = 1, look: str = "usual") -> None:
    """Write `photos` photos of each label into the folder. Photos of other seeds and looks stay in it."""
    rng = random.Random(f"{seed} {look}")
    for label in LABELS:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(1, photos + 1):
            photo(label, rng, look).save(folder / label / f"{look}_{seed}_{number:03}.jpg", quality=90)
    print(f"{folder}: {photos} photos each of {', '.join(LABELS)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is created; has one folder per label")
    parser.add_argument("--photos", type=int, default=40, help="of each label (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="another one draws other photos (default: 1)")
    parser.add_argument("--look", choices=LOOKS, default="usual", help="what the photos look like (default: filled)")
    given = parser.parse_args()
    draw(given.folder, given.photos, given.seed, given.look)
