"""Validation of requests before they are queued: each error names the parameter.

The engine and the HTTP API share these checks, so a value has one rule and one message. Knows nothing of
queues.
"""

from collections.abc import Collection
from typing import Any

from lens.core.prompt_text import check_prompt_text
from lens.core.resolution import SizeWords, resolve_resolution
from lens.core.step_caches import parse_cache
from lens.errors import SettingError
from lens.sampling.image_processor import check_image_file
from lens.sampling.solvers import get_solver
from lens.serve.engine.request import Bounds, GenerationRequest, LoraRequest, field_bounds

API_SIZE_WORDS = SizeWords(height="", width="", exact="send size as WIDTHxHEIGHT", override="")
"""The API has a size, and no request may override its limits."""
REQUEST_BOUNDS = field_bounds(GenerationRequest)
LORA_BOUNDS = field_bounds(LoraRequest)


def validate_request(
    request: GenerationRequest, models: Collection[str], loras: Collection[str], max_steps: int
) -> None:
    """Raise SettingError with the name of the parameter if a request cannot be served. Opens its files."""
    validate_parameters(request, models, loras, max_steps)
    for name, path in (("image", request.image), ("mask", request.mask)):
        if path is not None:
            check_image_file(path, name)


def validate_parameters(
    request: GenerationRequest, models: Collection[str], loras: Collection[str], max_steps: int
) -> None:
    """Raise SettingError as `validate_request` does, but open no files."""
    check_name("model", request.model, models)
    check_prompt(request.prompt)
    check_prompt_text(request.negative_prompt, "negative_prompt")
    for name, (kind, bounds) in REQUEST_BOUNDS.items():
        limits = bounds._replace(high=max_steps) if name == "steps" else bounds
        _check_number(name, getattr(request, name), kind, limits)
    resolve_resolution(request.height, request.width, words=API_SIZE_WORDS)
    get_solver(request.solver)
    parse_cache(request.cache)
    _check_loras(request.loras, loras)
    _check_upscale(request)
    if request.image is None and request.mask is not None:
        raise SettingError("mask", str(request.mask), "an image that it is a mask of", "Send image too.")


def _check_upscale(request: GenerationRequest) -> None:
    if request.upscale is not None and request.mask is not None:
        raise SettingError("upscale", request.upscale, "an image without a mask", "Upscale the result.")


def check_name(setting: str, name: str, known: Collection[str]) -> None:
    """Raise SettingError for a model or LoRA that the server does not have."""
    if name not in known:
        needs = f"one of {', '.join(known)}" if known else "to be left out: this server has none"
        raise SettingError(setting, name, needs)


def check_prompt(prompt: str) -> None:
    """Raise SettingError for a prompt without words, too long, or that no tokenizer reads."""
    check_prompt_text(prompt)
    if not prompt.strip():
        raise SettingError("prompt", prompt, "some words", "Say what the image shows.")


def _check_number(name: str, value: Any, kind: type, bounds: Bounds) -> None:
    is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and bounds.contains(value)):
        raise SettingError(name, value, bounds.description(kind))


def _check_loras(loras: tuple[LoraRequest, ...], known: Collection[str]) -> None:
    names = [lora.name for lora in loras]
    for lora in loras:
        check_name("loras", lora.name, known)
        kind, bounds = LORA_BOUNDS["weight"]
        if not bounds.contains(lora.weight):
            raise SettingError("loras", f"{lora.name}:{lora.weight}", f"as weight {bounds.description(kind)}")
        if names.count(lora.name) > 1:
            raise SettingError("loras", lora.name, "to be named once", "Add the two weights.")
