"""Inputs of a call: checks of its arguments, prompts as lists, source images, noise levels and noise.

Knows nothing of models. Letters: B images, R source images, I image tokens, C channels of a token.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lens.core.noise import draw_noise
from lens.core.resolution import resolve_resolution
from lens.core.schedule import empirical_mu, sampling_sigmas, shift_times
from lens.errors import SettingError, ShapeError
from lens.nano.request_warnings import request_warnings
from lens.sampling import image_processor
from lens.sampling.image_processor import ImageInput

logger = logging.getLogger(__name__)


class SourceImages(NamedTuple):
    """The size of the images, and the source images and masks at that size."""

    height: int
    width: int
    pixels: Tensor | None = None
    """(R, 3, H, W)"""
    mask: Tensor | None = None
    """(R, 1, H, W), 1 where the image is redrawn."""


def normalize_prompts(prompt: str | Sequence[str] | None, setting: str = "prompt") -> list[str]:
    """Return prompts as a list.

    Raises: SettingError for a prompt that is missing, empty or not text.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not all(isinstance(one, str) for one in prompts):
        raise SettingError(setting, prompt, "a text, or a list of texts", "Or pass prompt_embeds.")
    if not prompts or not all(one.strip() for one in prompts):
        raise SettingError(setting, prompt, "some text", "Describe the image.")
    return list(prompts)


def log_warnings(
    config: Any, default_base: int, prompt: str | Sequence[str] | None, source: SourceImages
) -> None:
    """Log what a model of a small world does not know of prompts or their size; nothing for prompt embeds."""
    prompts = [prompt] if isinstance(prompt, str) else prompt or []
    bases = config.trained_base_resolutions or [default_base]
    size = source.height, source.width
    found = (request_warnings(config.lens_variant or "", bases, one, size) for one in dict.fromkeys(prompts))
    for warning in dict.fromkeys(text for texts in found for text in texts):
        logger.warning(warning)


def normalize_negative_prompts(
    negative_prompt: str | Sequence[str] | None, num_prompts: int | None
) -> list[str]:
    """Return one negative prompt per prompt; an empty one stands for no text.

    Raises: SettingError for several negative prompts that are not one per prompt (None: any number).
    """
    given = (
        [negative_prompt] if negative_prompt is None or isinstance(negative_prompt, str) else negative_prompt
    )
    negatives = [text or "" for text in given]
    if num_prompts is None:
        return negatives
    if len(negatives) == 1:
        negatives = negatives * num_prompts
    if len(negatives) != num_prompts:
        raise SettingError(
            "negative_prompt", negative_prompt, f"one text, or one for each of {num_prompts} prompts"
        )
    return negatives


def drop_negative_prompt(negative_prompt: str | Sequence[str] | None) -> str:
    """Return an empty negative prompt; log a warning if there was one, as it acts only with guidance."""
    if any(text.strip() for text in normalize_negative_prompts(negative_prompt, None)):
        logger.warning("negative_prompt has no effect at guidance_scale 1; it is not used.")
    return ""


def check_inputs(
    num_steps: int, guidance_scale: float, num_images: int, strength: float | None, has_image: bool,
    output_type: str, tensor_inputs: Sequence[str], known_tensors: Sequence[str],
) -> None:  # fmt: skip
    """Raise SettingError for an argument that cannot be used, before anything is computed."""
    check_numbers(num_steps, guidance_scale, num_images, strength, has_image)
    check_output_names(output_type, tensor_inputs, known_tensors)


def check_numbers(
    num_steps: int, guidance_scale: float, num_images: int, strength: float | None, has_image: bool
) -> None:
    """Raise SettingError for a number outside its range, or a strength without a source image."""
    if num_steps < 1:
        raise SettingError("num_inference_steps", num_steps, "to be 1 or more")
    if num_images < 1:
        raise SettingError("num_images_per_prompt", num_images, "to be 1 or more")
    if not math.isfinite(guidance_scale) or guidance_scale < 0:
        raise SettingError("guidance_scale", guidance_scale, "a number of 0 or more", "1 turns guidance off.")
    if strength is None:
        return
    if not has_image:
        raise SettingError("strength", strength, "a source image", "Pass image=, or leave strength out.")
    if not 0 < strength <= 1:
        raise SettingError("strength", strength, "a number above 0, at most 1", "1 redraws everything.")


