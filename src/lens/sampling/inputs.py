"""Inputs of a call: checks of its arguments, prompts as lists, source images, noise levels and noise.

Knows nothing of models. Letters: B images, R source images, I image tokens, C channels of a token.
"""

import logging
import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from lens.core.noise import draw_noise
from lens.core.prompt_text import check_prompt_text
from lens.core.resolution import resolve_resolution
from lens.core.schedule import empirical_mu, sampling_sigmas, shift_times
from lens.errors import PromptRefusedError, SettingError, ShapeError
from lens.models.checkpoints.registry import LENS_DENOISER
from lens.nano.request_warnings import request_warnings
from lens.prompts.reading import unread_syntax
from lens.reasoner.outcome import Reasoned, Reasoner
from lens.sampling import image_processor
from lens.sampling.image_processor import ImageInput
from lens.sampling.request_warnings import (
    check_mask_shape,
    colour_warning,
    cut_warning,
    distinct,
    effect_warnings,
    mask_warning,
)

logger = logging.getLogger(__name__)


class SourceImages(NamedTuple):
    """The size of the images, and the source images and masks at that size."""

    height: int
    width: int
    pixels: Tensor | None = None
    """(R, 3, H, W)"""
    mask: Tensor | None = None
    """(R, 1, H, W), 1 where the image is redrawn."""
    warnings: tuple[str, ...] = ()
    """What is told of images that are cut, and of masks that keep or redraw everything."""


def normalize_prompts(prompt: str | Sequence[str] | None, setting: str = "prompt") -> list[str]:
    """Return prompts as a list.

    Raises: SettingError for a prompt that is missing, empty, too long or not text.
    """
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not all(isinstance(one, str) for one in prompts):
        raise SettingError(setting, prompt, "a text, or a list of texts", "Or pass prompt_embeds.")
    if not prompts or not all(one.strip() for one in prompts):
        raise SettingError(setting, prompt, "some text", "Describe the image.")
    for one in prompts:
        check_prompt_text(one, setting)
    return list(prompts)


def reason_prompts(
    prompt: str | Sequence[str] | None,
    reasoner: Reasoner | None,
    on_progress: Callable[[str, int, int], None],
) -> list[Reasoned] | None:
    """Return what a reasoner makes of each prompt; each distinct one is asked about once. None without one.

    Raises: SettingError for a prompt that is missing or cannot be used; PromptRefusedError for the first that
    is refused.
    """
    if reasoner is None:
        return None
    if prompt is None:
        raise SettingError("reasoner", "given", "a prompt", "Pass prompt=, or leave the reasoner out.")
    prompts = normalize_prompts(prompt)
    answers = dict[str, Reasoned]()
    distinct_prompts = distinct(prompts)
    for index, text in enumerate(distinct_prompts):
        on_progress("reasoning", index, len(distinct_prompts))
        answer = answers[text] = reasoner(text)
        if answer.outcome == "refused":
            raise PromptRefusedError(answer.category, answer.reason)
        if answer.warning is not None:
            logger.warning(answer.warning)
    return [answers[text] for text in prompts]


def log_warnings(
    pipeline: Any, source: SourceImages, prompt: str | Sequence[str] | None, negatives: tuple[Any, Any],
    guidance: float, strength: float | None, solver: str, num_steps: int,
) -> None:  # fmt: skip
    """Log what is told of a call: settings without effect, cut images, what a small model does not know.

    `negatives` is (negative prompts, negative prompt embeds).
    """
    texts, embeds = negatives
    has_text = any(map(str.strip, normalize_negative_prompts(texts, None)))
    layers = embeds if isinstance(embeds, (list, tuple)) else ()
    has_embeds = any(isinstance(one, Tensor) and bool(one.any()) for one in layers)
    warnings = effect_warnings(
        guidance=guidance, has_negative=has_text or has_embeds, strength=strength,
        has_image=source.pixels is not None, has_mask=source.mask is not None,
        solver=solver, num_steps=num_steps,
    )  # fmt: skip
    config, size = pipeline.config, (source.height, source.width)
    bases = config.trained_base_resolutions or [pipeline.defaults.base_resolution]
    for one in normalize_prompts(prompt) if prompt is not None else ():
        warnings += unread_syntax(one) + request_warnings(config.lens_variant or "", bases, one, size)
    for warning in distinct([*warnings, *source.warnings]):
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
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str | None) for one in given):
        raise SettingError("negative_prompt", negative_prompt, "a text, or a list of texts")
    negatives = [text or "" for text in given]
    for text in negatives:
        check_prompt_text(text, "negative_prompt")
    if num_prompts is None:
        return negatives
    if len(negatives) == 1:
        negatives = negatives * num_prompts
    if len(negatives) != num_prompts:
        raise SettingError(
            "negative_prompt", negative_prompt, f"one text, or one for each of {num_prompts} prompts"
        )
    return negatives


def check_numbers(num_steps: int, guidance_scale: float, num_images: int, strength: float | None) -> None:
    """Raise SettingError for a number outside its range."""
    check_count("num_inference_steps", num_steps)
    check_count("num_images_per_prompt", num_images)
    if not _is_finite(guidance_scale) or guidance_scale < 0:
        raise SettingError("guidance_scale", guidance_scale, "a number of 0 or more", "1 turns guidance off.")
    if strength is not None and not (_is_finite(strength) and 0 < strength <= 1):
        raise SettingError("strength", strength, "a number above 0, at most 1", "1 redraws everything.")


