"""The kinds of files that are not supported, by their names in both languages."""

import functools
import re

from preprocess_service.app.errors import UnsupportedMediaType
from preprocess_service.app.translations import Language

# Each {} stands for any text, which is translated too. Of several that match, the first one counts. A name that none
# matches is the same in both languages.
_PORTUGUESE = {
    "TIFF or camera RAW whose first picture is a preview": "TIFF ou RAW de câmera cuja primeira imagem é uma prévia",
    "camera RAW in TIFF (such as NEF and ARW)": "RAW de câmera em TIFF (como NEF e ARW)",
    "{} (camera RAW)": "{} (RAW de câmera)",
    "HEIF of another codec than HEVC and AV1": "HEIF de outro codec que não HEVC nem AV1",
    "PNG of an iPhone app (CgBI)": "PNG de um aplicativo do iPhone (CgBI)",
    "big-endian BigTIFF": "BigTIFF big-endian",
    "TIFF of signed integers": "TIFF de números inteiros com sinal",
    "TIFF of numbers below 0": "TIFF de números abaixo de 0",
    "TIFF of {} {} {}-bit channels, photometric {}": "TIFF de {0} canais de {2} bits ({1}), photometric {3}",
    "TIFF of {} separate {}-bit planes, photometric {}": "TIFF de {} planos separados de {} bits, photometric {}",
    "TIFF compressed by {}": "TIFF comprimido com {}",
    "BMP with a header of {} bytes": "BMP com um cabeçalho de {} bytes",
    "BMP with bit masks {}": "BMP com as máscaras de bits {}",
    "BMP with {}": "BMP com {}",
    "BMP of {} bits a pixel": "BMP de {} bits por pixel",
    "lossless JPEG with arithmetic coding": "JPEG sem perdas com codificação aritmética",
    "{} of {} bits a channel": "{} de {} bits por canal",
    "{} of {} channels": "{} de {} canais",
    "{} of {} bits": "{} de {} bits",
    "Windows icon ({})": "ícone do Windows ({})",
    "Windows cursor ({})": "cursor do Windows ({})",
    "Windows metafile ({})": "metarquivo do Windows ({})",
    "Apple icon ({})": "ícone da Apple ({})",
    "{} video": "vídeo {}",
    "{} or {}": "{} ou {}",
    "lossless {}": "{} sem perdas",
    "hierarchical {}": "{} hierárquico",
    "old-style {}": "{} antigo",
    "a {} in it": "um {} dentro dele",
    "16-bit padding": "preenchimento de 16 bits",
    "masks": "máscaras",
    "unsigned": "sem sinal",
    "signed": "com sinal",
    "float": "ponto flutuante",
    "untyped": "sem tipo",
    "complex": "números complexos",
}


def names_of(kind: str) -> dict[Language, str]:
    """Return the name of a kind of file in each language, from its English name."""
    return {"en": kind, "pt": _in_portuguese(kind)}


def unsupported_variant(kind: str) -> UnsupportedMediaType:
    """Return the error for a variant of a supported format, by its English name."""
    return UnsupportedMediaType("image_variant", name=names_of(kind))


def _in_portuguese(kind: str) -> str:
    for pattern, portuguese in _patterns():
        if match := pattern.fullmatch(kind):
            return portuguese.format(*map(_in_portuguese, match.groups()))
    return kind


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile("(.+?)".join(map(re.escape, english.split("{}")))), portuguese)
        for english, portuguese in _PORTUGUESE.items()
    ]
