"""Tests the checks of a ModelServerConfig, with TensorFlow Serving's texts."""

import tempfile
import unittest
from pathlib import Path
from typing import Any

from grpc import StatusCode

from model_service import errors
from model_service.lifecycle import model_config, versions
from serving_common.tensorflow_protos import text_format

A = 'config { name: "A" base_path: "/a" model_platform: "tensorflow" }'


def config_of(models: str) -> Any:
    """Return a ModelServerConfig with these models in text form."""
    return text_format.Parse(f"model_config_list {{ {models} }}", model_config.ModelServerConfig())


class CheckTest(unittest.TestCase):
    def check(self, models: str, previous: str = "") -> None:
        model_config.check(config_of(models), config_of(previous))

    def test_good_ones(self) -> None:
        for models in ("", A, 'config { name: "A" base_path: "/a" model_type: TENSORFLOW }', A.replace('"A"', '"B"')):
            with self.subTest(models):
                self.check(models, A)

    def test_each_mistake_has_its_text(self) -> None:
        of_a, no_type = "model name is A", "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
        cases = {
            A + A: "Illegal to list model A multiple times in config list",
            A.replace('"/a"', '"a"'): "Expected model A to have an absolute path or URI; got base_path()=a",
            A.replace('"/a"', '"gs://a"'): "Expected model A to have an absolute path or URI; got base_path()=gs://a",
            A.replace('base_path: "/a"', ""): "Expected model A to have an absolute path or URI; got base_path()=",
            A.replace('model_platform: "tensorflow"', ""): f"{no_type}ModelServerConfig::model_platform, {of_a}",
            A.replace("model_platform", "model_type: TENSORFLOW model_platform"): "Illegal setting both ",
            A.replace('model_platform: "tensorflow"', "model_type: OTHER"): "model_type choice 2 not supported.",
            A.replace('"A"', '"B"').replace("tensorflow", "onnx"): "Model B requests unsupported platform onnx",
            A.replace("tensorflow", "onnx"): (
                "Illegal to change a model's platform. For model A platform was tensorflow and new platform requested "
                "is onnx"
            ),
        }
        for models, text in cases.items():
            with self.subTest(text), self.assertRaises(errors.ServingError) as caught:
                self.check(models, A)
            with self.subTest(text):
                self.assertIn(text, caught.exception.message)
                self.assertEqual(caught.exception.code, StatusCode.INVALID_ARGUMENT)


class ReadTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory()), "models.config")

    def read(self, text: str) -> Any:
        self.path.write_text(text)
        return model_config.read(str(self.path))

    def test_all_of_it(self) -> None:
        text = (
            "model_config_list { config { name: 'A', base_path: '/a', model_platform: 'tensorflow'"
            " model_version_policy { specific { versions: 1 versions: 2 } }"
            " version_labels { key: 'stable' value: 1 } } }"
        )
        (model,) = self.read(text).model_config_list.config
        self.assertEqual((model.name, dict(model.version_labels)), ("A", {"stable": 1}))
        self.assertEqual(versions.wanted_versions(model.model_version_policy, [1, 2, 3]), {1, 2})

    def test_an_error_names_the_file_and_its_place(self) -> None:
        cases = {
            "improperly formatted file": "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:1",
            "model_config_list { config { nam: 'A' } }": "Error parsing text-format tensorflow.serving.",
            f"model_config_list {{ {A} {A} }}": "Illegal to list model A multiple times in config list",
            "custom_model_config {}": "ModelServer does not yet support custom model config.",
        }
        for text, reason in cases.items():
            with self.subTest(reason), self.assertRaises(errors.StartError) as caught:
                self.read(text)
            with self.subTest(reason):
                self.assertIn(f"--model_config_file={self.path}: {reason}", str(caught.exception))

    def test_a_file_that_is_missing_or_no_text(self) -> None:
        with self.assertRaisesRegex(errors.StartError, "can't be read: .*No such file"):
            model_config.read(str(self.path))
        self.path.write_bytes(b"\xff")
        with self.assertRaisesRegex(errors.StartError, "can't be read"):
            model_config.read(str(self.path))


if __name__ == "__main__":
    unittest.main()
