"""Values of the controls: as a request body of the API, and as read back from image metadata.

States no default and no limit of a request: a value that is None is left to the API. Knows nothing of pages;
a LensError says what is wrong with a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lens.config import needs_of
from lens.core.noise import RANDOM_SEED, random_seed
from lens.core.resolution import RESOLUTION_BUCKETS, SIDE_STEP_PX, find_bucket, size_before_upscaling
from lens.core.step_caches import NO_CACHE
from lens.errors import SettingError
from lens.prompts.syntax import escape
from lens.reasoner.outcome import Reasoned
from lens.sampling.image_metadata import ImageMetadata
from lens.sampling.metadata_formats.foreign_settings import ForeignSettings
from lens.serve.api.schemas import CreateImageEditRequest, UploadedImages
from lens.serve.engine.request import MAX_PREVIEWS, LoraRequest, ModelInfo
from lens.serve.studio.gallery import Gallery

LABELS = {
    "prompt": "Prompt", "model": "Model", "aspect_ratio": "Aspect ratio", "seed": "Seed", "count": "Images",
    "base_resolution": "Base resolution", "steps": "Steps", "guidance": "Guidance", "solver": "Solver",
    "cache": "Cache",
    "negative_prompt": "Negative prompt", "size": "Exact size", "strength": "Strength", "loras": "LoRAs",
    "image": "Source image", "mask": "Mask", "styles": "Styles", "upscale": "Upscale",
    "upscale_strength": "Upscale strength",
}  # fmt: skip
"""What the page calls a form's fields; its messages speak of them by these names."""
FIELD_NAMES = {"n": "count"}
"""Names of a form's fields that differ from those of the API."""


@dataclass(frozen=True)
class StudioForm:
    """Values of the controls of one page."""

    prompt: str = ""
    model: str | None = None
    aspect_ratio: str | None = None
    base_resolution: int | None = None
    seed: int | None = None
    is_seed_locked: bool = False
    count: int = 1
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    solver: str | None = None
    cache: str | None = None
    size: str = ""
    """Width x height; if not empty, it replaces aspect ratio and base resolution."""
    loras: tuple[LoraRequest, ...] = ()
    image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    styles: tuple[str, ...] = ()
    upscale: float = 1.0
    """Factor of size; 1 is that of an image that is drawn once."""
    upscale_strength: float | None = None

    @property
    def uploads(self) -> UploadedImages:
        """The source image and its mask, as the API gets them."""
        return UploadedImages(self.image, self.mask if self.image else None)


def parse_number(name: str, value: Any, kind: type) -> Any:
    """Return a field's value as a number of a kind.

    Raises: SettingError for an empty field, a text, or a fraction where a whole number is needed.
    """
    try:
        number = kind(value)
        if number == float(value) or kind is float:  # what is not finite is refused with the other limits
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise SettingError(name, "" if value is None else value, f"a {'whole ' * (kind is int)}number")


def parse_loras(rows: Any) -> tuple[LoraRequest, ...]:
    """Return the LoRAs of a table of names and weights; rows without a name are skipped."""
    loras = []
    for row in rows or ():
        name, weight = (*row, None, None)[:2]
        if not name:
            continue
        try:
            loras.append(LoraRequest(str(name), float(1.0 if weight in (None, "") else weight)))
        except ValueError:
            raise SettingError(f"weight of {name}", weight, "a number") from None
    return tuple(loras)


def randomize_seed(form: StudioForm) -> StudioForm:
    """Return the form with a new seed, unless a seed is locked."""
    has_seed = form.is_seed_locked and form.seed not in (None, RANDOM_SEED)
    return form if has_seed else replace(form, seed=random_seed())


def request_body(form: StudioForm, num_previews: int = MAX_PREVIEWS) -> CreateImageEditRequest:
    """Return the form as a request body of the API, which tells of values without effect.

    Raises: SettingError for a value that the API does not accept.
    """
    has_size = bool(form.size.strip())
    fields = {
        "prompt": form.prompt.strip(),
        "model": form.model,
        "n": form.count,
        "seed": form.seed,
        "size": "".join(form.size.lower().split()) if has_size else None,
        "aspect_ratio": None if has_size else form.aspect_ratio,
        "base_resolution": None if has_size else form.base_resolution,
        "steps": form.steps,
        "guidance": form.guidance,
        "negative_prompt": form.negative_prompt.strip(),
        "solver": form.solver,
        "cache": form.cache or None,
        "loras": [{"name": lora.name, "weight": lora.weight} for lora in form.loras if lora.weight],
        "strength": form.strength,
        "styles": list(form.styles) or None,
        "upscale": None if form.upscale == 1 else form.upscale,
        "upscale_strength": None if form.upscale == 1 else form.upscale_strength,
        "stream": num_previews > 0,
        "partial_images": num_previews,
    }
    try:
        return CreateImageEditRequest.model_validate(fields)
    except ValidationError as error:
        raise _setting_error(error) from error


