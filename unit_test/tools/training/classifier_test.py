"""Tests ``run.py train`` from the command line to the finished run, with a network that averages parts of a photo."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.training import classifier, train
from tools.training.backbone import cache, features
from tools.training.backbone.backbone import Backbone
from tools.training.export import ExportError
from tools.training.head import softmax_head
from tools.training.run import FalseAlarms, Run
from unit_test.tools.training.split_test import averages


class NoDomain:
    """Knows every photo. The real score needs features of the real network."""

    threshold = 0.5
    false_alarms = FalseAlarms(0.02, 0.003, 0.05)

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ones(len(features), np.float32)


def write_photos(folder: Path, counts: dict[str, int]) -> None:
    """Write random patterns, with more of the class's colour: red, green or blue."""
    random = np.random.default_rng(0)
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 120, (8, 8, 1)).repeat(8, 0).repeat(8, 1).repeat(3, 2)
            pixels[:, :, label] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"photo {number}.png")


class TrainCase(unittest.TestCase):
    """A temporary folder with photos of three classes."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="my phot\u00f6s ")
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.photos, self.models = self.folder / "photos", self.folder / "models"
        write_photos(self.photos, {"a": 20, "b c": 20, "d\u00e9": 20})
        self.runs: list[Run] = []
        self.looked_at = 0

    def train(self, *more: object) -> tuple[int, str, str]:
        """Return the exit status and what was printed."""
        places = {"--models": self.models, "--cache": self.folder / "cache", "--workers": 1}
        arguments = [str(self.photos), "--name", "birds", *(str(part) for pair in places.items() for part in pair)]
        with (
            self.faked(),
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
        ):
            status = train.main([*arguments, *map(str, more)])
        return status, out.getvalue(), err.getvalue()

    @contextlib.contextmanager
    def faked(self) -> Iterator[None]:
        def compute(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            self.looked_at += 1
            return averages(batch)

        def write(target: Path, backbone: Backbone, run: Run) -> Run:
            target.mkdir(parents=True)
            self.runs.append(run)
            return run

        with (
            mock.patch.object(Backbone, "model", lambda self, cache: cache),
            mock.patch.object(features, "_Backbone", lambda *_: compute),
            mock.patch.object(classifier, "write_version", write),
            mock.patch.object(classifier, "fit_domain", lambda *_: NoDomain()),
        ):
            yield


class ClassifierTest(TrainCase):
    def test_photos_become_a_run_that_knows_its_classes_split_and_accuracy(self) -> None:
        (self.photos / "a" / "torn.jpg").write_bytes(b"\xff\xd8 and then nothing")
        status, out, err = self.train()
        self.assertEqual(status, 0, err)
        run = self.runs[0]
        self.assertEqual(run.labels, ("a", "b c", "d\u00e9"))
        self.assertEqual((len(run.training.photos), len(run.validation.photos)), (48, 12))
        self.assertEqual((run.accuracy.value, run.held_out_accuracy.total), (1.0, 48))
        np.testing.assert_allclose(run.probabilities.sum(1), 1, atol=1e-5)
        self.assertEqual([Path(name).name for name in run.broken], ["torn.jpg"])
        self.assertEqual(run.version, 1)
        self.assertIn("1 photo is not readable, and left out", err)
        self.assertIn("torn.jpg", err)
        self.assertIn("fewer than 50 photos for training", err)
        self.assertRegex(out, r"on 12 photos for validation +100.00%")
        # It knows only the models of the project.
        self.assertNotIn("run.py serve", out)
        with mock.patch.object(classifier, "PROJECT", self.folder):
            _, out, _ = self.train("--models", self.folder / "prev_trained_models")
        self.assertIn("Next: python run.py serve --model birds", out)
        self.assertIn("60 of 60 photos", err.replace("61 of 61", "60 of 60"))

    def test_next_run_computes_only_new_photos_and_gives_the_same_numbers(self) -> None:
        with mock.patch.object(features, "CHUNK_ENDS", 8):
            self.train()
            self.assertEqual(self.looked_at, 60)
            self.train()
            self.assertEqual(self.looked_at, 60)
            self.assertEqual(self.runs[1].version, 2)
            np.testing.assert_array_equal(self.runs[0].head.kernel, self.runs[1].head.kernel)
            (self.photos / "a" / "new.png").write_bytes((self.photos / "b c" / "photo 0.png").read_bytes()[:-1] + b"\0")
            self.train()
            self.assertLess(self.looked_at, 60 + 25)

    def test_seed_chooses_the_split(self) -> None:
        for seed in (0, 0, 1):
            self.train("--seed", seed)
        first, same, other = ({photo.path for photo in run.validation.photos} for run in self.runs)
        self.assertEqual(first, same)
        self.assertNotEqual(first, other)
        self.assertIn("--seed 1", self.runs[2].command)
        self.assertEqual(shlex.split(self.runs[2].evaluation)[-2:], ["--models", str(self.models)])

    @unittest.skipIf(os.name == "nt", "Windows has no such shell")
    def test_command_of_the_card_is_complete_and_quoted(self) -> None:
        plain = ["photos/", "--name", "birds"]
        self.assertEqual(self.repeated(plain), ["python", "run.py", "train", "photos", "--name", "birds"])
        everything = [
            *("my  photos/d'\u00e9t\u00e9 $HOME`", "--name", "birds", "--version", "7", "--seed", "3"),
            *("--validation-share", "0.3", "--config", "./-a b.json", "--models", "/the models"),
        ]
        unprintable = ["two\nlines\x1b'\\", "--name", "birds"]
        for arguments in (everything, unprintable):
            again = self.repeated(arguments)[3:]
            self.assertEqual(vars(train.parser().parse_args(again)), vars(train.parser().parse_args(arguments)))

    def repeated(self, arguments: list[str]) -> list[str]:
        """Return the words that a shell reads in the command for these arguments."""
        command = classifier.command_of(train.parser().parse_args(arguments))
        self.assertTrue(command.isprintable())
        program = 'import os, sys; sys.stdout.buffer.write(b"\\0".join(map(os.fsencode, sys.argv[1:])))'
        shell = ["bash", "-c", f"{shlex.join([sys.executable, '-c', program])} {command}"]
        return subprocess.run(shell, check=True, capture_output=True).stdout.decode().split("\0")

    def test_given_split_is_used(self) -> None:
        for number in range(20):
            for name in ("a", "b c", "d\u00e9"):
                part = self.photos / ("val" if number % 4 == 0 else "train") / name
                part.mkdir(parents=True, exist_ok=True)
                (self.photos / name / f"photo {number}.png").rename(part / f"photo {number}.png")
        for name in ("a", "b c", "d\u00e9"):
            (self.photos / name).rmdir()
        status, _, err = self.train()
        self.assertEqual(status, 0, err)
        self.assertEqual((len(self.runs[0].training.photos), len(self.runs[0].validation.photos)), (45, 15))

    def test_many_photos_have_no_mirror_images(self) -> None:
        with mock.patch.object(classifier, "MANY_PHOTOS", 59):
            self.train()
        self.assertEqual(self.runs[0].training.values.shape[:2], (48, 1))

    def test_the_user_is_told_what_comes_from_a_sample(self) -> None:
        with mock.patch.object(softmax_head, "MOST_TRIED", 3 * 60), mock.patch.object(classifier, "MOST_PHOTOS", 40):
            _, _, err = self.train()
        said = "of the 48 photos for training, samples are used: at most 30 for the choice of its penalty, 40 for the"
        self.assertIn(said, err)
        self.assertIn(said, self.runs[0].notes[-1])
        self.train()
        self.assertNotIn("samples", "".join(self.runs[1].notes))


class RefusedTest(TrainCase):
    def one_line(self, status: int, err: str, *words: str) -> None:
        self.assertEqual(status, 2)
        (line,) = [line for line in err.splitlines() if line.startswith("train: ")]
        for word in words:
            self.assertIn(word, line)
        self.assertEqual(list(self.models.rglob("*")), [])

    def test_photos_that_are_all_broken_are_named_and_nothing_is_written(self) -> None:
        for path in (self.photos / "a").iterdir():
            path.write_bytes(b"no picture")
        status, _, err = self.train()
        self.one_line(status, err, "'a' has 0")
        self.assertIn("20 photos are not readable", err)

    def test_a_full_disk_is_said_and_the_next_run_continues(self) -> None:
        full = OSError(28, os.strerror(28))
        with mock.patch.object(features.np, "savez", side_effect=full):
            status, _, err = self.train()
        self.one_line(status, err, "the disk is full", "same command continues")
        said = ExportError(f"/models/birds/1: {os.strerror(28)}")
        with mock.patch.object(classifier, "_say_accuracy", side_effect=said):
            status, _, err = self.train()
        self.one_line(status, err, "the disk is full")

    def test_stop_says_that_the_next_run_continues(self) -> None:
        with mock.patch.object(features, "_write_chunk", side_effect=KeyboardInterrupt):
            status, _, err = self.train()
        self.assertEqual(status, 130)
        self.assertIn("stopped; the same command continues", err)

    def test_bad_names_and_versions_are_said_before_photos_are_read(self) -> None:
        status, _, err = self.train("--name", "../birds")
        self.one_line(status, err, "not a valid name")
        (self.models / "birds" / "3").mkdir(parents=True)
        status, _, err = self.train("--version", 3)
        self.assertIn("exists already", err)
        self.assertEqual(self.looked_at, 0)

    def test_other_labels_under_the_same_name_are_refused_before_photos_are_read(self) -> None:
        extra = self.models / "birds" / "3" / "assets.extra"
        extra.mkdir(parents=True)
        (extra / "labels.txt").write_text("CAT\nDOG\n", "utf-8")
        status, _, err = self.train()
        self.assertEqual(status, 2)
        (line,) = err.splitlines()
        for words in ("has the labels 'CAT', 'DOG', yours are 'a', 'b c'", "another --name", "--replace-labels"):
            self.assertIn(words, line)
        self.assertEqual(self.looked_at, 0)
        for more in (["--replace-labels"], ["--version", 2]):
            status, _, err = self.train(*more)
            self.assertEqual(status, 0, err)
        (self.models / "birds" / "4" / "assets.extra").mkdir()
        (self.models / "birds" / "4" / "assets.extra" / "labels.txt").write_text("d\u00e9\nb c\na\n", "utf-8")
        self.assertEqual(self.train()[0], 0)

    def test_folders_that_cant_be_written_are_said_before_photos_are_read(self) -> None:
        file = self.folder / "file"
        file.write_text("no folder")
        for option in ("--models", "--cache"):
            status, _, err = self.train(option, file / "within")
            self.one_line(status, err, f"can't write in {file / 'within'}", f"choose another folder with {option}")
            self.assertEqual(self.looked_at, 0)
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"photos", "file"})

    def test_options_that_would_have_no_effect_are_refused(self) -> None:
        options = {"--penalty": [1], "--views": [2], "--calibrate": [], "--source-exponent": [1], "--index": ["x"]}
        for option, values in options.items():
            with self.subTest(option), self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as err:
                train.main(["photos", "--name", "birds", option, *map(str, values)])
            self.assertIn(f"{option} needs --cats-and-dogs", err.getvalue())
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as err:
            train.main(["photos", "--name", "birds", "--cats-and-dogs", "--validation-share", "0.2"])
        self.assertIn("--validation-share has no effect with --cats-and-dogs", err.getvalue())
        plain, animals = (train.parse(["photos", "--name", "birds", *more]) for more in ([], ["--cats-and-dogs"]))
        self.assertEqual((plain.penalty, plain.validation_share, animals.views), ([0.3], 0.2, 2))

    def test_reasons_do_not_ask_for_another_photo(self) -> None:
        (self.photos / "a" / "torn.jpg").write_bytes((self.photos / "a" / "photo 0.png").read_bytes()[:-200])
        self.assertEqual(self.train()[0], 0)
        self.assertEqual([*self.runs[0].broken.values()], ["The picture is truncated or broken."])

    def test_mistake_of_the_program_shows_its_traceback(self) -> None:
        with mock.patch.object(classifier, "find_dataset", side_effect=ZeroDivisionError):
            self.assertRaises(ZeroDivisionError, self.train)

    def test_without_arguments_the_help_is_shown(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(train.main([]), 2)
        for words in ("python run.py train photos/ --name birds", "--cats-and-dogs", "--seed"):
            self.assertIn(words, out.getvalue())


class CacheTest(unittest.TestCase):
    def test_what_was_used_longest_ago_is_deleted_and_this_run_stays(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "backbone").mkdir()
            files = [folder / "backbone" / "model", folder / "a", folder / "b", folder / "c"]
            for age, path in enumerate(reversed(files)):
                path.write_bytes(b"x" * 100)
                os.utime(path, (1000 - age, 1000 - age))
            os.utime(folder / "backbone", (997, 997))
            self.assertEqual(cache.tidy(folder, 2000, most_bytes=250), 200)
            self.assertEqual(sorted(path.name for path in folder.iterdir()), ["b", "c"])
            self.assertEqual(cache.tidy(folder, 1000, most_bytes=0), 100)
            self.assertEqual([path.name for path in folder.iterdir()], ["c"])
            self.assertEqual(cache.tidy(folder / "nothing", 0), 0)


if __name__ == "__main__":
    unittest.main()
