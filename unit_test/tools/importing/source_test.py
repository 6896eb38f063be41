"""What a path is, and its labels; all that is refused before anything is loaded."""

import contextlib
import io
import os
import stat
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest.mock import patch

import tools.importing.__main__ as importing
from serving_common.tensorflow_protos import saved_model_pb2
from tools.importing import import_model
from tools.importing.frameworks.openvino_models import load_onnx
from tools.importing.frameworks.saved_model import load as load_saved_model
from tools.importing.import_model import Options
from tools.importing.labels import check_count, check_repeated, find_labels, read_labels
from tools.importing.network import ImportProblem, OpenQuestion
from tools.importing.photos import made_photos
from tools.importing.recipes import is_teachable_machine
from tools.importing.source import opened
from tools.service import PROJECT


class FolderTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def file(self, name: str, data: bytes = b"x") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def zip(self, *names: str, data: bytes = b"x") -> Path:
        path = self.folder / "model.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, data)
        return path

    def refusal(self, path: Path, *options: str) -> str:
        """The one line that the command prints for a path that it refuses."""
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = importing.main([str(path), "--models", str(self.folder / "models"), *options])
        self.assertEqual(code, 1)
        self.assertEqual(err.getvalue().count("\n"), 1)
        self.assertFalse((self.folder / "models").exists())
        return err.getvalue()


