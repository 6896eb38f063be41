"""Shows what a photo on its side does to the service's answer.

    python course/breaks/sideways_photo.py

A phone stores the pixels as its sensor sees them, and notes in the file's EXIF data how to turn them (orientation). The
script makes such files from a photo of a dog and from a part of it. It sends each one twice: with upright pixels, and
with turned pixels and the note. Both files look the same on a screen.
"""

import io
from pathlib import Path

from PIL import Image

from course_client import predict, shown

PHOTO = Path(__file__).parents[2] / "images" / "dog_1.jpg"
MUZZLE = (307, 154, 512, 358)
# Says: turn the pixels by 90 degrees, to the left, to see the photo upright.
ORIENTATION_TAG, TURN_LEFT = 274, 8


def jpeg(image: Image.Image, orientation: int = 1) -> bytes:
    """Return the picture as a JPEG file with this orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION_TAG] = orientation
    image.save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


def main() -> None:
    with Image.open(PHOTO) as photo:
        pictures = {"dog_1.jpg": photo.convert("RGB"), "its muzzle": photo.convert("RGB").crop(MUZZLE)}
    for name, image in pictures.items():
        sideways = image.transpose(Image.Transpose.ROTATE_270)
        answers = shown(predict(jpeg(image))), shown(predict(jpeg(sideways, TURN_LEFT)))
        print(f"{name:<12}upright: {answers[0]}   sideways: {answers[1]}")


if __name__ == "__main__":
    main()
