"""A request looked at before it is taken on: whatever cannot be drawn is refused by the parameter's name.

Errors name the fields of `DrawRequest`, which are what callers sent. Knows nothing of queues.
"""

import math
from collections.abc import Container

from lens.core.resolution import MAX_RATIO, resolve_resolution
from lens.errors import SettingError
from lens.sampling.image_processor import load_images
from lens.sampling.solvers import get_solver
from lens.serve.engine.request import MAX_PREVIEWS, MAX_SEED, GenerationRequest


def validate_request(
    request: GenerationRequest, models: Container[str], loras: Container[str], max_steps: int
) -> None:
    """Raise SettingError, with the name of the parameter, for a request that cannot be drawn."""
    if request.model not in models:
        raise SettingError("model", request.model, "the name of a model that is offered here")
    if not request.prompt.strip():
        raise SettingError("prompt", request.prompt, "some words", "Say what the picture shows.")
    _check_numbers(request, max_steps)
    _check_size(request.height, request.width)
    get_solver(request.solver)
    names = [lora.name for lora in request.loras]
    for lora in request.loras:
        if lora.name not in loras:
            raise SettingError("loras", lora.name, "the name of a LoRA that is offered here")
        if not math.isfinite(lora.weight):
            raise SettingError("loras", f"{lora.name}:{lora.weight}", "a weight that is a number")
        if names.count(lora.name) > 1:
            raise SettingError("loras", lora.name, "to be named once", "Add the two weights.")
    _check_images(request)


def _check_size(height: int, width: int) -> None:
    try:
        resolve_resolution(height, width)
    except SettingError as error:
        if error.setting != "size":
            raise
        # Sizes that nobody trained are the operator's to allow, not a request's.
        needs = f"an aspect ratio from 1:{MAX_RATIO} to {MAX_RATIO}:1, and an area of at most 1440 x 1440"
        raise SettingError("size", f"{width}x{height}", needs) from None


def _check_numbers(request: GenerationRequest, max_steps: int) -> None:
    _check_integer("steps", request.steps, 1, max_steps)
    _check_integer("seed", request.seed, 0, MAX_SEED)
    _check_integer("previews", request.previews, 0, MAX_PREVIEWS)
    if not math.isfinite(request.guidance) or request.guidance < 0:
        raise SettingError("guidance", request.guidance, "a number of 0 or more", "1 turns guidance off.")
    if request.deadline_s is not None and not request.deadline_s > 0:
        raise SettingError("deadline_s", request.deadline_s, "seconds from now, more than 0")


def _check_integer(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SettingError(name, value, f"a whole number from {low} to {high}")


def _check_images(request: GenerationRequest) -> None:
    if request.image is None:
        if request.mask is not None:
            raise SettingError("mask", str(request.mask), "an image that it is a mask of", "Give image too.")
        if request.strength is not None:
            raise SettingError("strength", request.strength, "an image to start from", "Give image too.")
    if request.strength is not None and not 0 < request.strength <= 1:
        needs = "a number above 0, at most 1"
        raise SettingError("strength", request.strength, needs, "1 redraws everything.")
    for name, path in (("image", request.image), ("mask", request.mask)):
        if path is not None:
            load_images(path, name)
