"""The routes that describe the models, and how a route finds the model of a request."""

import asyncio
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from preprocess_service.app.api.exception_handlers import language_headers, language_of
from preprocess_service.app.api.pages import media_type_of
from preprocess_service.app.api.schemas import ModelDescription, ModelList, ModelState, Preprocessing
from preprocess_service.app.errors import NotFound, ServiceError
from preprocess_service.app.inference.pipeline import Pipeline
from preprocess_service.app.observability.readiness import PROBE_SECONDS
from preprocess_service.app.recipe import MADE
from preprocess_service.app.served_models import ServedModels


def pipeline_of(request: Request) -> Pipeline:
    """Return the pipeline of the model that the path names, or of the first one.

    Raises:
        NotFound: there is no such model.
    """
    models: ServedModels = request.app.state.models
    name = request.path_params.get("model")
    if name is None:
        return models.first
    pipeline = models.find(name)
    request.state.model = name
    return pipeline


# Async, although they await nothing: FastAPI would run plain functions in a thread.
async def get_pipeline(request: Request) -> Pipeline:
    return pipeline_of(request)


async def get_models(request: Request) -> ServedModels:
    return request.app.state.models  # type: ignore[no-any-return]  # Starlette's state is untyped by design


RequestedPipeline = Annotated[Pipeline, Depends(get_pipeline)]
AllModels = Annotated[ServedModels, Depends(get_models)]


async def list_models(request: Request, response: Response, models: AllModels) -> ModelList:
    """List all models, the one that answers `/predict` first, each with its version in use."""
    language = language_of(request)
    response.headers.update(language_headers(language))

    async def state(name: str, pipeline: Pipeline) -> ModelState:
        try:
            return ModelState(name=name, version=(await pipeline.models.current(PROBE_SECONDS)).version)
        except ServiceError as exc:
            return ModelState(name=name, msg=exc.text(language))

    return ModelList(models=await asyncio.gather(*(state(*model) for model in models.pipelines.items())))


async def describe_model(pipeline: RequestedPipeline) -> ModelDescription:
    """Describe the model in use: name, version, labels, signature and preprocessing."""
    model = await pipeline.models.current(PROBE_SECONDS)
    signature, geometry, config = model.signature, model.geometry, model.recipe.preprocessor_config
    scale, offset = config.scaling()
    return ModelDescription(
        name=pipeline.config.experiment_id,
        version=model.version,
        labels=model.recipe.labels,
        signature_name=signature.name,
        input_name=signature.input_name,
        input_shape=[geometry.height, geometry.width, 3],
        output_name=signature.output_name,
        domain_threshold=config.domain_threshold if signature.domain_output_name else None,
        attention=signature.attention_output_name is not None,
        second_look=model.second_look if pipeline.config.second_look else None,
        preprocessing=Preprocessing(**geometry.model_dump(), scale=scale, offset=offset),
        golden=[golden.name for golden in model.recipe.golden if not golden.name.startswith(MADE)],
    )


async def golden_photo(request: Request, pipeline: RequestedPipeline) -> Response:
    """Return a golden photo of the version in use: a photo whose answer is known."""
    # Not a parameter: FastAPI would describe an answer for names that are no text, and there are none.
    name = request.path_params["name"]
    model = await pipeline.models.current(PROBE_SECONDS)
    for golden in model.recipe.golden:
        if golden.name == name:
            # The photo comes from the model folder. A browser must not run it if it is something else than a picture.
            headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
            return Response(golden.photo, media_type=media_type_of(golden.photo), headers=headers)
    raise NotFound(path=request.url.path)
