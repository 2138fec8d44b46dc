"""What a person chose in the studio, as values: turned into requests, and read back out of a picture.

Knows nothing of pages: strings and numbers come in as people typed them, LensErrors say what is wrong.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lens.core.resolution import RESOLUTION_BUCKETS, buckets_for, resolve_resolution
from lens.errors import SettingError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.engine.request import GenerationRequest, LoraRequest, ModelInfo
from lens.serve.studio.gallery import Gallery

MAX_STUDIO_IMAGES = 10
MAX_BROWSER_SEED = 2**53 - 1 - MAX_STUDIO_IMAGES
"""The largest that a browser keeps exactly."""
NUM_RANDOM_SEEDS = 2**31
SOLVER_LABELS = {"euler": "Euler, first order", "ab2": "Adams-Bashforth, second order"}
NUM_PREVIEWS = 3


@dataclass(frozen=True)
class StudioForm:
    """The choices of one page; the names are those of the HTTP interface."""

    prompt: str = ""
    model: str = ""
    aspect_ratio: str = "1:1"
    base_resolution: int = 1024
    seed: int = 0
    is_seed_locked: bool = False
    count: int = 1
    steps: int = 20
    guidance: float = 1.0
    negative_prompt: str = ""
    solver: str = "euler"
    size: str = ""
    """Width x height, in place of shape and base, where it is not empty."""
    loras: tuple[LoraRequest, ...] = ()
    image: Path | None = None
    mask: Path | None = None
    strength: float = 0.6

    @property
    def height_and_width(self) -> tuple[int, int]:
        """The size in pixels.

        Raises: SettingError for a size that there is none of.
        """
        if not self.size.strip():
            return resolve_resolution(base_resolution=self.base_resolution, aspect_ratio=self.aspect_ratio)
        sides = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", self.size.lower())
        if sides is None:
            raise SettingError("size", self.size, "width x height in pixels, such as 192x128")
        return resolve_resolution(height=int(sides[2]), width=int(sides[1]))


def randomize_seed(form: StudioForm) -> StudioForm:
    """Return the form with a new seed, unless its own is locked."""
    return form if form.is_seed_locked else replace(form, seed=random.randrange(NUM_RANDOM_SEEDS))


def generation_request(form: StudioForm, caller: str, seed: int | None = None) -> GenerationRequest:
    """Return one picture as a request.

    Raises: SettingError for a value that cannot be drawn with.
    """
    if not form.prompt.strip():
        raise SettingError("prompt", form.prompt, "some words", "Say what the picture shows.")
    if not form.model:
        raise SettingError("model", form.model, "one of the offered models")
    height, width = form.height_and_width
    return GenerationRequest(
        model=form.model,
        prompt=form.prompt.strip(),
        seed=form.seed if seed is None else seed,
        height=height,
        width=width,
        steps=_check_integer("steps", form.steps, 1, 200),
        guidance=form.guidance,
        negative_prompt=form.negative_prompt.strip() if form.guidance != 1 else "",
        solver=form.solver,
        loras=tuple(lora for lora in form.loras if lora.weight != 0),
        image=form.image,
        mask=form.mask if form.image else None,
        strength=form.strength if form.image else None,
        caller=caller,
        previews=NUM_PREVIEWS,
    )


def generation_requests(form: StudioForm, caller: str) -> list[GenerationRequest]:
    """Return as many requests as pictures are wanted, with seeds that follow one another."""
    count = _check_integer("count", form.count, 1, MAX_STUDIO_IMAGES)
    seed = _check_integer("seed", form.seed, 0, MAX_BROWSER_SEED)
    return [generation_request(form, caller, seed + number) for number in range(count)]


def restore_form(
    metadata: ImageMetadata,
    form: StudioForm,
    models: Sequence[ModelInfo],
    loras: Sequence[str],
    gallery: Gallery,
) -> tuple[StudioForm, list[str]]:
    """Return the form that draws a picture again, and a sentence for each thing that is not here."""
    notes = []
    model = _find_model(metadata.model, models)
    if model is None:
        notes.append(f"It was drawn with {Path(metadata.model).name}, which is not offered here.")
    restored_loras = []
    for lora in metadata.loras:
        name = next((name for name in loras if name in (lora.path, Path(lora.path).stem)), None)
        if name is None:
            notes.append(f"Its LoRA {Path(lora.path).name} is not offered here.")
        else:
            restored_loras.append(LoraRequest(name, lora.weight))
    image = gallery.find_input(metadata.init_image.sha256) if metadata.init_image else None
    mask = gallery.find_input(metadata.mask.sha256) if metadata.mask and image else None
    if (metadata.init_image and image is None) or (metadata.mask and mask is None):
        notes.append("The picture it started from, or its mask, is not here; choose it again.")
    ratio, base, size = shape_from_size(metadata.width, metadata.height)
    target_model = model or _find_model(form.model, models)
    if base is not None and target_model is not None and base not in base_resolutions(target_model):
        ratio, base, size = "1:1", None, f"{metadata.width}x{metadata.height}"
    return replace(
        form,
        prompt=metadata.prompt,
        model=model.name if model else form.model,
        aspect_ratio=ratio,
        base_resolution=base or form.base_resolution,
        size=size,
        seed=metadata.seed,
        is_seed_locked=True,
        count=1,
        steps=metadata.steps,
        guidance=metadata.guidance,
        negative_prompt=metadata.negative_prompt,
        solver=metadata.solver,
        loras=tuple(restored_loras),
        image=image,
        mask=mask,
        strength=form.strength if metadata.strength is None else metadata.strength,
    ), notes


def shape_from_size(width: int, height: int) -> tuple[str, int | None, str]:
    """Return the ratio and base of a size, and "" - or 1:1, None and the size itself where it has no name."""
    for base in (128, 192, 256, *RESOLUTION_BUCKETS):
        for ratio, sides in buckets_for(base).items():
            if sides == (height, width):
                return ratio, base, ""
    return "1:1", None, f"{width}x{height}"


def base_resolutions(model: ModelInfo) -> list[int]:
    """Return the base sizes that a model is offered at: those with names; a small model's own, to twice."""
    base = model.base_resolution
    if base >= min(RESOLUTION_BUCKETS):
        return sorted({*RESOLUTION_BUCKETS, base})
    return [base, base * 3 // 2 // 16 * 16, base * 2]


def ratio_label(ratio: str, base: int) -> str:
    """Return a ratio with the size it means, such as `3:2, 160 x 112`."""
    height, width = buckets_for(base)[ratio]
    return f"{ratio}, {width} x {height}"


def variant_labels(models: Sequence[ModelInfo]) -> list[tuple[str, str]]:
    """Return (label, name) of the models: Lens, Turbo, Base where that tells them apart, else their names."""
    titles = []
    for model in models:
        kind = "Turbo" if "turbo" in model.variant else "Base" if "base" in model.variant else "Lens"
        titles.append(kind)
    if len(set(titles)) < len(titles):
        titles = [model.name for model in models]
    return [
        (f"{title} - {model.default_steps} steps", model.name)
        for title, model in zip(titles, models, strict=True)
    ]


def _find_model(name: str, models: Sequence[ModelInfo]) -> ModelInfo | None:
    return next((model for model in models if model.name in (name, Path(name).name)), None)


def _check_integer(setting: str, value: float, lowest: int, highest: int) -> int:
    if value is None or not lowest <= value <= highest or value != int(value):
        raise SettingError(setting, value, f"a whole number from {lowest} to {highest}")
    return int(value)


