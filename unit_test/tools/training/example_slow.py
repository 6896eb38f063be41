"""Runs the commands of docs/training.md as they are written, in a folder of photos as the page describes it."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from run import PROGRAMS
from unit_test.tools.programs import PROJECT

PAGE = (PROJECT / "docs" / "training.md").read_text("utf-8")
CLASSES = {"robin": (200, 60, 40), "great tit": (210, 200, 40), "wren": (60, 80, 200)}
EACH = 12


def made_photo(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """A photo of no other's shapes, in colours near to one."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 260), tuple(random.integers(90, 160, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        left, top = random.integers(0, 250), random.integers(0, 200)
        fill = tuple(np.clip(np.array(colour) + random.integers(-40, 40, 3), 0, 255).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((left, top, left + random.integers(20, 90), top + random.integers(20, 90)), fill)
    return image


class ExampleTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for part, seeds in (("photos", range(EACH)), ("more_photos", range(100, 104))):
            for number, (name, colour) in enumerate(CLASSES.items()):
                (self.folder / part / name).mkdir(parents=True)
                for seed in seeds:
                    picture = made_photo(colour, 1000 * number + seed)
                    picture.save(self.folder / part / name / f"IMG_{seed:04d}.jpg")

    def run_example(self, command: str, *more: str) -> str:
        """Run the page's first example of a command, with the folders of this test; return what it prints."""
        line = re.findall(rf"^ *python run\.py {command} (.*)$", PAGE, re.MULTILINE)[0]
        arguments = shlex.split(line)
        called = [sys.executable, "-P", "-m", PROGRAMS[command], *arguments, "--models", "models", *more]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            called, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_photos_become_a_model_that_is_measured(self) -> None:
        told = self.run_example("train", "--cache", "cache")
        version = self.folder / "models" / "birds" / "1"
        self.assertIn(f"written to {Path('models', 'birds', '1')}", told)
        card = (version / "MODEL_CARD.md").read_text("utf-8")
        self.assertRegex(card, "python run.py train photos/? --name birds")
        self.assertIn("**Few photos.**", card)
        for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", card):
            self.assertTrue((version / picture).is_file(), picture)
        self.run_example("evaluate", "--json", "figures.json")
        found = json.loads((self.folder / "figures.json").read_text("utf-8"))
        self.assertEqual(found["labels"], sorted(CLASSES))
        self.assertEqual(found["overall"]["photos"], 12)
        # Such colours are easy.
        self.assertGreaterEqual(found["overall"]["right"], 10)


if __name__ == "__main__":
    unittest.main()
