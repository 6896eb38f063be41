"""TIFF (revision 6.0): its supported variants, and corrections for cases that Pillow reads wrongly."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import Any, cast

from PIL import TiffImagePlugin
from PIL.TiffImagePlugin import II, MM, OPEN_INFO, TiffImageFile

from preprocess_service.app.imaging.colour import Levels
from preprocess_service.app.imaging.kinds import unsupported_variant

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
_SAMPLES, _PLANAR, _SUB_DIRECTORIES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _DNG_VERSION = 277, 284, 330, 338, 339, 50706
# Not a TIFF tag: the key under which `read_directory` returns the offset of the next directory.
_NEXT = 0
_TAGS = {_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER} | {
    *(_SAMPLES, _PLANAR, _SUB_DIRECTORIES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _DNG_VERSION)
}
# The `struct` format letters of integers, by TIFF and BigTIFF type.
_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 18: "Q"}
# Limits: no tag that is read here has more values, and no camera writes more directories.
_MOST_VALUES, _MOST_DIRECTORIES = 64, 16
_OLD_JPEG, _JPEG = 6, 7
_WHITE_IS_ZERO, _YCBCR, _COLOUR_FILTER_ARRAY, _LINEAR_RAW = 0, 6, 32803, 34892
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32844: 1, 32845: 3}
_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 4: "untyped", 5: "complex", 6: "complex"}
_SIGNED = 2
_DEPTHS = {1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 64}
# Codecs that libtiff knows but Pillow's wheels do not include.
_CODECS = {
    **{
        _OLD_JPEG: "old-style JPEG",
        32766: "NeXT",
        32771: "16-bit padding",
        32809: "ThunderScan",
        34661: "JBIG",
        34887: "LERC",
    },
    **{34676: "SGILog", 34677: "SGILog24", 34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34892: "JPEG"},
    **{33004: "JPEG 2000", 34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR", 50001: "WebP", 50002: "JPEG XL"},
    **{52546: "JPEG XL", 32767: "Sony RAW", 34713: "Nikon RAW", 65535: "Pentax RAW", 9: "JBIG", 10: "JBIG"},
}

# libtiff reads uncompressed files too: Pillow's own reader does not support 16-bit planes, all bit orders, or
# subsampled chroma.
TiffImagePlugin.READ_LIBTIFF = True
_NATIVE = {"I;32B": "I;32N", "F;32F": "F;32NF", "F;32BF": "F;32NF"}
# Pillow's decoders support these, but its table lacks them.
OPEN_INFO[MM, 0, (1,), 1, (16,), ()] = ("I;16B", "I;16B")
OPEN_INFO[MM, 1, (1,), 1, (32,), ()] = ("I", "I;32B")

Directory = dict[int, tuple[int, ...]]


def read_directory(data: bytes, wanted: Collection[int], place: int | None = None) -> Directory | None:
    """Read some tags of a directory of a TIFF, BigTIFF or EXIF, and the offset of the next directory.

    Args:
        place: the directory's offset; None: the first directory.

    Returns:
        The integer values by tag, at most 64 per tag; None if there is no directory.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    try:
        if order is None:
            return None
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        count, entry, pointer = ("Q", "HHQ8s", "Q") if version == 43 else ("H", "HHI4s", "I")
        if place is None:
            (place,) = struct.unpack_from(order + pointer, data, 8 if version == 43 else 4)
        (entries,) = struct.unpack_from(order + count, data, place)
        entry_size, place = struct.calcsize(order + entry), place + struct.calcsize(order + count)
        end = place + entries * entry_size
        if entries > 0xFFFF or end > len(data):
            return None
        found: Directory = {_NEXT: struct.unpack_from(order + pointer, data.ljust(end + 8, b"\0"), end)}
        for tag, kind, length, value in struct.iter_unpack(order + entry, data[place:end]):
            if tag in wanted and kind in _LETTERS and length > 0:
                values = f"{order}{min(length, _MOST_VALUES)}{_LETTERS[kind]}"
                is_inside = struct.calcsize(values) <= len(value)
                offset = 0 if is_inside else struct.unpack(order + pointer, value)[0]
                found[tag] = struct.unpack_from(values, value if is_inside else data, offset)
        return found
    # OverflowError: an offset of a BigTIFF is larger than this machine can address.
    except (struct.error, OverflowError):
        return None


