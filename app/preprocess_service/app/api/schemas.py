"""What goes out: every body that this service answers with."""

from heapq import nlargest
from operator import itemgetter
from typing import Literal

from pydantic import BaseModel, Field

from preprocess_service.app.errors import ServiceError
from preprocess_service.app.serving_client.predict_response import Prediction
from preprocess_service.app.translations import Language

# How many labels an answer has at most where the sender does not say: a model may have thousands.
DEFAULT_TOP_K = 5


class ModelInUse(BaseModel):
    """Which model answered."""

    name: str = Field(description="Its folder in `prev_trained_models`.", examples=["CAT-DOG"])
    version: int = Field(description="The version's folder in that one.", examples=[1])


class PredictSuccess(BaseModel):
    """What is in the photo."""

    status: Literal["Success"] = Field(default="Success", description="There is an answer.")
    label: str = Field(description="The most probable label.", examples=["CAT"])
    confidence: float = Field(description="Its probability, 0 to 1.", ge=0, le=1, examples=[0.998712])
    pet_type: str = Field(description="As `label`: the course's name of it.", examples=["CAT"])
    model_conf: float = Field(description="As `confidence`, in percent.", ge=0, le=100, examples=[99.87])
    probabilities: dict[str, float] = Field(
        description=f"Of the most probable labels, `top_k` of them ({DEFAULT_TOP_K}), from the largest, 0 to 1.",
        examples=[{"CAT": 0.998712, "DOG": 0.001288}],
    )
    in_domain: bool | None = Field(
        None,
        description="False: this is probably nothing that the model knows. Absent where the model can't tell.",
        examples=[True],
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
    warnings: dict[str, str] | None = Field(
        None, description="What does not work though photos are answered: a newer version that is not used, and why."
    )


class Preprocessing(BaseModel):
    """How a photo becomes the model's input; docs/models.md explains each."""

    width: int
    height: int
    mode: str = Field(examples=["crop"])
    crop: float = Field(description="The part of the centre that is kept, where `mode` is `crop`.")
    shortest_edge: int | None = Field(description="Pixels, where `mode` is `shortest_edge`.")
    resampling: str = Field(examples=["bilinear"])
    antialias: bool
    grayscale: bool = Field(description="Whether the photo becomes grey first.")
    decode: str = Field(description="`fast`: large photos may be decoded at a reduced scale.", examples=["exact"])
    scale: tuple[float, float, float] = Field(description="float32 inputs: pixel * scale + offset, for each channel.")
    offset: tuple[float, float, float]


class ModelDescription(BaseModel):
    """The model in use and what it takes and gives."""

    name: str = Field(description="Its folder in `prev_trained_models`.", examples=["CAT-DOG"])
    version: int = Field(description="The version in use.", examples=[1])
    labels: tuple[str, ...] = Field(description="In the order of the model's output.", examples=[["CAT", "DOG"]])
    signature_name: str = Field(description="Of its signatures the one that is called.", examples=["pixels"])
    input_name: str = Field(description="Of the signature's input.")
    input_shape: list[int] = Field(description="Height, width, channels.", min_length=3, max_length=3)
    output_name: str = Field(description="Of the signature's output.")
    domain_threshold: float | None = Field(description="A lower `domain_score` is not `in_domain`; null: it has none.")
    preprocessing: Preprocessing
    golden: list[str] = Field(
        description="Photos that came with the version: `/model/golden/NAME` has them.", examples=[["cat_2.jpg"]]
    )


def success(prediction: Prediction, model_name: str, top_k: int | None, request_id: str) -> PredictSuccess:
    """Return the answer, with ``top_k`` labels, or all if there are fewer."""
    score = prediction.domain_score
    found = prediction.probabilities
    # Of equal ones the first label comes first, as in all answers before.
    largest = nlargest(top_k or DEFAULT_TOP_K, found.items(), itemgetter(1))
    label, confidence = largest[0]
    return PredictSuccess(
        label=label,
        confidence=round(confidence, 6),
        pet_type=label,
        model_conf=round(100 * confidence, 2),
        probabilities={label: round(value, 6) for label, value in largest},
        in_domain=None if score is None else score >= prediction.domain_threshold,
        domain_score=None if score is None else round(score, 6),
        model=ModelInUse(name=model_name, version=prediction.model_version),
        request_id=request_id,
    )


def failure(error: ServiceError, language: Language, request_id: str) -> Failure:
    return Failure.model_validate(error.body(language, request_id))
