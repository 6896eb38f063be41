"""Writes bits, for formats whose fields are not whole bytes."""


class Bits:
    """Collects bits: the first is the highest bit of a byte, as in HEVC, or the lowest, as in WebP."""

    def __init__(self, lowest_first: bool = False) -> None:
        self._lowest_first = lowest_first
        self._text: list[str] = []

    def add(self, value: int, count: int) -> "Bits":
        """Add ``count`` bits of a number."""
        text = f"{value:0{count}b}" if count else ""
        self._text.append(text[::-1] if self._lowest_first else text)
        return self

    def add_golomb(self, value: int) -> "Bits":
        """Add a number as an Exp-Golomb code: as many zeros as value + 1 has bits after its first, then value + 1."""
        length = (value + 1).bit_length()
        return self.add(0, length - 1).add(value + 1, length)

    def to_bytes(self) -> bytes:
        """Return all bits, filled up with zeros."""
        text = "".join(self._text)
        text += "0" * (-len(text) % 8)
        if not self._lowest_first:
            return int(text or "0", 2).to_bytes(len(text) // 8, "big")
        return int(text[::-1] or "0", 2).to_bytes(len(text) // 8, "little")
