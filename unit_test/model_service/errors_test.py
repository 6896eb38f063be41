"""Tests the error messages of the model server: they name the file, but no folder of the server."""

import unittest
from pathlib import Path

from model_service import errors


class WithoutFoldersTest(unittest.TestCase):
    def test_of_a_path_only_what_comes_last_is_left(self) -> None:
        for text, told in (
            ("/models/M/2/saved_model.pb is broken: copy", "saved_model.pb is broken: copy"),
            ("/models/M/2 is incomplete", "2 is incomplete"),
            ("no file b'/tmp/model_x/variables/variables'", "no file b'variables'"),
            ('File "/usr/lib/python3/a.py", line 3', 'File "a.py", line 3'),
            ("(/etc/passwd; No such file)", "(passwd; No such file)"),
            ("path=/etc/passwd", "path=passwd"),
            (r"C:\models\M\2\saved_model.pb is broken", "saved_model.pb is broken"),
            ("C:/models/M/2", "2"),
            ("/models/M/", "M"),
            ("x\n\nOriginal stack trace for 'y':\n  File \"/a/b.py\"", "x"),
        ):
            with self.subTest(text):
                self.assertEqual(errors.without_folders(text), told)

    def test_what_only_looks_like_one_is_left_as_it_is(self) -> None:
        for text in (
            "[[{{node StatefulPartitionedCall/dense/MatMul}}]]",
            "1/2 or N/A, 3 / 4",
            "see https://example.org/a/b",
            "variables/variables.index is missing",
        ):
            with self.subTest(text):
                self.assertEqual(errors.without_folders(text), text)

    def test_a_known_folder_is_found_with_spaces_and_where_it_is_relative(self) -> None:
        for folder in (Path("my models/M"), Path("/my models/M")):
            with self.subTest(folder):
                text = f"{folder / '2' / 'saved_model.pb'} is broken ({folder.resolve() / '2'})"
                self.assertEqual(errors.without_folders(text, folder), "2/saved_model.pb is broken (2)")


if __name__ == "__main__":
    unittest.main()
