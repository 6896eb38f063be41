"""Attacks with pictures: one case per hostile picture, and some with many at once."""

import functools
import io
import json
from base64 import b64encode
from collections.abc import Callable, Sequence

from PIL import Image

from tools.chaos.attacks.attack import ANSWER_S, Attack, attack
from tools.chaos.attacks.wire import Wire
from tools.chaos.hostile import Hostile, load_all
from tools.service import PROJECT

# The limit of a batch (limits.batch_items).
BATCH = 32


def send_one_after_the_other(one: Attack, picture: Hostile, least: int = 1) -> None:
    """Send the picture on one connection, one after the other."""
    wire, body = Wire(one.http_port, ANSWER_S * one.pace.slack + 1), picture.make()
    for _ in range(least - 1):
        one.post(body, picture.media_type, wire=wire)
    one.for_a_while(lambda: one.post(body, picture.media_type, wire=wire))
    wire.close()


def register(picture: Hostile) -> None:
    """Register a case that sends one picture again and again on one connection."""
    run = functools.partial(send_one_after_the_other, picture=picture)
    run.__doc__ = picture.make.__doc__
    attack(picture.name, short=picture.is_short, prepare=picture.make)(run)


for _picture in load_all().values():
    register(_picture)
PICTURES = load_all()


REFUSED = "TIFF: 51 MP of RGBA 16 bit, cut off, 150 bytes"
FLAT = "AVIF: 51 MP in 970 bytes"
SLOW, SLOW_FOR_ALL = "JPEG: progressive, last scan repeated 1,500 times", "JPEG: progressive, 12 MP, 20,000 empty scans"
LARGEST = (
    "TIFF: 51 MP of RGBA 16 bit, complete",
    "AVIF: 51 MP of 4:4:4 and alpha",
    "WEBP: 25 MP in 50 bytes, with all transforms",
    "JPEG: progressive CMYK, 51 MP, one empty scan",
)
HIDDEN = ("TIFF: tile of 20,000 x 20,000 in 16 x 16, no pixels", "AVIF: 144 MP that say that they are 16 x 16")


def ready(*names: str) -> Callable[[], object]:
    """Return a function that creates these pictures."""
    return lambda: [PICTURES[name].make() for name in names]


@attack("pictures: 144 bytes of TIFF, fifty times", short=True, prepare=ready(REFUSED))
def fifty(one: Attack) -> None:
    """Each is rejected. Its 400 MB may stay in memory until a garbage collection."""
    send_one_after_the_other(one, PICTURES[REFUSED], least=50)


@attack("pictures: the largest of each format, four at once", photo_s=None, prepare=ready(*LARGEST))
def largest_at_once(one: Attack) -> None:
    """Each may need all the memory for pictures; four connections send them at the same time."""
    at_once(one, LARGEST)


@attack("pictures: hidden sizes, four at once", photo_s=None, prepare=ready(*HIDDEN))
def hidden_at_once(one: Attack) -> None:
    """Each claims 16 x 16 pixels. If the header is believed, none of them waits for memory."""
    at_once(one, HIDDEN * 2)


@attack("pictures: slow ones, four at once", photo_s=None, prepare=ready(SLOW_FOR_ALL))
def slow_at_once(one: Attack) -> None:
    """More pictures than cores. Each needs more time than a request may take."""
    at_once(one, [SLOW_FOR_ALL] * 4)


def at_once(one: Attack, names: Sequence[str]) -> None:
    """Send each picture from a connection of its own, at the same time."""

    def send(number: int) -> None:
        picture = PICTURES[names[number]]
        one.for_a_while(lambda: one.post(picture.make(), picture.media_type))

    one.at_once(len(names), send)


def send_batch(one: Attack, picture: bytes) -> None:
    """Send as many copies as one batch may have."""
    text = b64encode(picture).decode()
    body = json.dumps({"images_b64": [text] * BATCH}).encode()
    one.for_a_while(lambda: one.post(body, "application/json", "/predict/batch"))


@attack("batch: 32 flat AVIFs of 51 MP", short=True, prepare=ready(FLAT))
def batch_of_flat_pictures(one: Attack) -> None:
    """A request of 42 KB with 1.6 gigapixels takes seconds to decode, and other clients may have to wait."""
    send_batch(one, PICTURES[FLAT].make())


@attack("batch: 32 slow JPEGs", prepare=ready(SLOW))
def batch_of_slow_pictures(one: Attack) -> None:
    """Each of them needs more time than the whole request may take."""
    send_batch(one, PICTURES[SLOW].make())


@attack("batch: 32 TIFFs of 144 bytes", prepare=ready(REFUSED))
def batch_of_refused_pictures(one: Attack) -> None:
    """Each is rejected separately within one request."""
    send_batch(one, PICTURES[REFUSED].make())


@functools.cache
def unsure() -> bytes:
    """Return a PNG of 4 megapixels and few bytes: a cat beside a dog, so the model is not sure what it shows."""
    both = Image.new("RGB", (400, 400))
    for number, name in enumerate(("cat_1.jpg", "dog_2.jpg")):
        with Image.open(PROJECT / "images" / name) as photo:
            both.paste(photo.convert("RGB").resize((200, 400)), (200 * number, 0))
    file = io.BytesIO()
    both.quantize(64).resize((2000, 2000), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


@attack("batch: 32 photos that need two looks", prepare=unsure)
def batch_of_unsure_photos(one: Attack) -> None:
    """Each is decoded twice and computed twice. Other clients may have to wait, but not twice as long."""
    send_batch(one, unsure())
