"""Tests that every message is in both languages, and that a client gets the language that it prefers."""

import ast
import string
import unittest
from collections.abc import Iterator
from pathlib import Path

from preprocess_service.app import errors, imaging, translations
from preprocess_service.app.api.request_body import BATCH_EXAMPLE, EXAMPLE
from preprocess_service.app.imaging import formats
from preprocess_service.app.imaging.decoders import bmp, tiff
from preprocess_service.app.imaging.kinds import _PORTUGUESE, names_of

# Kinds of files whose names are the same in both languages.
NAMES = {
    *(
        "Adobe Photoshop (PSD)",
        "JPEG 2000",
        "JPEG XL",
        "JPEG XR",
        "Radiance HDR",
        "OpenEXR",
        "DICOM",
        "PostScript (EPS)",
    ),
    *("Portable Document Format (PDF)", "Portable anymap (PPM)", "Portable float map (PFM)", "Quite OK Image (QOI)"),
    *("DirectDraw surface (DDS)", "GIMP (XCF)", "FLIF", "BPG", "MNG", "Silicon Graphics (SGI)", "Sun raster", "PCX"),
    *("FITS", "DjVu", "X pixmap (XPM)", "X bitmap (XBM)", "Khronos texture (KTX)", "Truevision TGA", "JPEG-LS"),
    "Scalable Vector Graphics (SVG)",
}


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def kinds_in_code() -> Iterator[str]:
    """Yield the kinds of files that the decoders name, with X in place of each value."""
    for path in Path(imaging.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found: list[ast.expr | None] = []
            if isinstance(node, ast.FunctionDef) and node.name in ("variant", "_other"):
                found = [it.value for it in ast.walk(node) if isinstance(it, ast.Return)]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("name", "planes"):
                found = [node.value]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("unsupported_variant", "names_of"):
                found = list(node.args)
            for value in found:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value
                elif isinstance(value, ast.JoinedStr):
                    yield "".join(str(it.value) if isinstance(it, ast.Constant) else "X" for it in value.values)


class KindsTest(unittest.TestCase):
    def test_every_kind_of_file_has_a_name_in_both_languages(self) -> None:
        kinds = {*kinds_in_code()} | {name for _, name in formats._OTHERS}
        self.assertGreater(len(kinds), 60)
        for kind in kinds:
            with self.subTest(kind):
                names = names_of(kind)
                self.assertEqual(names["en"], kind)
                self.assertEqual(names["pt"] == kind, kind in NAMES)
        self.assertLessEqual(NAMES, kinds)

    def test_what_is_in_a_name_is_translated_too(self) -> None:
        for english, portuguese in (
            ("lossless JPEG of 12 bits a channel", "JPEG sem perdas de 12 bits por canal"),
            ("TIFF compressed by old-style JPEG", "TIFF comprimido com JPEG antigo"),
            ("TIFF compressed by JPEG of 12 bits", "TIFF comprimido com JPEG de 12 bits"),
            (
                "TIFF of 3 float 64-bit channels, photometric 2",
                "TIFF de 3 canais de 64 bits (ponto flutuante), photometric 2",
            ),
            ("Olympus ORF or Panasonic RW2 (camera RAW)", "Olympus ORF ou Panasonic RW2 (RAW de câmera)"),
            ("WebM or Matroska video", "vídeo WebM ou Matroska"),
            ("BMP with a PNG in it", "BMP com um PNG dentro dele"),
        ):
            with self.subTest(english):
                self.assertEqual(names_of(english)["pt"], portuguese)

    def test_no_name_is_left_over(self) -> None:
        values = {*bmp._COMPRESSIONS.values(), *tiff._CODECS.values(), *tiff._FORMATS.values()}
        kinds = " ".join({*kinds_in_code()} | {name for _, name in formats._OTHERS} | values)
        for english in _PORTUGUESE:
            with self.subTest(english):
                for part in english.split("{}"):
                    self.assertIn(part.strip(), kinds)

    def test_an_error_names_it_in_its_language(self) -> None:
        error = formats.refusal(b"....ftypqt  ")
        self.assertIn(": QuickTime video. ", error.text("en"))
        self.assertIn(": vídeo QuickTime. ", error.text("pt"))
        error = errors.InvalidRequest("json_invalid", example=EXAMPLE)
        self.assertEqual(error.text("pt"), 'O corpo não é JSON. Envie {"image_b64": "<a imagem em base64>"}.')
        for example in (EXAMPLE, BATCH_EXAMPLE):
            self.assertNotEqual(example["en"], example["pt"])


class MessagesTest(unittest.TestCase):
    def test_every_message_says_the_same_in_both_languages(self) -> None:
        for key, texts in translations.MESSAGES.items():
            with self.subTest(key):
                self.assertEqual(set(texts), {"en", "pt"})
                self.assertNotEqual(texts["en"], texts["pt"])
                self.assertEqual(places(texts["en"]), places(texts["pt"]))

    def test_every_error_can_speak(self) -> None:
        values = {"path": "/", "method": "GET"}
        for error in errors.ServiceError.__subclasses__():
            with self.subTest(error.__name__):
                key = error.code if error.code in translations.MESSAGES else "image_broken"
                self.assertTrue(error(key, **values).text("pt"))

    def test_the_best_liked_language_is_chosen(self) -> None:
        for header, language in (
            ("", "en"),
            ("pt", "pt"),
            ("pt-BR", "pt"),
            ("PT-br, en;q=0.5", "pt"),
            ("en-US,en;q=0.9,pt;q=0.8", "en"),
            ("en;q=0.1, pt;q=0.2", "pt"),
            ("de, fr;q=0.9", "en"),
            ("de, pt;q=0.3", "pt"),
            ("pt;q=0", "en"),
            ("*", "en"),
            ("pt;q=much", "en"),
            (";q=,;;", "en"),
        ):
            with self.subTest(header):
                self.assertEqual(translations.negotiate(header), language)
