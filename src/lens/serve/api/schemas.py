"""Request bodies of the HTTP API, and how a body becomes a request with every value decided.

The names are those of OpenAI's images API, then our own. A field is never ignored silently. Knows nothing
of HTTP.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from lens.core.noise import MAX_SEED, RANDOM_SEED, RANDOM_SEED_NAME, random_seed
from lens.core.prompt_text import check_prompt_text
from lens.core.resolution import resolve_resolution, upscaled_size
from lens.core.step_caches import CACHE_NAMES, MIN_STEPS, NO_CACHE, parse_cache
from lens.errors import SettingError
from lens.sampling.defaults import UPSCALE_STRENGTH, default_strength
from lens.sampling.solvers import DEFAULT_SOLVER, SOLVERS
from lens.serve.engine import validation
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import (
    MAX_PREVIEWS,
    Bounds,
    GenerationRequest,
    LoraRequest,
    ModelInfo,
)
from lens.serve.engine.validation import LORA_BOUNDS, REQUEST_BOUNDS
from lens.serve.safety.provenance import check_encoding
from lens.serve.settings.server import ServerSettings

MAX_IMAGES_PER_REQUEST = 10
MAX_LORAS = 16
MAX_USER_CHARACTERS = 512
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class QualityPreset(NamedTuple):
    """What a quality stands for."""

    is_distilled: bool | None
    """Which variants are taken where no model is named; None takes the first offered."""
    step_factor: float
    """Of the model's own steps."""


QUALITIES: dict[str, QualityPreset] = {
    "low": QualityPreset(True, 1.0),
    "medium": QualityPreset(None, 1.0),
    "high": QualityPreset(False, 1.0),
    "xhigh": QualityPreset(False, 1.5),
    "max": QualityPreset(False, 2.0),
}
SAME_AS_ABSENT: dict[str, Any] = {
    "n": 1, "size": "auto", "quality": "medium", "output_format": "png",
    "background": "auto", "moderation": "auto", "seed": RANDOM_SEED, "negative_prompt": "", "loras": [],
    "styles": [], "solver": DEFAULT_SOLVER, "enhance": False, "partial_images": 0, "priority": 0,
}  # fmt: skip
"""Values that a body may state or leave out, with the same result."""
QUALITY_ALIASES = {"auto": "medium", "standard": "medium", "hd": "high"}


def _bounded(bounds_of: dict[str, tuple[type, Bounds]], name: str) -> WithJsonSchema:
    """Return the JSON schema of a number that `validate_parameters` checks."""
    kind, bounds = bounds_of[name]
    schema: dict[str, Any] = {"type": "integer" if kind is int else "number"}
    schema["exclusiveMinimum" if bounds.excludes_low else "minimum"] = bounds.low
    return WithJsonSchema(schema if math.isinf(bounds.high) else schema | {"maximum": bounds.high})


def _read_seed(value: Any) -> Any:
    return RANDOM_SEED if value == RANDOM_SEED_NAME else value


def _read_names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value  # a field of a form


class Lora(BaseModel):
    """A LoRA of the server and its weight."""

    model_config = ConfigDict(extra="forbid")

    name: str
    weight: Annotated[float, _bounded(LORA_BOUNDS, "weight")] = 1.0