class SourceTest(FolderTest):
    def test_formats_that_are_code_or_only_weights_are_refused_with_what_to_do(self) -> None:
        for name, advice in {
            "model.pt": "torch.onnx.export",
            "model.pth": "torch.onnx.export",
            "export.pkl": "of fastai: torch.onnx.export",
            "model.joblib": "skl2onnx",
            "model.safetensors": "optimum-cli",
            "model.tar": "make a zip",
            "model.xyz": "no known format",
        }.items():
            with self.subTest(name):
                self.assertIn(advice, self.refusal(self.file(name)))
        # PyTorch writes zips.
        path = self.zip("archive/data.pkl").rename(self.folder / "resnet.pt")
        self.assertIn("pickle", self.refusal(path))

    def test_what_is_not_there_and_an_empty_folder_are_refused(self) -> None:
        self.assertIn("no such file", self.refusal(self.folder / "none"))
        (self.folder / "empty").mkdir()
        self.assertIn("no model", self.refusal(self.folder / "empty"))
        self.file("torch/model.pth")
        self.assertIn("torch.onnx.export", self.refusal(self.folder / "torch"))

    @unittest.skipUnless(hasattr(os, "mkfifo"), "Windows has no named pipes in folders")
    def test_a_pipe_is_refused_and_not_read(self) -> None:
        os.mkfifo(self.folder / "model.onnx")
        self.assertIn("no regular file", self.refusal(self.folder / "model.onnx"))

    def test_a_zip_with_a_file_outside_of_its_folder_is_refused(self) -> None:
        scratch = self.folder / "scratch"
        scratch.mkdir()
        self.enterContext(patch.object(tempfile, "tempdir", str(scratch)))
        for name in ("../model.json", "a/../../model.json", "/etc/model.json", "..\\model.json", "C:/model.json"):
            with self.subTest(name):
                self.assertIn("outside of its own folder", self.refusal(self.zip(name)))
        self.assertEqual(list(scratch.iterdir()), [])

    def test_a_zip_with_a_link_is_refused(self) -> None:
        path = self.folder / "model.zip"
        link = zipfile.ZipInfo("model.h5")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(link, "/etc/passwd")
        self.assertIn("link", self.refusal(path))

    def test_a_zip_bomb_is_refused_before_it_is_unpacked(self) -> None:
        path = self.zip("model.h5", data=b"\0" * (100 << 20))
        self.assertLess(path.stat().st_size, 200_000)
        self.assertIn("unpacks to more than 64 MiB", self.refusal(path))

    def test_a_zip_that_unpacks_to_more_than_it_says_is_refused(self) -> None:
        path = self.zip("model.h5", data=b"\0" * (100 << 20))
        # The sizes of the entry and of the central directory.
        path.write_bytes(path.read_bytes().replace((100 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
        self.assertIn("can't be unpacked", self.refusal(path))

    def test_a_folder_gives_the_frameworks_own_format_and_says_what_it_left(self) -> None:
        self.file("model/keras_model.h5")
        self.file("model/lite/model.tflite")
        self.file("model/__MACOSX/other.h5")
        with opened(self.folder / "model") as source:
            self.assertEqual((source.path.name, source.kind, source.name), ("keras_model.h5", ".h5", "model"))
            self.assertEqual(source.assumed, ["keras_model.h5 is meant, and not lite/model.tflite"])
        self.file("model/second.h5")
        self.assertIn("several models", self.refusal(self.folder / "model"))

    def test_a_zip_is_there_until_the_block_ends(self) -> None:
        with opened(self.zip("converted/keras_model.h5", "converted/labels.txt")) as source:
            self.assertTrue(source.path.is_file())
            self.assertIsNotNone(source.beside("labels.txt"))
        self.assertFalse(source.path.exists())

    def test_labels_of_a_saved_model_lie_beside_its_folder(self) -> None:
        self.file("m/model.savedmodel/saved_model.pb")
        self.file("m/labels.txt", "0 Güvercin\n1 Serçe\n".encode())
        for path in (self.folder / "m", self.folder / "m" / "model.savedmodel"):
            with self.subTest(path.name), opened(path) as source:
                self.assertEqual(find_labels(source, None), (["Güvercin", "Serçe"], "labels.txt"))
                self.assertTrue(is_teachable_machine(source))

    def test_options_that_contradict_each_other_are_refused(self) -> None:
        path = self.file("model.h5")
        for arguments in (["--photo", "a.jpg"], ["--std", "1,1,1"], ["--mean", "0,0,0", "--scale", "0..1"]):
            with self.subTest(arguments), contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(importing.main([str(path), *arguments]), 1)


class UnreadableTest(FolderTest):
    def test_a_file_that_openvino_cant_read_may_be_complete(self) -> None:
        with self.assertRaisesRegex(ImportProblem, "may be incomplete, or have operations that OpenVINO lacks"):
            load_onnx(self.file("m.onnx"))


class SavedModelTest(FolderTest):
    def test_a_graph_that_does_more_than_compute_is_refused_with_what_to_do(self) -> None:
        model = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        graph = model.meta_graphs.add()
        graph.meta_info_def.tags.append("serve")
        graph.graph_def.node.add(name="reads", op="ReadFile")
        self.file("m/saved_model.pb", model.SerializeToString())
        with self.assertRaisesRegex(
            ImportProblem, '"ReadFile".*Export only the part .*model_server.md, Untrusted'
        ) as caught:
            load_saved_model(self.folder / "m", None)
        self.assertNotIn("flag", str(caught.exception))
        self.assertIn("## Untrusted models", (PROJECT / "docs" / "model_server.md").read_text(encoding="utf-8"))


class BeforeLoadingTest(FolderTest):
    def test_what_is_wrong_with_the_options_is_told_before_the_model_is_loaded(self) -> None:
        path, labels = self.file("model.h5"), str(self.file("words.txt", b"ant\nbee\n"))
        photo = str(self.file("a.jpg", made_photos(1)[0].data))
        self.enterContext(patch.object(import_model, "tensorflow", side_effect=AssertionError("it was loaded")))
        known = ["--labels", labels, "--photo", photo]
        self.file("kept/m/1/saved_model.pb")
        for options, reason in (
            (["--labels", "none.txt"], "none.txt can't be read"),
            (["--labels", str(self.file("twice.txt", b"ant\nant\n"))], "more than once"),
            (["--photo", "none.jpg", "--says", "ant 95"], "none.jpg can't be read"),
            (["--photo", labels, "--says", "ant 95"], "can't be read as a photo"),
            # The label is checked as soon as the labels are known, the number always.
            (["--photo", photo, "--says", "ant"], "not a label and a number"),
            ([*known, "--says", "ant 101"], "not a label and a number"),
            ([*known, "--says", "cow 50"], "unknown label 'cow'"),
            (["--answers", "none.txt"], "none.txt can't be read"),
            (["--answers", labels], "has the line 'ant'; a line is like"),
            ([*known[:2], "--answers", str(self.file("said.txt", f"{photo}: cow 50".encode()))], "unknown label 'cow'"),
            (["--name", ""], "--name '' is not a valid name"),
            (["--models", str(self.folder / "kept"), "--name", "m", "--version", "1"], "exists already"),
        ):
            with self.subTest(options):
                self.assertIn(reason, self.refusal(path, *options))
        self.file("preprocessor_config.json", b"{")
        self.assertIn("preprocessor_config.json beside the model", self.refusal(path))


class QuestionTest(unittest.TestCase):
    question = OpenQuestion("Which one?", "--resize", ["crop", "stretch"])
    options = Options(Path("model.h5"), Path("models"))

    def asked(self, answer: str, terminal: bool = True) -> Options:
        output = io.StringIO()
        # Set before, as a terminal's.
        output.isatty = lambda: terminal  # type: ignore[method-assign]
        self.enterContext(patch("builtins.input", return_value=answer))
        self.enterContext(patch.object(sys, "stdin", output))
        self.enterContext(contextlib.redirect_stdout(output))
        return importing._asked(self.options, self.question)

    def test_at_a_terminal_the_answer_is_the_option(self) -> None:
        self.assertEqual(self.asked("2").wanted.resize, "stretch")
        for answer in ("", "3", "x"):
            with self.subTest(answer), self.assertRaisesRegex(ImportProblem, "add --resize"):
                self.asked(answer)

    def test_elsewhere_the_question_is_the_line(self) -> None:
        with self.assertRaises(OpenQuestion):
            self.asked("2", terminal=False)


class LabelsTest(FolderTest):
    def test_lines_with_and_without_numbers_and_json_of_all_kinds(self) -> None:
        cases = {
            "a.txt": "0 ant\n1 bee wasp\n",
            "b.txt": "\ufeffant\r\nbee wasp\r\n\r\n",
            "c.json": '["ant", "bee wasp"]',
            "d.json": '{"labels": ["ant", "bee wasp"]}',
            "e.json": '{"id2label": {"1": "bee wasp", "0": "ant"}, "label2id": {}}',
            "f.json": '{"bee wasp": 1, "ant": 0}',
            "g.txt": "0: ant\n1: bee wasp\n",
        }
        for name, text in cases.items():
            with self.subTest(name):
                self.assertEqual(read_labels(self.file(name, text.encode())), ["ant", "bee wasp"])
        self.assertEqual(read_labels(self.file("h.txt", b"50 euro\n5 euro\n")), ["50 euro", "5 euro"])
        self.assertEqual(read_labels(self.file("i.txt", "Güvercin\n".encode("utf-16"))), ["Güvercin"])
        self.assertEqual(read_labels(self.file("j.txt", "chouette\nhéron\n".encode("cp1252"))), ["chouette", "héron"])

    def test_files_without_labels_are_refused_where_they_were_named(self) -> None:
        for name, text in {"a.txt": "\n", "b.json": "{", "c.json": '{"a": "b"}', "d.json": "[" * 100_000}.items():
            with self.subTest(name), self.assertRaises(ImportProblem):
                read_labels(self.file(name, text.encode()))
        with self.assertRaises(ImportProblem):
            read_labels(self.folder / "none.txt")

    def test_one_for_each_class_and_all_different(self) -> None:
        check_count(["a", "b"], "x", 2)
        check_repeated(["a", "b"], "x")
        with self.assertRaises(ImportProblem):
            check_repeated(["a", "a"], "x")
        for labels, text in ((["a"], "has 1 label, "), (["a", "b", "c"], "has 3 labels, ")):
            with self.subTest(labels), self.assertRaisesRegex(ImportProblem, text):
                check_count(labels, "x", 2)


if __name__ == "__main__":
    unittest.main()