def check_output_names(output_type: str, tensor_inputs: Sequence[str], known: Sequence[str]) -> None:
    """Raise SettingError for an unknown output type or an unknown tensor of a callback."""
    if output_type not in image_processor.OUTPUT_TYPES:
        raise SettingError("output_type", output_type, f"one of {', '.join(image_processor.OUTPUT_TYPES)}")
    unknown = [name for name in tensor_inputs if name not in known]
    if unknown:
        raise SettingError("callback_on_step_end_tensor_inputs", unknown, f"names out of {', '.join(known)}")


def prepare_source(
    image: ImageInput | Sequence[ImageInput] | None,
    mask_image: ImageInput | Sequence[ImageInput] | None,
    size: tuple[int | None, int | None, int | None, str | None],
    default_base: int,
    allow_extreme: bool = False,
) -> SourceImages:
    """Return the size of the images, and the source images and masks at that size.

    `size` is (height, width, base resolution, aspect ratio); if all are None, the source image decides.
    Raises: SettingError for a size or an image that cannot be used.
    """
    if mask_image is not None and image is None:
        raise SettingError("mask_image", "given", "the image that it masks", "Pass image= too.")
    loaded = [] if image is None else image_processor.load_images(image)
    height, width, base, ratio = size
    if loaded and all(one is None for one in size):
        height, width = image_processor.size_from_image(loaded[0], default_base)
    height, width = resolve_resolution(
        height, width, base, ratio, default_base=default_base, allow_extreme=allow_extreme
    )
    if not loaded:
        return SourceImages(height, width)
    pixels = image_processor.to_pixels(
        [image_processor.resize_to_cover(one, height, width) for one in loaded]
    )
    mask = None if mask_image is None else image_processor.load_masks(mask_image, height, width)
    return SourceImages(height, width, pixels, mask)


def sigmas_for_strength(strength: float, num_tokens: int, num_steps: int) -> Tensor:
    """Return the noise levels from that of `strength` down to 0.

    `strength` is the start in unshifted time and the share of the steps that remain. At multiples of
    1/num_steps the levels are the tail of the full schedule.

    Shapes: -> (steps left + 1,), float32.
    """
    if strength == 1:
        return sampling_sigmas(num_tokens, num_steps)
    num_left = max(1, math.ceil(num_steps * strength - 1e-9))
    even = torch.linspace(strength, strength / num_left, num_left, dtype=torch.float64)
    shifted = shift_times(even, empirical_mu(num_tokens, num_steps))
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


def repeat_rows(rows: Tensor, num_images: int, setting: str) -> Tensor:
    """Return one row per image: one row for all, or each row for an equal number of consecutive images.

    Shapes: (R, ...) -> (num_images, ...).
    Raises: SettingError unless the number of rows divides the number of images.
    """
    if num_images % len(rows):
        needs = f"one, or as many as there are prompts; {num_images} images are requested"
        raise SettingError(setting, f"a list of {len(rows)}", needs)
    return rows.repeat_interleave(num_images // len(rows), dim=0)


def prepare_noise(
    shape: tuple[int, int, int],
    generator: Generator | Sequence[Generator] | None,
    latents: Tensor | None,
    device: torch.device | str,
) -> Tensor:
    """Return the initial noise: drawn image by image, or `latents`.

    One generator draws the images one after the other, so that no image depends on how many follow; a list
    has one generator per image.

    Shapes: -> (B, I, C), float32.
    """
    if latents is not None:
        if latents.shape != shape:
            raise ShapeError(f"latents are {tuple(latents.shape)}, but this size and count need {shape}.")
        return latents.to(device, torch.float32)
    if generator is None or isinstance(generator, Generator):
        generator = [generator or torch.default_generator] * shape[0]
    return draw_noise(shape, generator, torch.float32, device)
