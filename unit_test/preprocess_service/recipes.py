"""Recipes and versions of models, for tests that bring no model server."""

from typing import Any

from preprocess_service.app.recipe import Recipe, parse_recipe
from preprocess_service.app.serving_client.model_version import ModelVersion
from preprocess_service.app.serving_client.signature import Signature
from tools import model_folder
from tools.service import PROJECT

(_FOLDER,) = (PROJECT / "prev_trained_models" / "CAT-DOG").glob("[0-9]*")
# The shipped one, whose golden photos only the shipped model answers as they want.
SHIPPED = model_folder.read_recipe(_FOLDER).model_copy(update={"golden": ()})
GEOMETRY = SHIPPED.preprocessor_config.geometry()
SIGNATURE = Signature("pixels", "probabilities", accepts_uint8=True)


def recipe(width: int = 5, height: int = 4, labels: tuple[str, ...] = ("CAT", "DOG"), **config: Any) -> Recipe:
    """A recipe of a small size."""
    values = {"size": {"width": width, "height": height}, **config}
    return parse_recipe({"preprocessor_config": values, "labels": list(labels)})


def model_version(number: int = 3, of: Recipe = SHIPPED, signature: Signature = SIGNATURE) -> ModelVersion:
    """A version as the service has met it."""
    return ModelVersion(number, signature, of)
