"""Tests what the names of candidates mean."""

import unittest

from PIL import Image

from tools import service
from tools.evaluation import candidates


class CandidateTest(unittest.TestCase):
    def test_name_says_backbone_picture_head_and_views(self) -> None:
        found = candidates.Candidate.of("lite2:192:0.875:odds")
        geometry = found.config(service.read_config(None)).picture.geometry()
        self.assertEqual((geometry.width, geometry.height, geometry.crop), (192, 192, 0.875))
        self.assertEqual((found.variant, found.odds, found.blocks, found.views), ("lite2", True, None, 1))
        self.assertFalse(found.int8)
        several = candidates.Candidate.of("lite0:224:0.875:odds:4:int8")
        self.assertEqual((several.views, several.int8), (4, True))
        self.assertTrue(candidates.Candidate.of("lite0:224:0.875:odds:int8").int8)
        cut = candidates.Candidate.of("lite0:224:0.875:cut15")
        self.assertEqual((cut.odds, cut.blocks), (False, 15))

    def test_padding_keeps_the_whole_photo(self) -> None:
        photo = Image.new("RGB", (40, 20), "white")
        padded = candidates.Candidate.of("lite0:224:pad:linear").framed(photo)
        self.assertEqual(padded.size, (40, 40))
        self.assertEqual(padded.getpixel((20, 2)), service.BACKGROUND)
        self.assertEqual(padded.crop((0, 10, 40, 30)).tobytes(), photo.tobytes())
        self.assertIs(candidates.Candidate.of("lite0:224:0.875:linear").framed(photo), photo)

    def test_other_names_are_refused(self) -> None:
        for name in (
            "lite0",
            "lite9:224:0.875:odds",
            "lite0:224:0.875:deep",
            "lite0:big:0.875:odds",
            "lite0:224::odds",
            "lite0:224:0.875:odds:int4",
        ):
            with self.subTest(name), self.assertRaises(ValueError):
                candidates.Candidate.of(name)


if __name__ == "__main__":
    unittest.main()
