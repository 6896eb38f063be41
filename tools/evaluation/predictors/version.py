"""Predictions of a version folder without a service: with the service's preprocessing and the model server's engine."""

import contextlib
from pathlib import Path

import numpy as np

from model_service.engines.factory import load_engines
from model_service.engines.parallelism import Threads
from model_service.errors import Failure
from model_service.models.saved_model import read_saved_model
from model_service.models.tensors import to_tensor
from preprocess_service.app.config import load_config
from preprocess_service.app.errors import ImageTooLarge, ModelError, ServiceError
from preprocess_service.app.imaging.resize import resize
from preprocess_service.app.inference.second_look import combine, find_box, is_wanted
from preprocess_service.app.recipe import Box, Recipe, RecipeError
from preprocess_service.app.serving_client import predict_response
from preprocess_service.app.serving_client.model_version import ModelVersion
from preprocess_service.app.serving_client.signature import choose_signature
from preprocess_service.app.utils import decode_image
from serving_common.cpu_quota import usable_cores
from serving_common.tensorflow_protos import predict_pb2
from tools.evaluation.predictors.predictor import Prediction, PredictorError, RefusedPhoto
from tools.model_folder import read_recipe

# As in the model server.
_MOST_STREAMS = 8


class VersionPredictor:
    """See Predictor. It answers as the service would, second looks included, for every model that can be served.

    Args:
        folder: the version folder.
        recipe: in place of that in the folder.
        max_looks: 1: no second looks.

    Raises PredictorError: the folder has no recipe or no model that fits it, or the model could do more than compute.
    """

    def __init__(self, folder: Path, recipe: Recipe | None = None, max_looks: int = 2) -> None:
        self._limits = load_config({}).limits
        self.max_looks = max_looks
        self.name = f"{folder.resolve().parent.name}, version {folder.resolve().name}"
        try:
            recipe = recipe or read_recipe(folder)
            model = read_saved_model(folder, 1, refuse_unsafe=True)
            signature = choose_signature(model.signature_defs.signature_def, recipe, load_config({}))
            cores = usable_cores()
            engines = load_engines(model, Threads(cores, min(cores, _MOST_STREAMS)), {signature.name})
        except RecipeError as exc:
            raise PredictorError(f"{folder} has no valid recipe ({exc}): see docs/models.md") from exc
        except (ModelError, Failure, OSError) as exc:
            raise PredictorError(f"{folder}: {exc}") from exc
        self._engine = engines[signature.name]
        self._outputs = {name: model.signatures[signature.name].outputs[name].dtype for name in signature.outputs}
        self._version = ModelVersion(1, signature, recipe)
        self.labels: tuple[str, ...] = recipe.labels
        has_domain = signature.domain_output_name is not None
        self.threshold: float | None = recipe.preprocessor_config.domain_threshold if has_domain else None

    def __call__(self, photo: Path) -> Prediction:
        try:
            size = photo.stat().st_size
            if size > self._limits.body_bytes:
                raise ImageTooLarge("body_bytes", megabytes=f"{self._limits.body_bytes / 1e6:.3g}")
            return self.predict(photo.read_bytes())
        except OSError as exc:
            raise RefusedPhoto(f"The file can't be read: {exc.strerror or exc}.") from exc
        except ServiceError as exc:
            raise RefusedPhoto(exc.text("en")) from exc

    def predict(self, data: bytes) -> Prediction:
        """Return the prediction for a photo's bytes; raises ServiceError if it is rejected, and PredictorError."""
        found = self.look(data)
        settings = self._version.second_look if self.max_looks > 1 else None
        if settings and found.attention is not None and is_wanted(found, settings):
            box = find_box(found.attention, settings)
            # As in the service, the first look is the answer if there can't be a second one.
            with contextlib.suppress(ServiceError):
                found = combine(found, self.look(data, box), settings)
        return Prediction(np.array([*found.probabilities.values()], np.float32), found.domain_score, found.looks)

    def look(self, data: bytes, box: Box | None = None) -> predict_response.Prediction:
        """Return the service's own prediction by one look at a photo, or at the part `box` of it (see `Geometry`).

        Raises ServiceError if the photo is rejected, and PredictorError.
        """
        geometry = self._version.geometry.model_copy(update={"box": box}) if box else self._version.geometry
        pixels = resize(decode_image(data, self._limits.pixels, geometry), geometry)
        signature, recipe = self._version.signature, self._version.recipe
        try:
            outputs = self._engine.run({signature.input_name: self._version.to_input(pixels)[None]}, [*self._outputs])
            response = predict_pb2.PredictResponse()
            for name, dtype in self._outputs.items():
                response.outputs[name].CopyFrom(to_tensor(outputs[name], dtype))
            (found,) = predict_response.read_predictions(response, signature, recipe, 1)
        except (Failure, ModelError, RuntimeError) as exc:
            raise PredictorError(f"{self.name}: {exc}") from exc
        if isinstance(found, ModelError):
            raise PredictorError(f"{self.name}: {found}") from found
        return found
