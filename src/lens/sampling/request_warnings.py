"""What is told of a request that is drawn all the same: settings without effect, cut images, odd masks.

The command, the HTTP API, the studio and the pipeline say these sentences. Free of torch. Knows nothing of
what small models lack, which is in `lens.nano.request_warnings`, nor of prompts, in `lens.core.prompt_text`.
"""

import math
from collections.abc import Iterable
from typing import Any

from PIL import Image

from lens.core.images import OTHER_COLOURS, cut_share
from lens.errors import SettingError
from lens.sampling.defaults import default_strength
from lens.sampling.solvers import DEFAULT_SOLVER, SOLVERS

NO_NEGATIVE = "The negative prompt has no effect at guidance 1. Raise guidance, or leave it out."
NO_STRENGTH = "The strength has no effect without a source image. Give one, or leave the strength out."
NO_UPSCALE = "The upscale strength has no effect without upscaling. Ask for it, or leave the strength out."
NO_SOURCE = "At strength 1 the source image decides the size alone. Lower the strength to keep some of it."
NO_SOLVER = "The solver {} has no effect on one step, which is that of euler. Raise steps, or leave it out."
UNCONVERTED_COLOURS = (
    "The source image has colours of HDR, or others that are not converted: they are read as sRGB and look "
    "pale. Save it as sRGB."
)
MASK_KEEPS_NOTHING = (
    "The mask keeps nothing: all of the image is drawn anew. Areas to keep are black, or opaque in a mask "
    "with transparency."
)
MASK_REDRAWS_NOTHING = (
    "The mask redraws nothing: the image stays as it is. Areas to redraw are white, or transparent in a mask "
    "with transparency."
)
MAX_SHAPE_DIFFERENCE = 0.02
"""Share of a side by which the shape of a mask may differ from that of its image, for rounded sizes."""
MIN_TOLD_CUT = 0.01
"""Share of a side: a smaller cut comes from rounding a size to whole latent cells."""


def effect_warnings(
    *, guidance: float, has_negative: bool, strength: float | None, has_image: bool, has_mask: bool,
    solver: str, num_steps: int, upscale: float | None = None, upscale_strength: float | None = None,
) -> list[str]:  # fmt: skip
    """Return what is told of settings that a request gives and that do not act; None is not given."""
    used_strength = strength if strength is not None and has_image else None
    if has_image and used_strength is None:
        used_strength = default_strength(has_mask)
    num_steps_taken = math.ceil(num_steps * (used_strength or 1) - 1e-9)
    # One velocity gives one direction: without a step before it, every such step is that of Euler.
    is_euler = num_steps_taken <= 1 and SOLVERS[solver].num_velocities == 1 and solver != DEFAULT_SOLVER
    told = {
        NO_NEGATIVE: has_negative and guidance == 1,
        NO_STRENGTH: strength is not None and not has_image,
        NO_UPSCALE: upscale_strength is not None and upscale is None,
        NO_SOURCE: used_strength == 1 and not has_mask,
        NO_SOLVER.format(solver): is_euler,
    }
    return [sentence for sentence, is_told in told.items() if is_told]


def cut_warning(image_size: tuple[int, int], size: tuple[int, int]) -> str | None:
    """Return what is told of a source image that is cropped to a size, both (width, height), or None."""
    share = cut_share(image_size, size)
    if share < MIN_TOLD_CUT:
        return None
    side = "width" if image_size[0] / image_size[1] > size[0] / size[1] else "height"
    (width, height), (new_width, new_height) = image_size, size
    return (
        f"The source image of {width}x{height} has another shape than {new_width}x{new_height}: "
        f"{share:.0%} of its {side} is cut off, half on either side. Ask for its own shape to keep all of it."
    )


def colour_warning(image: Image.Image) -> str | None:
    """Return what is told of the colours of a source image that was read as models see it, or None."""
    return UNCONVERTED_COLOURS if OTHER_COLOURS in image.info else None


def mask_warning(mask: Image.Image) -> str | None:
    """Return what is told of a grey mask at the size of the image, or None."""
    extremes: Any = mask.getextrema()
    lowest, highest = extremes
    if highest == 0:
        return MASK_REDRAWS_NOTHING
    return MASK_KEEPS_NOTHING if lowest > 0 else None


def check_mask_shape(
    mask_size: tuple[int, int], image_size: tuple[int, int], size: tuple[int, int], setting: str
) -> None:
    """Raise SettingError for a mask with neither the shape of its image nor the size of the result.

    All sizes are (width, height). Such a mask would be cropped elsewhere than its image.
    """
    if mask_size != size and cut_share(mask_size, image_size) > MAX_SHAPE_DIFFERENCE:
        (width, height), (mask_width, mask_height) = image_size, mask_size
        needs = f"the shape of the image, {width}x{height}"
        raise SettingError(setting, f"{mask_width}x{mask_height}", needs, "Save the mask at that size.")


def distinct(warnings: Iterable[str | None]) -> list[str]:
    """Return warnings once each, in their order; None is none."""
    return list(dict.fromkeys(warning for warning in warnings if warning is not None))