class BaseImageRequest(BaseModel):
    """Fields of every request for images."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field(json_schema_extra={"minLength": 1}, examples=["a red apple on a blue background"])
    model: str | None = None
    n: int | None = Field(None, ge=1, le=MAX_IMAGES_PER_REQUEST)
    size: str | None = Field(None, description="WIDTHxHEIGHT in multiples of 16, or auto.")
    aspect_ratio: str | None = Field(None, description="W:H, one of nine from 1:2 to 2:1.")
    base_resolution: int | None = Field(None, ge=16, le=4096)
    quality: Quality | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Quality of JPEG and WebP; 100 is the best."
    )
    background: Literal["auto", "opaque", "transparent"] | None = None
    moderation: Literal["auto", "low"] | None = Field(
        None, description="No effect: the server's policy applies."
    )
    user: str | None = Field(None, max_length=MAX_USER_CHARACTERS)
    safety_identifier: str | None = Field(None, max_length=MAX_USER_CHARACTERS)
    seed: Annotated[int, BeforeValidator(_read_seed), Field(ge=RANDOM_SEED, le=MAX_SEED)] | None = Field(
        None, description="Seed of the first image; the others count up. -1 is a random one, as without it."
    )
    negative_prompt: str | None = None
    steps: Annotated[int, _bounded(REQUEST_BOUNDS, "steps")] | None = None
    guidance: Annotated[float, _bounded(REQUEST_BOUNDS, "guidance")] | None = None
    loras: list[Lora] | None = Field(None, max_length=MAX_LORAS)
    styles: Annotated[list[str], BeforeValidator(_read_names)] | None = Field(
        None, max_length=MAX_LORAS, description="Names of styles of the server, put around the prompt."
    )
    upscale: Annotated[float, _bounded(REQUEST_BOUNDS, "upscale")] | None = None
    upscale_strength: Annotated[float, _bounded(REQUEST_BOUNDS, "upscale_strength")] | None = None
    solver: str | None = Field(None, description=f"One of {', '.join(SOLVERS)}.")
    cache: str | None = Field(
        None, description=f"Cache of denoising steps: one of {', '.join((NO_CACHE, *CACHE_NAMES))}."
    )
    enhance: bool | None = Field(None, description="Let a reasoner refine or refuse the prompt first.")
    deadline_s: Annotated[float, _bounded(REQUEST_BOUNDS, "deadline_s")] | None = Field(
        None, description="Seconds from now; an image that cannot finish by then fails."
    )


class CreateImageRequest(BaseImageRequest):
    """The body of POST /v1/images/generations."""

    response_format: Literal["b64_json", "url"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=MAX_PREVIEWS)


class CreateImageEditRequest(CreateImageRequest):
    """The fields of POST /v1/images/edits, without its files."""

    strength: Annotated[float, _bounded(REQUEST_BOUNDS, "strength")] | None = None
    input_fidelity: Literal["low", "high"] | None = None


class CreateJobRequest(BaseImageRequest):
    """The body of POST /v1/jobs."""

    image: str | None = Field(None, description="Source image: base64, or a data URL.")
    mask: str | None = Field(
        None, description="Mask of the area to regenerate, white or transparent: base64, or a data URL."
    )
    strength: Annotated[float, _bounded(REQUEST_BOUNDS, "strength")] | None = None
    partial_images: int | None = Field(None, ge=0, le=MAX_PREVIEWS)
    priority: Annotated[int, _bounded(REQUEST_BOUNDS, "priority")] | None = Field(
        None, description="Among your own jobs, a higher one starts earlier."
    )


class UploadedImages(NamedTuple):
    """The stored source image and mask of a request."""

    image: Path | None = None
    mask: Path | None = None
    size: tuple[int, int] | None = None
    """(height, width) of the result unless the body states a size."""


NO_UPLOADS = UploadedImages()


def resolve_request(
    body: BaseImageRequest,
    models: list[ModelInfo],
    loras: list[str],
    settings: ServerSettings,
    caller: str,
    uploads: UploadedImages = NO_UPLOADS,
) -> GenerationSpec:
    """Return the images that a body asks for, with every default filled in.

    Raises: SettingError that names the parameter.
    """
    _check_texts(body, settings)
    quality = QUALITY_ALIASES.get(body.quality or "auto", body.quality or "auto")
    preset = QUALITIES[quality]
    model = _resolve_model(settings.served_model(body.model), models, preset.is_distilled)
    height, width = _resolve_size(body, model, settings, uploads.size)
    output_format = body.output_format or "png"
    check_encoding(output_format, body.output_compression)
    guidance = model.default_guidance if body.guidance is None else body.guidance
    partial_images = getattr(body, "partial_images", None) or 0
    if partial_images and isinstance(body, CreateImageRequest) and not body.stream:
        raise SettingError("partial_images", partial_images, "stream to be true", "Or leave it out.")
    steps = max(1, round(model.default_steps * preset.step_factor)) if body.steps is None else body.steps
    strength = body.upscale_strength
    request = GenerationRequest(
        model=model.name,
        prompt=body.prompt.strip(),
        seed=random_seed() if body.seed in (None, RANDOM_SEED) else body.seed,
        height=height,
        width=width,
        steps=steps,
        guidance=guidance,
        negative_prompt=(body.negative_prompt or "").strip(),
        solver=body.solver or DEFAULT_SOLVER,
        cache=_resolve_cache(body.cache, steps, settings),
        loras=tuple(LoraRequest(lora.name, lora.weight) for lora in body.loras or []),
        image=uploads.image,
        mask=uploads.mask,
        strength=_resolve_strength(body, uploads),
        upscale=body.upscale,
        upscale_strength=UPSCALE_STRENGTH if body.upscale and strength is None else strength,
        caller=caller,
        priority=getattr(body, "priority", None) or 0,
        deadline_s=body.deadline_s,
        previews=partial_images,
    )
    validation.validate_parameters(request, [one.name for one in models], loras, settings.engine.max_steps)
    return GenerationSpec(
        request,
        body.n or 1,
        output_format=output_format,
        output_quality=body.output_compression if output_format != "png" else None,
        quality=quality if quality in ("low", "medium", "high", "xhigh", "max") else "medium",
        warnings=_quality_warnings(body, quality, model),
    )


def decisive_fields(body: BaseImageRequest) -> dict[str, Any]:
    """Return the fields that decide what a body asks for: bodies that ask for the same have equal ones."""
    fields = body.model_dump(exclude_none=True)
    fields["prompt"] = body.prompt.strip()
    if body.quality is not None:
        fields["quality"] = QUALITY_ALIASES.get(body.quality, body.quality)
    return {name: value for name, value in fields.items() if value != SAME_AS_ABSENT.get(name)}


def check_prompt(prompt: str, settings: ServerSettings) -> None:
    """Raise SettingError for a prompt without words, too long, or that no tokenizer reads."""
    check_prompt_text(prompt, "prompt", settings.limits.prompt_characters)
    validation.check_prompt(prompt)


def _check_texts(body: BaseImageRequest, settings: ServerSettings) -> None:
    check_prompt(body.prompt, settings)
    for name in ("negative_prompt", "user", "safety_identifier"):
        check_prompt_text(getattr(body, name) or "", name, settings.limits.prompt_characters)
    if body.background == "transparent":
        raise SettingError("background", "transparent", "opaque or auto", "Lens draws no transparency.")
    if isinstance(body, CreateImageEditRequest) and body.input_fidelity is not None:
        raise SettingError("input_fidelity", body.input_fidelity, "to be left out", "Use strength.")


def _resolve_model(name: str | None, models: list[ModelInfo], is_distilled: bool | None) -> ModelInfo:
    if name is not None:
        validation.check_name("model", name, [model.name for model in models])
        return next(model for model in models if model.name == name)
    if is_distilled is not None:
        matching = [model for model in models if model.is_distilled == is_distilled]
        return (matching or models)[0]
    return models[0]


def _quality_warnings(body: BaseImageRequest, quality: str, model: ModelInfo) -> tuple[str, ...]:
    """Return what is told of a quality that a named model and steps leave nothing to decide."""
    preset = QUALITIES[quality]
    decides_steps = preset.step_factor != 1 and body.steps is None
    is_of_model = preset.is_distilled in (None, model.is_distilled) and preset.step_factor == 1
    if body.model is None or decides_steps or is_of_model:
        return ()
    return (f"The quality {quality} has no effect beside the model and the steps. Leave it or them out.",)


def _resolve_size(
    body: BaseImageRequest, model: ModelInfo, settings: ServerSettings, source_size: tuple[int, int] | None
) -> tuple[int, int]:
    height = width = None
    if body.size is not None and body.size != "auto":
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", body.size)
        if match is None:
            raise SettingError("size", body.size, "the form WIDTHxHEIGHT, or auto", "Such as 1248x832.")
        width, height = int(match[1]), int(match[2])
    elif source_size is not None and body.aspect_ratio is None and body.base_resolution is None:
        height, width = source_size
    height, width = resolve_resolution(
        height,
        width,
        body.base_resolution,
        body.aspect_ratio,
        default_base=model.base_resolution,
        allow_extreme=True,  # `validate_parameters` checks the limits
        words=validation.API_SIZE_WORDS,
    )
    if body.upscale is not None and REQUEST_BOUNDS["upscale"][1].contains(body.upscale):
        height, width = upscaled_size(height, width, body.upscale)
    limit = settings.limits.picture_px
    if limit is not None and height * width > limit:
        raise SettingError("size", f"{width}x{height}", f"at most {limit} pixels on this server")
    return height, width


def _resolve_cache(name: str | None, num_steps: int, settings: ServerSettings) -> str | None:
    if name is None:
        return parse_cache(settings.engine.cache) if num_steps >= MIN_STEPS else None
    return parse_cache(name)


def _resolve_strength(body: BaseImageRequest, uploads: UploadedImages) -> float | None:
    strength = getattr(body, "strength", None)
    if uploads.image is None or strength is not None:
        return strength
    return default_strength(has_mask=uploads.mask is not None)
