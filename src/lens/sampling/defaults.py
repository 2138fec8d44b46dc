"""What a model draws with where a request leaves it open: steps, guidance, base resolution.

A folder states its own values in `model_index.json`. Published folders do not; they go by their variant, and
the variant by their name. The variants' values are those of the table of known models.
"""

import re
from pathlib import Path
from typing import NamedTuple

from lens.errors import SettingError
from lens.models.checkpoints.reader import read_json
from lens.models.checkpoints.registry import KNOWN_MODELS, known_model

IMAGE_TO_IMAGE_STRENGTH, INPAINT_STRENGTH = 0.6, 1.0




class SamplingDefaults(NamedTuple):
    """Values for what a request leaves open."""

    num_inference_steps: int
    guidance_scale: float
    base_resolution: int


VARIANT_DEFAULTS = {
    model.variant: SamplingDefaults(model.num_inference_steps, model.guidance_scale, model.base_resolution)
    for model in KNOWN_MODELS.values()
}
_VARIANT_IN_NAME = re.compile(r"lens[-_. ]?(?:(nano)[-_. ]?)?(turbo|base)?", re.IGNORECASE)


def variant_from_name(name: str | None) -> str:
    """Return the variant that a folder's or a repository's name speaks of; "lens" where it names no other."""
    variants = ["-".join(filter(None, words)).lower() for words in _VARIANT_IN_NAME.findall(str(name or ""))]
    return next(filter(None, reversed(variants)), "lens")


def folder_defaults(folder: Path, name: str) -> SamplingDefaults:
    """Return what a model folder draws with where nothing is asked: its own statement, else its variant's."""
    index = read_json(folder / "model_index.json")
    stated = (index.get(f"default_{key}") for key in ("steps", "guidance", "base_resolution"))
    known = known_model(name)
    variant = index.get("lens_variant") or (known.variant if known else variant_from_name(str(folder)))
    return sampling_defaults(variant, *stated)


def sampling_defaults(
    variant: str, steps: int | None = None, guidance: float | None = None, base_resolution: int | None = None
) -> SamplingDefaults:
    """Return the variant's defaults, with those replaced that a folder states itself.

    Raises: SettingError for a variant that is not in the table.
    """
    if variant not in VARIANT_DEFAULTS:
        raise SettingError(
            "lens_variant", variant, f"one of {', '.join(VARIANT_DEFAULTS)}", "It stands in model_index.json."
        )
    known = VARIANT_DEFAULTS[variant]
    return SamplingDefaults(
        known.num_inference_steps if steps is None else steps,
        known.guidance_scale if guidance is None else guidance,
        known.base_resolution if base_resolution is None else base_resolution,
    )


def default_strength(has_mask: bool) -> float:
    """Return the strength of a request with an image that states none; a masked area is redrawn entirely."""
    return INPAINT_STRENGTH if has_mask else IMAGE_TO_IMAGE_STRENGTH
