"""Random views of a training photo, so that the head does not depend on framing, light and sharpness.

A head trained on one source fails on others with small or off-centre animals, unusual light and soft copies. So each
view changes framing, light and sharpness at once.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Picture = Image.Image
Random = np.random.Generator

# Number of random views. With more, or with smaller animals, the accuracy on left-out sources was lower.
RANDOM_VIEWS = 2


def closer(image: Picture, random: Random) -> Picture:
    """Return a random part of the photo: 35 to 100 % of its area, with its aspect ratio changed by up to a third."""
    area = random.uniform(0.35, 1.0) * image.width * image.height
    aspect = image.width / image.height * np.exp(random.uniform(-0.29, 0.29))
    width = min(image.width, max(1, round(np.sqrt(area * aspect))))
    height = min(image.height, max(1, round(np.sqrt(area / aspect))))
    left = int(random.integers(0, image.width - width + 1))
    top = int(random.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def recolour(image: Picture, random: Random) -> Picture:
    """Change brightness and contrast by up to 40 %, colour by up to 60 %; one in ten becomes grey."""
    for enhancer, strength in (
        (ImageEnhance.Brightness, 0.4),
        (ImageEnhance.Contrast, 0.4),
        (ImageEnhance.Color, 0.6),
    ):
        image = enhancer(image).enhance(random.uniform(1 - strength, 1 + strength))
    return image.convert("L").convert("RGB") if random.random() < 0.1 else image


def soften(image: Picture, random: Random) -> Picture:
    """Blur three in ten by 0.3 to 1.2 pixels, because the sources differ most in sharpness."""
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.2))) if random.random() < 0.3 else image


def training_views(image: Picture, random: Random, count: int = 2 + RANDOM_VIEWS) -> list[Picture]:
    """Return the first `count` of: the RGB photo itself, its mirror image, and RANDOM_VIEWS random parts of it."""
    views = [image, ImageOps.mirror(image)][:count]
    for _ in range(count - 2):
        view = closer(image, random)
        view = ImageOps.mirror(view) if random.random() < 0.5 else view
        views.append(soften(recolour(view, random), random))
    return views


def plain_view(image: Picture, random: Random) -> list[Picture]:
    """Return the photo as it is served."""
    return [image]


def photo_and_mirror_image(image: Picture, random: Random) -> list[Picture]:
    """Return the photo as it is served, and its mirror image."""
    return [image, ImageOps.mirror(image)]