def check_count(setting: str, value: Any) -> None:
    """Raise SettingError for anything but a whole number of 1 or more."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise SettingError(setting, value, "a whole number of 1 or more")


def check_sides(**sides: Any) -> None:
    """Raise SettingError for a side in pixels that is given and is no whole number."""
    for name, side in sides.items():
        if side is not None and (not isinstance(side, Integral) or isinstance(side, bool)):
            raise SettingError(name, side, "a whole number of pixels")


def check_output_names(
    output_type: str, tensor_inputs: Sequence[str] | None, known: Sequence[str]
) -> tuple[str, ...]:
    """Return the tensors that a callback requests; None are none.

    Raises: SettingError for an unknown output type or an unknown tensor.
    """
    if output_type not in image_processor.OUTPUT_TYPES:
        raise SettingError("output_type", output_type, f"one of {', '.join(image_processor.OUTPUT_TYPES)}")
    setting, needs = "callback_on_step_end_tensor_inputs", f"a list of names out of {', '.join(known)}"
    if tensor_inputs is None:
        return ()
    if not isinstance(tensor_inputs, (list, tuple)):
        raise SettingError(setting, tensor_inputs, needs)
    unknown = [name for name in tensor_inputs if name not in known]
    if unknown:
        raise SettingError(setting, unknown, needs)
    return tuple(tensor_inputs)


TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "generator": ((Generator, list, tuple), "a torch.Generator, or a list with one for each image"),
    "latents": ((Tensor,), "a tensor of initial noise"),
    "attention_kwargs": ((dict,), 'a dictionary, as in {"scale": 0.5}'),
    "aspect_ratio": ((str,), 'a text, as in "16:9"'),
    "solver": ((str,), "a solver's name"),
}
"""The types that settings of a call may have, and how a message names them."""


def check_types(**settings: Any) -> None:
    """Raise SettingError for a setting that is given and has another type than it needs."""
    for name, value in settings.items():
        if name not in TYPES:
            if value is not None and not callable(value):
                raise SettingError(name, value, "a function")
            continue
        types, needs = TYPES[name]
        members = value if isinstance(value, (list, tuple)) else ()
        is_generators = all(isinstance(one, Generator) for one in members)
        if value is not None and not (isinstance(value, types) and is_generators):
            raise SettingError(name, _brief(value), needs)


SCHEDULER_CLASS = "FlowMatchEulerDiscreteScheduler"
LEVELS = {
    "use_dynamic_shifting": True, "time_shift_type": "exponential", "num_train_timesteps": 1000,
    "shift_terminal": None, "invert_sigmas": False, "stochastic_sampling": False, "use_karras_sigmas": False,
    "use_exponential_sigmas": False, "use_beta_sigmas": False,
}  # fmt: skip
"""The settings of a scheduler that decide on noise levels and steps, with the values that Lens follows."""


def check_scheduler(scheduler: Any) -> None:
    """Raise SettingError for a scheduler that asks for other noise levels or steps than those of Lens.

    The levels and steps are those of this package, which depend on the size and the number of steps.
    """
    fix = "The noise levels are those of Lens; choose its ODE solver with solver=."
    if scheduler is None:
        return
    if type(scheduler).__name__ != SCHEDULER_CLASS:
        raise SettingError("scheduler", type(scheduler).__name__, SCHEDULER_CLASS, fix)
    for name, needed in LEVELS.items():
        stated = scheduler.config.get(name, needed)
        if stated != needed:
            raise SettingError(f"scheduler.{name}", stated, repr(needed), fix)


def text_layers(transformer: Any, stated: Sequence[int] | None, text_encoder: Any) -> Sequence[int]:
    """Return the blocks of the text encoder that the denoiser reads: as it says, or the pipeline's settings.

    Without both they are the last blocks of the quarters, as in the released models.
    """
    if transformer is not None:
        return transformer.config.selected_layer_index
    if stated is not None:
        return stated
    num_layers = text_encoder.config.num_hidden_layers
    layers = tuple(max(0, num_layers * quarter // 4 - 1) for quarter in (1, 2, 3, 4))
    if layers != LENS_DENOISER["selected_layer_index"]:
        logger.warning(
            "No denoiser is loaded, which says what text layers it reads. Those used are %s; "
            "selected_layer_index of the pipeline names others.", layers,
        )  # fmt: skip
    return layers


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _brief(value: Any) -> Any:
    """Return a value as a message shows it."""
    return value if isinstance(value, (str, int, float)) else f"{type(value).__name__} {value!s:.40}"


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
    masks = [] if mask_image is None else image_processor.load_mask_images(mask_image)
    for index in range(max(len(loaded), len(masks)) if masks else 0):
        pair = masks[index % len(masks)].size, loaded[index % len(loaded)].size
        check_mask_shape(*pair, (width, height), "mask_image")
    fitted = [image_processor.resize_to_cover(one, height, width) for one in loaded]
    fitted_masks = [image_processor.resize_to_cover(one, height, width) for one in masks]
    warnings = [colour_warning(one) for one in loaded]
    warnings += [cut_warning(one.size, (width, height)) for one in loaded]
    warnings += [mask_warning(one) for one in fitted_masks]
    mask = image_processor.mask_pixels(fitted_masks) if masks else None
    return SourceImages(height, width, image_processor.to_pixels(fitted), mask, tuple(distinct(warnings)))


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