def check(data: bytes) -> None:
    """Reject files that Pillow can't read, or from which it would decode a preview instead of the picture.

    Raises:
        UnsupportedMediaType: a camera's RAW, where Pillow decodes a small preview; a big-endian BigTIFF.
    """
    name = None
    directories = list(_directories(data))
    if data[:4] == b"MM\0+":
        name = "big-endian BigTIFF"
    elif data[8:10] == b"CR" and data[2] == 42:
        name = "Canon CR2 (camera RAW)"
    elif any(_DNG_VERSION in directory for directory in directories):
        name = "DNG (camera RAW)"
    elif any(_one(directory, _PHOTOMETRIC, 0) in (_COLOUR_FILTER_ARRAY, _LINEAR_RAW) for directory in directories):
        name = "camera RAW in TIFF (such as NEF and ARW)"
    elif directories and _is_preview(directories[0]) and not all(map(_is_preview, directories)):
        name = "TIFF or camera RAW whose first picture is a preview"
    if name:
        raise unsupported_variant(name)


def variant(data: bytes) -> str | None:
    """Return the unsupported variant of a TIFF that could not be opened or decoded; None if it is broken."""
    tags = read_directory(data, _TAGS)
    if not tags or not (_one(tags, _WIDTH, 0) and _one(tags, _HEIGHT, 0)):
        return None
    if codec := _CODECS.get(_one(tags, _COMPRESSION, 1)):
        return f"TIFF compressed by {codec}"
    photometric, samples = _one(tags, _PHOTOMETRIC, 0), _one(tags, _SAMPLES, 1)
    bits, formats, extra = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,)), tags.get(_EXTRA_SAMPLES, ())
    if samples != _COLOURS.get(photometric, 0) + len(extra) or len(bits) not in (1, samples) or not {*bits} <= _DEPTHS:
        return None
    if not {*formats} <= _FORMATS.keys() or (_BITS not in tags and samples > 1):
        return None
    order = II if data[:2] == b"II" else MM
    bits = bits * samples if len(bits) == 1 else bits
    if (order, photometric, formats[:1], _one(tags, _FILL_ORDER, 1), bits, extra) in OPEN_INFO and len({*formats}) == 1:
        return None
    return f"TIFF of {samples} {_FORMATS[max(formats)]} {max(bits)}-bit channels, photometric {photometric}"


def prepare(image: TiffImageFile) -> Levels:
    """Correct how Pillow reads the pixels. Return the meaning of the grey levels.

    Raises:
        UnsupportedMediaType: Pillow would decode wrong pixels.
    """
    tags = image.tag_v2
    bits, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLES, 1)
    photometric, compression, planar = (tags.get(tag, 0) for tag in (_PHOTOMETRIC, _COMPRESSION, _PLANAR))
    if compression in _CODECS and compression != _OLD_JPEG:
        raise unsupported_variant(f"TIFF compressed by {_CODECS[compression]}")
    if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise unsupported_variant("TIFF of signed integers")
    if compression == _JPEG and max(bits) > 8:
        raise unsupported_variant(f"TIFF compressed by JPEG of {max(bits)} bits")
    if planar == 2 and image.mode in ("LA", "La", "PA"):
        planes = f"TIFF of {samples} separate {max(bits)}-bit planes, photometric {photometric}"
        raise unsupported_variant(planes)
    mode, *rest = cast(tuple[Any, ...], image.tile[0].args)
    # libtiff gives samples in the machine's byte order.
    image.tile = [image.tile[0]._replace(args=(_NATIVE.get(mode, mode), *rest))]
    return Levels(white=4095 if max(bits) == 12 else None, is_inverted=photometric == _WHITE_IS_ZERO and max(bits) > 8)


def _directories(data: bytes) -> Iterator[Directory]:
    """Yield the first directories of the file, each followed by its sub-directories."""
    place, seen = None, 0
    while seen < _MOST_DIRECTORIES and (directory := read_directory(data, _TAGS, place)):
        yield directory
        seen += 1
        for inner in directory.get(_SUB_DIRECTORIES, ())[: _MOST_DIRECTORIES - seen]:
            seen += 1
            if found := read_directory(data, _TAGS, inner):
                yield found
        place = directory[_NEXT][0]
        if not place:
            return


def _is_preview(directory: Directory) -> bool:
    return bool(_one(directory, _SUBFILE, 0) & 1)


def _one(directory: Directory, tag: int, default: int) -> int:
    return directory.get(tag, (default,))[0]
