"""Detects a file's format from its first bytes, and names formats that are not supported."""

from __future__ import annotations

import re
import struct

from preprocess_service.app.errors import InvalidImage, ServiceError, UnsupportedMediaType
from preprocess_service.app.imaging.decoders import bmp, jpeg, tiff
from preprocess_service.app.imaging.kinds import names_of, unsupported_variant

# The only decoders that are used. Pillow has 40 more, and each would be a risk with hostile files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")

_TAKEN = re.compile(
    rb"(?P<JPEG>\xff\xd8)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WEBP>RIFF....WEBP)|(?P<GIF>GIF8[79]a)|(?P<BMP>BM)"
    rb"|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<AVIF>....ftypavi[fs])|(?P<HEIF>....ftyp(?:he[iv][cmsx]|m[is]f1))",
    re.DOTALL,
)
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"8BPS", "Adobe Photoshop (PSD)"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a", "JPEG XL"),
    (rb"II\xbc\x01?", "JPEG XR"),
    (rb"#\?(?:RADIANCE|RGBE)", "Radiance HDR"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb".{128}DICM", "DICOM"),
    (rb"....ftypcrx ", "Canon CR3 (camera RAW)"),
    (rb"II[TUR]\0|IIR[OS]|IIRO|MMOR", "Olympus ORF or Panasonic RW2 (camera RAW)"),
    (rb"FUJIFILMCCD-RAW", "Fujifilm RAF (camera RAW)"),
    (rb"FOVb", "Sigma X3F (camera RAW)"),
    (rb"\0MRM", "Minolta MRW (camera RAW)"),
    (rb"II\x1a\0\0\0HEAPCCDR", "Canon CRW (camera RAW)"),
    (rb"%PDF-", "Portable Document Format (PDF)"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (rb"\0\0\x01\0[^\0]\0", "Windows icon (ICO)"),
    (rb"\0\0\x02\0[^\0]\0..\0\0....[^\0]", "Windows cursor (CUR)"),
    (rb"icns", "Apple icon (ICNS)"),
    (rb"P[1-7][\s#]", "Portable anymap (PPM)"),
    (rb"P[Ff]\n", "Portable float map (PFM)"),
    (rb"qoi", "Quite OK Image (QOI)"),
    (rb"DDS ", "DirectDraw surface (DDS)"),
    (rb"gimp xc", "GIMP (XCF)"),
    (rb"FLIF", "FLIF"),
    (rb"BPG\xfb", "BPG"),
    (rb"\x8aMNG|\x8bJNG", "MNG"),
    (rb"\x01\xda[\0\x01][\x01\x02]", "Silicon Graphics (SGI)"),
    (rb"\x59\xa6\x6a\x95", "Sun raster"),
    (rb"\x0a[\0\x02-\x05][\0\x01][\x01\x02\x04\x08]", "PCX"),
    (rb"SIMPLE  =", "FITS"),
    (rb"AT&TFORM", "DjVu"),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\x09\0\0\x03", "Windows metafile (WMF)"),
    (rb"\x01\0\0\0.{36} EMF", "Windows metafile (EMF)"),
    (rb"/\* XPM \*/", "X pixmap (XPM)"),
    (rb"#define \w+_width ", "X bitmap (XBM)"),
    (rb"\xabKTX ", "Khronos texture (KTX)"),
    (rb"RIFF....AVI ", "AVI video"),
    (rb"....ftypqt|....(?:moov|mdat|wide|free)", "QuickTime video"),
    (rb"....ftyp(?:j2k[is]|jpeg|jpgs|vvi[cs]|evb[is]|evms|unif|miaf|hej2)", "HEIF of another codec than HEVC and AV1"),
    (rb"....ftyp(?:iso[m2-9]|mp4[0-9a-z]|avc[1-9]|M4[ABPV] |3g[2gpr]|dash|f4v |mmp4|MSNV|XAVC|hvc1)", "MPEG-4 video"),
    (rb"\x1a\x45\xdf\xa3", "WebM or Matroska video"),
    (rb"\0\0\x01[\xb3\xba]|\x47.{187}\x47", "MPEG video"),
    (rb"FLV\x01", "Flash video"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media video"),
)
_OTHER = [(re.compile(pattern, re.DOTALL), name) for pattern, name in _OTHERS]
# An SVG, which may begin with an XML declaration, comments and a document type. Atomic groups prevent backtracking.
_SVG = re.compile(
    rb"(?>(?>\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE\s+(?:\w+:)?svg[^>\[]*(?:\[.*?\]\s*)?>)*)<(?:\w+:)?svg[\s>/]", re.DOTALL
)
_SVG_BYTES = 16_384
_TGA_FOOTER = b"TRUEVISION-XFILE"
_TGA_COLOUR_BITS = {1: (8, 16), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8, 16), 10: (15, 16, 24, 32), 11: (8, 16)}


def sniff(data: bytes) -> str | None:
    """Return one of ``FORMATS``, or None for any other file."""
    match = _TAKEN.match(data)
    return match.lastgroup if match else None


def refusal(data: bytes) -> ServiceError:
    """Return the error for a file that could not be opened or decoded.

    UnsupportedMediaType names another format, or a variant of a supported format that can't be decoded: the client can
    convert such a file. InvalidImage: the file is broken or not a picture.
    """
    formats = ", ".join(FORMATS)
    if taken := sniff(data):
        variants = {"JPEG": jpeg.variant, "TIFF": tiff.variant, "BMP": bmp.variant}
        name = variants[taken](data) if taken in variants else None
        return unsupported_variant(name) if name else InvalidImage("image_broken")
    if name := _other(data):
        return UnsupportedMediaType("image_format", name=names_of(name), formats=formats)
    return InvalidImage("image_unknown", formats=formats)


def _other(data: bytes) -> str | None:
    """Return the name of a picture, video or document format that is not supported; None for an unknown file."""
    for pattern, name in _OTHER:
        if pattern.match(data):
            return name
    # Without zero bytes UTF-16 becomes ASCII. A byte order mark is removed.
    if _SVG.match(data[:_SVG_BYTES].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe")):
        return "Scalable Vector Graphics (SVG)"
    if _is_tga(data):
        return "Truevision TGA"
    return None


def _is_tga(data: bytes) -> bool:
    """Return whether a file is a TGA: by the footer of version 2, or by the header of version 1, which has no magic."""
    if _TGA_FOOTER in data[-18:]:
        return True
    if len(data) < 19:
        return False
    identity, has_map, kind, _, colours, map_bits, _, _, width, height, bits, flags = struct.unpack(
        "<BBBHHBHHHHBB", data[:18]
    )
    if kind not in _TGA_COLOUR_BITS or bits not in _TGA_COLOUR_BITS[kind] or not (width and height) or flags & 0xC0:
        return False
    if kind in (1, 9):
        sound = has_map == 1 and 0 < colours <= 1 << 16 and map_bits in (15, 16, 24, 32)
    else:
        sound = has_map == 0 and colours == map_bits == 0
    # Without run-length encoding, a file has at least as many bytes as the header says.
    return bool(sound and (kind > 8 or len(data) >= 18 + identity + width * height * -(-bits // 8)))
