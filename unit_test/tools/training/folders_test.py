"""Tests what people's folders of photos may look like, and one clear line for each that can't be used."""

import os
import shutil
import sys
import tempfile
import unicodedata
import unittest
from pathlib import Path

from tools.evaluation.labelled import find_labelled, find_others
from tools.importing.network import ImportProblem
from tools.importing.photos import read_photo
from tools.training.dataset import folders
from tools.training.run import TrainError

JPEG, PNG = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0"


class FoldersCase(unittest.TestCase):
    """A temporary folder, whose name has a space and an accent."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="my phot\u00f6s ")
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "data"
        self.folder.mkdir()

    def write(self, name: str, data: bytes = JPEG) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def refused(self, *words: str) -> None:
        with self.assertRaises(TrainError) as caught:
            folders.find_dataset(self.folder)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(len(str(caught.exception).splitlines()), 1)


class FindTest(FoldersCase):
    def test_classes_have_the_names_of_their_folders_in_the_usual_form_of_unicode(self) -> None:
        for name in ("Rouge gorge", unicodedata.normalize("NFD", "m\u00e9sange bleue"), "\u732b"):
            self.write(f"{name}/1.jpg")
        found = folders.find_dataset(self.folder)
        self.assertEqual(found.labels, ("m\u00e9sange bleue", "Rouge gorge", "\u732b"))
        self.assertEqual([photo.label for photo in found.photos], [0, 1, 2])
        self.assertIsNone(found.validation)
        self.assertEqual(found.notes, [])

    def test_photos_are_known_by_their_suffix_or_content_and_other_files_are_counted(self) -> None:
        self.write("a/1.JPG", b"broken, and reported as such later")
        self.write("a/2", PNG)
        self.write("a/3.dat", HEIC)
        self.write("a/notes.txt", b"words")
        self.write("a/film.mp4", b"\0\0\0\x18ftypisom")
        self.write("a/._1.jpg")
        self.write("b/1.heic")
        found = folders.find_dataset(self.folder)
        self.assertEqual([photo.path.name for photo in found.photos], ["1.JPG", "2", "3.dat", "1.heic"])
        self.assertEqual(found.notes, ["2 files are no photos, and not used"])

    def test_folders_within_a_class_belong_to_it_and_those_of_programs_are_ignored(self) -> None:
        self.write("birds/wren/1.jpg")
        self.write("birds/robin/deep/2.jpg")
        self.write("birds/.thumbs/3.jpg")
        self.write("cars/1.jpg")
        self.write("__MACOSX/1.jpg")
        self.write("loose.jpg")
        found = folders.find_dataset(self.folder)
        self.assertEqual(found.labels, ("birds", "cars"))
        self.assertEqual(len(found.photos), 3)
        self.assertIn("folders within 'birds' belong to this class: 'robin', 'wren'", found.notes)
        self.assertTrue(any("1 photo is directly in" in note for note in found.notes), found.notes)

    def test_train_and_val_are_used_where_both_are_there(self) -> None:
        for name in ("val", "Validation", "valid"):
            with self.subTest(name):
                shutil.rmtree(self.folder)
                for path in ("train/a/1.jpg", "train/b/2.jpg", f"{name}/A/3.jpg", f"{name}/b/4.jpg", "test/a/5.jpg"):
                    self.write(path)
                found = folders.find_dataset(self.folder)
                self.assertEqual(found.labels, ("a", "b"))
                self.assertEqual([photo.path.name for photo in found.photos], ["1.jpg", "2.jpg"])
                self.assertEqual([photo.path.name for photo in found.validation or ()], ["3.jpg", "4.jpg"])

    def test_train_may_also_be_a_class(self) -> None:
        for name in ("train", "car", "bus"):
            self.write(f"{name}/1.jpg")
        self.assertEqual(folders.find_dataset(self.folder).labels, ("bus", "car", "train"))

    @unittest.skipIf(sys.platform == "win32", "links need rights there")
    def test_a_link_to_nothing_is_reported_later_like_a_broken_photo(self) -> None:
        self.write("b/1.jpg")
        (self.folder / "a").mkdir()
        (self.folder / "a" / "gone.jpg").symlink_to(self.folder / "nothing.jpg")
        self.assertEqual(len(folders.find_dataset(self.folder).photos), 2)

    @unittest.skipUnless(hasattr(os, "mkfifo"), "Windows has no named pipes in folders")
    def test_pipes_and_devices_are_named_and_never_read(self) -> None:
        for name in ("a", "b"):
            self.write(f"{name}/1.jpg")
        pipes = [self.folder / "a" / name for name in ("pipe.jpg", "pipe")]
        for pipe in pipes:
            os.mkfifo(pipe)
        (self.folder / "a" / "device.png").symlink_to(os.devnull)
        found = folders.find_dataset(self.folder)
        self.assertEqual(len(found.photos), 2)
        (note,) = found.notes
        self.assertTrue(note.startswith("left out, as only regular files are read: "), note)
        for path in (*pipes, self.folder / "a" / "device.png"):
            self.assertIn(repr(str(path)), note)
        measured = find_labelled(self.folder, ["a", "b"])
        self.assertEqual((len(measured.photos), measured.notes), (2, [note]))
        others = find_others(self.folder)
        self.assertEqual((len(others.photos), others.notes), (2, [note]))
        with self.assertRaisesRegex(ImportProblem, "no regular file"):
            read_photo(pipes[0])


class RefusedTest(FoldersCase):
    def test_no_folder_or_a_file_is_said(self) -> None:
        shutil.rmtree(self.folder)
        self.refused("no such folder")
        self.folder.write_bytes(b"PK")
        self.refused("is a file")

    def test_too_few_classes_are_said_with_what_to_do(self) -> None:
        self.refused("has no folders: make one for each class")
        self.write("birds/1.jpg")
        self.refused("only one class, 'birds'")
        self.write("birds/wren/1.jpg")
        self.write("birds/robin/1.jpg")
        self.refused("did you mean", os.path.join("data", "birds"))

    def test_more_than_200_classes_are_said(self) -> None:
        for number in range(201):
            (self.folder / str(number)).mkdir()
        self.refused("201 folders", "at most 200 classes")

    def test_empty_classes_are_named(self) -> None:
        self.write("a/1.jpg")
        self.write("b/notes.txt", b"words")
        (self.folder / "c").mkdir()
        self.refused("no photo in the folder of 'b', 'c'")

    def test_different_classes_in_train_and_val_are_named(self) -> None:
        for path in ("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg", "val/c/4.jpg"):
            self.write(path)
        self.refused("different classes", "'b', 'c'")

    @unittest.skipUnless(sys.platform == "linux", "other systems do not have such names")
    def test_names_that_are_the_same_or_no_labels_are_said(self) -> None:
        cases = {"two folders for one class": ("Cat", "cat"), "can't be a label": ("a\nb", "c")}
        for words, names in cases.items():
            with self.subTest(words):
                shutil.rmtree(self.folder)
                for name in names:
                    self.write(f"{name}/1.jpg")
                self.refused(words)
        shutil.rmtree(self.folder)
        self.write("a/1.jpg")
        os.mkdir(os.fsencode(self.folder) + b"/b\xff")
        self.refused("not UTF-8")


if __name__ == "__main__":
    unittest.main()
