"""What a Keras file says of its layers is read first: it may name nothing but layers that only compute."""

import json
import tempfile
import unittest
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from tools.importing.frameworks import keras_models
from tools.importing.frameworks.keras_config import class_names, description_of
from tools.importing.frameworks.keras_models import loaded
from tools.importing.network import ImportProblem


class Dense:
    pass


# As much of Keras as is looked at.
KERAS = SimpleNamespace(
    layers=SimpleNamespace(Dense=Dense, Lambda=type("Lambda", (), {}), Rescaling=type("Rescaling", (), {})),
    initializers=SimpleNamespace(Zeros=type("Zeros", (), {})),
    regularizers=SimpleNamespace(),
    constraints=SimpleNamespace(),
    activations=SimpleNamespace(relu=max, get=max),
)


def model(*layers: Any) -> str:
    return json.dumps({"class_name": "Sequential", "config": {"name": "model", "layers": list(layers)}})


def layer(name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": {"name": "one", **config}}


class KerasConfigTest(unittest.TestCase):
    def refusal(self, *layers: Any) -> str:
        with self.assertRaises(ImportProblem) as caught:
            description_of(model(*layers), KERAS)
        return str(caught.exception)

    def test_layers_that_only_compute_pass(self) -> None:
        zeros = {"class_name": "Zeros", "config": {}, "module": "keras.initializers", "registered_name": None}
        relu = {"class_name": "function", "config": "relu", "module": "builtins", "registered_name": "function"}
        text = model(layer("Dense", bias_initializer=zeros, activation=relu), layer("Rescaling", scale=0.1))
        names = class_names(description_of(text, KERAS))
        self.assertEqual(names, ["Sequential", "Dense", "Zeros", "function", "Rescaling"])
        times = layer("TFOpLambda", function="math.multiply")
        description_of(model(times, layer("TFOpLambda", function="cast")), KERAS)

    def test_layers_that_are_code_are_refused(self) -> None:
        code = {"class_name": "__lambda__", "config": {"code": "4wA="}}
        for one in (
            layer("Lambda", function=["4wA=", None, None]),
            # Inside of another one, and where a function may stand.
            layer("Dense", layer=layer("Lambda")),
            layer("Dense", activation=code),
            layer("TFSMLayer", filepath="/m"),
            layer("TorchModuleWrapper", module="gASV"),
            layer("StringLookup", vocabulary="/etc/passwd"),
            layer("Mine"),
            {"class_name": ["Lambda"], "config": {}},
        ):
            with self.subTest(str(one)):
                self.assertRegex(self.refusal(one), "code|pickle|import that one|read files")

    def test_functions_of_other_modules_are_refused(self) -> None:
        for name, module in (("system", "os"), ("relu", "os"), ("get_file", "keras.utils"), ("get", "keras.utils")):
            with self.subTest(name, module=module):
                function = {"class_name": "function", "config": name, "module": module, "registered_name": "function"}
                self.assertRegex(
                    self.refusal(layer("Dense", activation=function)), "code of its author|not an activation"
                )
        spec = {"class_name": "__typespec__", "spec_name": "get_file", "module": "keras.utils", "config": []}
        self.refusal(layer("Dense", input_spec=spec))
        self.refusal({"class_name": "Dense", "module": "kerasx.layers", "config": {}})
        for function in ("io.write_file", "py_function", "numpy_function", "mathx", ""):
            with self.subTest(function):
                self.assertIn("only compute", self.refusal(layer("TFOpLambda", function=function)))

    def test_what_is_refused_has_something_to_do_instead(self) -> None:
        for name in ("JaxLayer", "StringLookup", "TextVectorization"):
            with self.subTest(name):
                self.assertRegex(self.refusal(layer(name)), "export the model|save the model without it")
        self.assertIn("model.export", self.refusal(layer("TFOpLambda", function="io.read_file")))

    def test_why_keras_cant_load_a_file_is_told_without_a_guess(self) -> None:
        def load() -> None:
            long = "<class 'Dense'> could not be deserialized properly. " + "config={} " * 100
            raise TypeError(f"{long}\n\nException encountered: Unrecognized keyword arguments: 'later'")

        with self.assertRaises(ImportProblem) as caught:
            loaded(load)
        self.assertRegex(str(caught.exception), r"^Keras can't load it \(Unrecognized keyword arguments: 'later'\): ")
        self.assertRegex(str(caught.exception), "incomplete, or made by another version of Keras.*SavedModel")

    def test_how_a_model_was_trained_is_neither_checked_nor_loaded(self) -> None:
        own = {"optimizer": {"class_name": "Mine", "module": "mine", "config": {}}}
        parts = {"config.json": json.loads(model()) | {"compile_config": own}, "metadata.json": {"keras_version": "3"}}
        with tempfile.TemporaryDirectory() as name, patch.object(keras_models, "_load_new") as load:
            path = Path(name, "model.keras")
            with zipfile.ZipFile(path, "w") as archive:
                for part, content in parts.items():
                    archive.writestr(part, json.dumps(content))
            keras_models.load_keras(path)
        (_, config, _), _ = load.call_args
        self.assertEqual(json.loads(config), json.loads(model()))
        # Keras would load that of a model inside of the model.
        inside = json.loads(model()) | {"compile_config": own}
        self.assertIn("code of its author", self.refusal(inside))

    def test_a_broken_description_is_refused(self) -> None:
        for text in ("{", "[" * 100_000, '{"class_name": "Sequential", "config": ' + '{"a": ' * 100_000):
            with self.subTest(text[:40]), self.assertRaisesRegex(ImportProblem, "broken"):
                description_of(text, KERAS)


if __name__ == "__main__":
    unittest.main()
