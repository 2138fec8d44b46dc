"""Default values of a request: steps, guidance and base resolution of each variant, strength.

The values of a variant are those of its known model. A folder may replace them in its model_index.json. The
variant of a published folder, which states none, is derived from the name.
"""

import re
from typing import NamedTuple

from lens.errors import SettingError
from lens.models.checkpoints.registry import KNOWN_MODELS

IMAGE_TO_IMAGE_STRENGTH, INPAINT_STRENGTH, UPSCALE_STRENGTH = 0.6, 1.0, 0.5
MAX_UPSCALE = 4


class SamplingDefaults(NamedTuple):
    """Values of a model for what a request leaves out."""

    num_inference_steps: int
    guidance_scale: float
    base_resolution: int


VARIANT_DEFAULTS = {
    model.variant: SamplingDefaults(model.num_inference_steps, model.guidance_scale, model.base_resolution)
    for model in KNOWN_MODELS.values()
}
_VARIANT_IN_NAME = re.compile(r"lens[-_. ]?(?:(nano)[-_. ]?)?(turbo|base)?", re.IGNORECASE)


def variant_from_name(name: str | None) -> str:
    """Return the variant in the name of a folder or repository; "lens" if it names no other."""
    variants = ["-".join(filter(None, words)).lower() for words in _VARIANT_IN_NAME.findall(str(name or ""))]
    return next(filter(None, reversed(variants)), "lens")


def sampling_defaults(
    variant: str, steps: int | None = None, guidance: float | None = None, base_resolution: int | None = None
) -> SamplingDefaults:
    """Return the defaults of a variant; arguments that are not None replace them.

    Raises: SettingError for a variant that is not in the table.
    """
    if variant not in VARIANT_DEFAULTS:
        raise SettingError(
            "lens_variant", variant, f"one of {', '.join(VARIANT_DEFAULTS)}", "Correct model_index.json."
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
