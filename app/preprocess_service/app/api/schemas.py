"""What goes out: every body that this service answers with."""

from typing import Literal

from pydantic import BaseModel, Field

from preprocess_service.app.config import Config
from preprocess_service.app.errors import ServiceError
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.translations import Language


class ModelInUse(BaseModel):
    """Which model answered."""

    name: str = Field(description="Its folder in `prev_trained_models`.", examples=["CAT-DOG"])
    version: int = Field(description="The version's folder in that one.", examples=[1])


class PredictSuccess(BaseModel):
    """What is in the photo."""

    status: Literal["Success"] = Field(default="Success", description="There is an answer.")
    pet_type: str = Field(description="The most probable label.", examples=["CAT"])
    model_conf: float = Field(description="Its probability in percent.", ge=0, le=100, examples=[99.87])
    probabilities: dict[str, float] = Field(
        description="Of each label, 0 to 1.", examples=[{"CAT": 0.998712, "DOG": 0.001288}]
    )
    in_domain: bool | None = Field(
        None, description="False: this is probably neither. Absent where the model can't tell.", examples=[True]
    )
    domain_score: float | None = Field(
        None, description="How much this is a photo of what the model knows.", ge=0, le=1, examples=[0.98]
    )
    model: ModelInUse = Field(description="Which model answered.")
    request_id: str = Field(description="As in the header X-Request-ID.")


class Failure(BaseModel):
    """Why there is no answer."""

    status: Literal["Failed"] = Field(default="Failed", description="There is no answer.")
    msg: str = Field(description="What the sender can do about it, in the language of Accept-Language (en, pt).")
    code: str = Field(description="What failed, for programs.", examples=["invalid_base64"])
    request_id: str = Field(description="As in the header X-Request-ID.")


class PredictBatchAnswer(BaseModel):
    """What is in each photo, or why there is no answer to it, in the order in which they came."""

    status: Literal["Success"] = Field(
        default="Success", description="The batch was read; each photo has a status of its own."
    )
    predictions: list[PredictSuccess | Failure] = Field(description="One for each photo.")


class Health(BaseModel):
    """The outcome of each check by its name."""

    ok: list[str] = Field(description="The names of the checks that passed.", examples=[["model", "prediction"]])
    failing: dict[str, str] = Field(description="The name of each failed check, and why.")


class ModelDescription(BaseModel):
    """The model in use and what it takes and gives."""

    name: str = Field(description="Its folder in `prev_trained_models`.", examples=["CAT-DOG"])
    version: int = Field(description="The version in use.", examples=[1])
    labels: tuple[str, ...] = Field(description="In the order of the model's output.", examples=[["CAT", "DOG"]])
    signature_name: str = Field(description="Of its signatures the one that is called.", examples=["pixels"])
    input_name: str = Field(description="Of the signature's input.")
    input_shape: list[int] = Field(description="Height, width, channels.", min_length=3, max_length=3)
    output_name: str = Field(description="Of the signature's output.")


def success(prediction: Prediction, config: Config, request_id: str) -> PredictSuccess:
    score = prediction.domain_score
    return PredictSuccess(
        pet_type=prediction.label,
        model_conf=round(100 * prediction.probabilities[prediction.label], 2),
        probabilities={label: round(value, 6) for label, value in prediction.probabilities.items()},
        in_domain=None if score is None else score >= config.domain_threshold,
        domain_score=None if score is None else round(score, 6),
        model=ModelInUse(name=config.experiment_id, version=prediction.model_version),
        request_id=request_id,
    )


def failure(error: ServiceError, language: Language, request_id: str) -> Failure:
    return Failure.model_validate(error.body(language, request_id))