def restore_form(
    metadata: ImageMetadata,
    form: StudioForm,
    models: Sequence[ModelInfo],
    loras: Sequence[str],
    gallery: Gallery,
) -> tuple[StudioForm, list[str]]:
    """Return the form that generates an image again, and a sentence for each part that is not available."""
    notes = []
    model = _find_model(metadata.model, models)
    if model is None:
        notes.append(f"The model {Path(metadata.model).name} is not available on this server.")
    restored_loras = []
    for lora in metadata.loras:
        name = next((name for name in loras if name in (lora.path, Path(lora.path).stem)), None)
        if name is None:
            notes.append(f"The LoRA {Path(lora.path).name} is not available on this server.")
        else:
            restored_loras.append(LoraRequest(name, lora.weight))
    image = gallery.find_input(metadata.init_image.sha256) if metadata.init_image else None
    mask = gallery.find_input(metadata.mask.sha256) if metadata.mask and image else None
    if (metadata.init_image and image is None) or (metadata.mask and mask is None):
        notes.append("The source image or its mask is not available; select it again.")
    height, width = size_before_upscaling(metadata.height, metadata.width, metadata.upscale)
    form = _with_size(form, (width, height), model or _find_model(form.model or "", models))
    return replace(
        form,
        prompt=escape(metadata.prompt),
        model=model.name if model else form.model,
        seed=metadata.seed,
        is_seed_locked=True,
        count=1,
        steps=metadata.steps,
        guidance=metadata.guidance,
        negative_prompt=escape(metadata.negative_prompt),
        solver=metadata.solver,
        cache=metadata.cache or NO_CACHE,
        loras=tuple(restored_loras),
        image=image,
        mask=mask,
        strength=metadata.strength,
        styles=(),  # the prompt is that within the styles
        upscale=metadata.upscale or 1.0,
        upscale_strength=metadata.upscale_strength or form.upscale_strength,
    ), notes


def recorded_reasoning(metadata: ImageMetadata) -> Reasoned | None:
    """Return what a reasoner made of the request of an image; None if it was not asked."""
    record = metadata.reasoner
    if record is None:
        return None
    return Reasoned(prompt=metadata.prompt, original=metadata.request, **dict(record))


def restore_foreign_form(
    settings: ForeignSettings, form: StudioForm, models: Sequence[ModelInfo]
) -> StudioForm:
    """Return the form with what another tool recorded of an image, and nothing that would change it.

    Model, solver and cache stay as they are.
    """
    if settings.width is not None and settings.height is not None:
        form = _with_size(form, (settings.width, settings.height), _find_model(form.model or "", models))
    has_seed = settings.seed is not None
    return replace(
        form,
        prompt=settings.prompt or form.prompt,
        negative_prompt=settings.negative_prompt,
        seed=settings.seed if has_seed else form.seed,
        is_seed_locked=has_seed or form.is_seed_locked,
        count=1,
        steps=settings.steps or form.steps,
        guidance=form.guidance if settings.guidance is None else settings.guidance,
        loras=(),
        image=None,
        mask=None,
        strength=None,
        styles=(),
        upscale=1.0,
    )


def _with_size(form: StudioForm, size: tuple[int, int], model: ModelInfo | None) -> StudioForm:
    """Return the form with a (width, height): as a shape that the model has, else as a text."""
    ratio, base, text = shape_from_size(*size)
    if base is not None and model is not None and base not in base_resolutions(model):
        ratio, base, text = "1:1", None, f"{size[0]}x{size[1]}"
    return replace(form, aspect_ratio=ratio, base_resolution=base or form.base_resolution, size=text)


def shape_from_size(width: int, height: int) -> tuple[str, int | None, str]:
    """Return the aspect ratio and base resolution of a size, and ""; or 1:1, None and the size as text."""
    bucket = find_bucket(height, width)
    if bucket is None:
        return "1:1", None, f"{width}x{height}"
    base, ratio = bucket
    return ratio, base, ""


def base_resolutions(model: ModelInfo) -> list[int]:
    """Return the base resolutions to choose from: the named ones; for a small model, up to twice its own."""
    base = model.base_resolution
    if base >= min(RESOLUTION_BUCKETS):
        return sorted({*RESOLUTION_BUCKETS, base})
    return [base, base * 3 // 2 // SIDE_STEP_PX * SIDE_STEP_PX, base * 2]


def variant_labels(models: Sequence[ModelInfo]) -> list[tuple[str, str]]:
    """Return (label, name) of the models: Lens, Turbo or Base if that is unambiguous, else their names."""
    titles = []
    for model in models:
        kind = "Turbo" if model.is_distilled else "Base" if "base" in model.variant else "Lens"
        titles.append(kind)
    if len(set(titles)) < len(titles):
        titles = [model.name for model in models]
    return [
        (f"{title} - {model.default_steps} steps", model.name)
        for title, model in zip(titles, models, strict=True)
    ]


def _find_model(name: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    return next((model for model in models if model.name in (name, Path(name).name)), None)


def _setting_error(error: ValidationError) -> SettingError:
    problem = error.errors()[0]
    name = str(problem["loc"][0])
    return SettingError(FIELD_NAMES.get(name, name), problem["input"], needs_of(problem))
