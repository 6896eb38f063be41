"""One version of the model: its signature and its recipe."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess_service.app.errors import ModelUnavailable
from preprocess_service.app.imaging.resize import Pixels, normalise, to_uint8
from preprocess_service.app.recipe import SIGNATURE_OUTPUT, Geometry, Recipe, RecipeError, SecondLook, parse_recipe
from preprocess_service.app.serving_client.signature import Signature, model_error
from serving_common.tensorflow_protos import get_model_status_pb2, predict_pb2

_Status = get_model_status_pb2.ModelVersionStatus
# The embedded model server adds this to its error if it has no model of the name. No other text is passed on.
_SERVED_HERE = re.compile(r"served here: ([\w.-]+(?:, [\w.-]+)*)")


class AnotherVersion(Exception):
    """The photo was prepared for a version that did not answer. ``version``: the one that did; None if unknown."""

    def __init__(self, version: int | None = None) -> None:
        super().__init__(version)
        self.version = version


@dataclass(frozen=True, eq=False)
class ModelVersion:
    """One version of the model. ``is_pinned``: requests name the version; otherwise the newest version answers."""

    version: int
    signature: Signature
    recipe: Recipe
    is_pinned: bool = False
    geometry: Geometry = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "geometry", self.recipe.preprocessor_config.geometry())

    @property
    def second_look(self) -> SecondLook | None:
        """When and where a second look is taken. None: never, because the recipe or the model does not support it."""
        return self.recipe.preprocessor_config.second_look if self.signature.attention_output_name else None

    def to_input(self, pixels: Pixels) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return the model's input for resized pixels: ``[height, width, 3]``, with the signature's dtype."""
        if self.signature.accepts_uint8:
            return to_uint8(pixels)
        return normalise(pixels, self.recipe.preprocessor_config.scaling())

    def takes_the_same(self, other: "ModelVersion") -> bool:
        """Return whether a request for ``other`` has the same content as one for this version."""
        if self.signature != other.signature or self.geometry != other.geometry:
            return False
        configs = self.recipe.preprocessor_config, other.recipe.preprocessor_config
        return self.signature.accepts_uint8 or configs[0].scaling() == configs[1].scaling()


def read_recipe(response: predict_pb2.PredictResponse, version: int) -> Recipe:
    """Return the recipe from the answer of the signature ``preprocessor_config``.

    It takes milliseconds, so call it outside the event loop.

    Raises:
        ModelError: the recipe is invalid; the message says why.
    """
    documents = response.outputs[SIGNATURE_OUTPUT].string_val
    try:
        return parse_recipe(documents[0] if documents else b"")
    except RecipeError as exc:
        raise model_error("model_recipe", version=version, reason=str(exc)[:500]) from exc


def available_versions(statuses: Sequence[Any], model: str) -> list[int]:
    """Return the versions that are AVAILABLE, newest first.

    Raises:
        ModelUnavailable: there is none; the message gives the state of the newest.
    """
    available = sorted((int(status.version) for status in statuses if status.state == _Status.AVAILABLE), reverse=True)
    if available:
        return available
    newest = max(statuses, key=lambda status: status.version, default=None)
    if newest is not None and newest.state in (_Status.START, _Status.LOADING):
        raise ModelUnavailable("model_loading", name=model, version=newest.version)
    if newest is not None and newest.status.error_code not in (0, 1):
        raise ModelUnavailable("model_not_loaded", name=model, version=newest.version)
    raise ModelUnavailable


def not_there(model: str, details: str) -> ModelUnavailable:
    """Return the error for NOT_FOUND from GetModelStatus."""
    served = _SERVED_HERE.search(details)
    if served:
        return ModelUnavailable("model_other", name=model, found=served[1])
    return ModelUnavailable("model_not_there", name=model)
