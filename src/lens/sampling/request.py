"""A request to draw, checked: prompts as lists, one size, one count, numbers within their ranges.

Knows nothing of models; what it says is what the pipeline does.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from lens.core.randomness import draw_noise
from lens.core.schedule import sampling_sigmas, shift_mu, shift_times
from lens.errors import SettingError, ShapeError

DEFAULT_STRENGTH = 0.6
"""Noise that image-to-image starts from; with a mask it starts from pure noise."""


def prompts_of(prompt: str | Sequence[str] | None, setting: str = "prompt") -> list[str]:
    """Return prompts as a list.

    Raises: SettingError for a prompt that is missing, empty or not text.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not all(isinstance(one, str) for one in prompts):
        raise SettingError(setting, prompt, "words, or a list of them", "Or hand over prompt_embeds.")
    if not prompts or not all(one.strip() for one in prompts):
        raise SettingError(setting, prompt, "some words", "Say what the picture shows.")
    return list(prompts)


def negatives_of(negative_prompt: str | Sequence[str] | None, num_prompts: int) -> list[str]:
    """Return one negative prompt for each prompt; an empty one stands for no text at all.

    Raises: SettingError where there are several, but not one for each prompt.
    """
    negatives = (
        [negative_prompt or ""] if not isinstance(negative_prompt, (list, tuple)) else list(negative_prompt)
    )
    if len(negatives) == 1:
        negatives = negatives * num_prompts
    if len(negatives) != num_prompts:
        raise SettingError(
            "negative_prompt", negative_prompt, f"one text, or one for each of {num_prompts} prompts"
        )
    return negatives


def check_numbers(num_images: int, guidance_scale: float, strength: float | None, has_image: bool) -> None:
    """Raise SettingError for a number outside its range, or a strength with nothing to apply it to."""
    if num_images < 1:
        raise SettingError("num_images_per_prompt", num_images, "to be 1 or more")
    if not math.isfinite(guidance_scale) or guidance_scale < 0:
        raise SettingError("guidance_scale", guidance_scale, "a number of 0 or more", "1 turns guidance off.")
    if strength is None:
        return
    if not has_image:
        raise SettingError(
            "strength", strength, "an image to start from", "Give image=, or leave strength out."
        )
    if not 0 < strength <= 1:
        raise SettingError("strength", strength, "a number above 0, at most 1", "1 redraws everything.")


def sigmas_from(strength: float, num_tokens: int, num_steps: int) -> Tensor:
    """Return the noise levels from that of `strength` down to 0.

    In unshifted time a strength is where to start, and it takes its share of the steps: at multiples of
    1/num_steps the levels are the tail of the full schedule.

    Shapes: -> (steps left + 1,), float32.
    """
    if strength == 1:
        return sampling_sigmas(num_tokens, num_steps)
    num_left = max(1, math.ceil(num_steps * strength - 1e-9))
    even = torch.linspace(strength, strength / num_left, num_left, dtype=torch.float64)
    shifted = shift_times(even, shift_mu(num_tokens, num_steps))
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


def spread(rows: Tensor, num_pictures: int, setting: str) -> Tensor:
    """Return one row for each picture: one row for all, or each row for its equal share of them, in order.

    Shapes: (R, ...) -> (num_pictures, ...).
    Raises: SettingError unless the pictures divide evenly among the rows.
    """
    if num_pictures % len(rows):
        needs = f"one, or as many as there are prompts; {num_pictures} pictures are to be drawn"
        raise SettingError(setting, f"a list of {len(rows)}", needs)
    return rows.repeat_interleave(num_pictures // len(rows), dim=0)


def starting_noise(
    shape: tuple[int, int, int],
    generator: Generator | Sequence[Generator] | None,
    latents: Tensor | None,
    device: torch.device | str,
) -> Tensor:
    """Return the noise to start from: drawn picture by picture, or handed over ready.

    One generator draws the pictures one after the other, so that no picture depends on how many follow; a list has
    one for each.

    Shapes: -> (B, I, C), float32.
    """
    if latents is not None:
        if latents.shape != shape:
            raise ShapeError(f"latents are {tuple(latents.shape)}, but this size and count need {shape}.")
        return latents.to(device, torch.float32)
    if generator is None or isinstance(generator, Generator):
        generator = [generator or torch.default_generator] * shape[0]
    return draw_noise(shape, generator, torch.float32, device)
