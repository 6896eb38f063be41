"""Sends thousands of files that are rejected, and checks that memory does not grow.

    python run.py chaos --attacks --refused 10000

Rejections are easily forgotten in tests: an exception that is kept also keeps what was decoded. The first hundred files
are a warm-up. Promise: after it, the memory of the preprocess service grows by at most the factor ``MAY_GROW``.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image
from tqdm import tqdm

from tools.chaos.attacks.attack import ANSWER_S
from tools.chaos.attacks.pair import Pair
from tools.chaos.attacks.watch import Tree
from tools.chaos.attacks.wire import Cut, Wire
from tools.chaos.hostile import heif, load_all
from tools.load import PHOTOS

FIRST = 100
# Number of parts; after each part memory is measured, which takes a pause. For few files there are few parts.
PARTS = 10
FEW, FEW_PARTS = 1000, 2
MAY_GROW = 1.1
SETTLE_S = 2.0
# Hostile pictures that are rejected quickly, because they are broken or too large.
QUICK = (
    "TIFF: 51 MP of RGBA 16 bit, cut off, 150 bytes",
    "TIFF: BigTIFF with 2^60 tags",
    "BMP: 51 MP of 32 bits, of which none came",
    "JPEG: two sizes, the small one last",
    "JPEG: no height in the header, but after the scan (DNL)",
    "PNG: 51 MP, cut off at 90 %",
    "PNG: two sizes, the large one after the small one",
    "WEBP: canvas of 16,384 x 16,384, frame of 1 x 1",
    "WEBP: cut off, 25 MP",
    "AVIF: 51 MP, cut off",
    "HEIF: 144 MP that say that they are 16 x 16",
    "HEIF: a grid that is a part of itself",
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


@dataclass
class Refused:
    """Megabytes after the first files and after each part, the number of answers by status, and the broken promises."""

    megabytes: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def judge(self) -> None:
        first, most = self.megabytes[0], max(self.megabytes)
        if most > MAY_GROW * first:
            self.broken.append(f"{first:.1f} MB after {FIRST} refused files, up to {most:.1f} MB after more")
        for status, count in self.statuses.items():
            if status >= 500:
                self.broken.append(f"{count} answered with {status}")


def files(seed: int = 1) -> Iterator[tuple[bytes, str]]:
    """Yield an endless series of files and their media types: cut off, with wrong bytes, random, hostile."""
    chance = random.Random(seed)
    sound = [(PHOTOS[0].read_bytes(), "image/jpeg"), (heif.SAMPLE.read_bytes(), "image/heif")]
    for name in FORMATS:
        file = BytesIO()
        Image.open(PHOTOS[0]).resize((160, 120)).save(file, name)
        sound.append((file.getvalue(), f"image/{name.lower()}"))
    hostile = [one for name, one in load_all().items() if name in QUICK]
    while True:
        data, media_type = chance.choice(sound)
        match chance.randrange(5):
            case 0:
                yield data[: chance.randrange(len(data))], media_type
            case 1:
                at = chance.randrange(len(data))
                yield data[:at] + chance.randbytes(200) + data[at + 200 :], media_type
            case 2:
                yield b'{"image_b64": "%d!"}' % chance.getrandbits(99), "application/json"
            case 3:
                yield chance.randbytes(5000), "application/octet-stream"
            case _:
                one = chance.choice(hostile)
                yield one.make(), one.media_type


def run(count: int, is_quiet: bool = False) -> Refused:
    """Send ``FIRST`` files, and then ``count`` more that are rejected, to a new pair."""
    told = Refused()
    with Pair() as pair, tqdm(total=FIRST + count, unit="file", desc="refused", disable=is_quiet) as progress:
        wire, stream, tree = Wire(pair.ports["http"], ANSWER_S), files(), pair.trees["preprocess service"]
        parts = FEW_PARTS if count < FEW else PARTS
        for part in (FIRST, *[max(1, count // parts)] * parts):
            refused = 0
            while refused < part:
                data, media_type = next(stream)
                status = send(wire, data, media_type)
                told.statuses[status] += 1
                # Some files with wrong bytes are still valid pictures.
                if status != 200:
                    refused += 1
                    progress.update()
            told.megabytes.append(settled(tree))
        wire.close()
    told.judge()
    return told


def settled(tree: Tree) -> float:
    """Return the memory after a pause in which the service can release some."""
    time.sleep(SETTLE_S)
    return tree.megabytes()


def send(wire: Wire, data: bytes, media_type: str) -> int:
    """Return the status of the answer; 599 if there is none."""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nContent-Length: {len(data)}\r\n\r\n"
    try:
        wire.send(head.encode() + data)
        return wire.answer().status
    except (Cut, OSError):
        wire.reconnect()
        return 599
