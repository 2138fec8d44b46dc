"""What decides the images of a request before a model is loaded: files, size, prompts, and what is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from lens.cli.arguments import DEFAULT_MODEL, LoraArgument
from lens.cli.generation.request import GenerateArguments
from lens.core.noise import seed_of_image
from lens.core.resolution import resolve_resolution, upscaled_size
from lens.errors import LensError
from lens.models.checkpoints.hashing import content_hash
from lens.nano.request_warnings import request_warnings
from lens.prompts.reading import ReadPrompt
from lens.reasoner.outcome import Reasoned
from lens.sampling.defaults import UPSCALE_STRENGTH, default_strength
from lens.sampling.image_metadata import FileRecord, open_mask, open_source_image
from lens.sampling.request_warnings import (
    check_mask_shape,
    colour_warning,
    cut_warning,
    distinct,
    effect_warnings,
    mask_warning,
)
from lens.sampling.resolved_model import COMPONENTS_WITH_FILES, ResolvedModel
from lens.sampling.solvers import DEFAULT_SOLVER

PART_OPTIONS = ("text_encoder", "vae", "tokenizer", "prompt_date")
SESSION_OPTIONS = (
    "model", *PART_OPTIONS, "dtype", "device", "memory", "offload", "quantize", "text_cache", "tile_px",
    "threads",
)  # fmt: skip
"""Options that decide how a model is loaded."""


class PlannedImage(NamedTuple):
    """An image of a request: its seed, and its prompt as it is read for this seed."""

    seed: int
    prompt: ReadPrompt
    loras: tuple[LoraArgument, ...]
    """Those of the options, then those that the prompt names."""
    reasoned: Reasoned | None = None
    """What a reasoner made of the prompt; `prompt` has it."""


class ResolvedRequest(NamedTuple):
    """What the images of a request have in common, with every value decided from files and defaults."""

    arguments: GenerateArguments
    model: ResolvedModel
    size: tuple[int | None, int | None]
    """(height, width); None if the source image decides."""
    image_size: tuple[int, int]
    """(height, width) of the images before they are upscaled."""
    recorded: dict[str, Any]
    """Fields of `ImageMetadata` that all images have in common and that need no loaded model."""
    images: list[PlannedImage]
    warnings: list[str]
    index: int = 0
    """Of the request among those of the command."""

    def open_images(self) -> tuple[Image.Image | None, Image.Image | None]:
        """Return the source image and the mask; a batch has no room to keep those of every line."""
        return _open_images(self.arguments)

    @property
    def final_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return upscaled_size(*self.image_size, self.arguments.upscale or 1)

    @property
    def session_key(self) -> tuple[Any, ...]:
        """Requests with equal keys are drawn with one load of the model."""
        return tuple(getattr(self.arguments, name) for name in SESSION_OPTIONS)

    def prompt_warnings(self) -> list[str]:
        """Return what is told of the prompts, and of what a model of a small world does not know."""
        warnings: list[str] = []
        for image in self.images:
            prompt = image.prompt
            warnings += prompt.warnings
            warnings += request_warnings(
                self.model.variant, self.model.trained_bases, prompt.prompt, self.image_size
            )
        return distinct(warnings)

    def negative_text(self, image: PlannedImage) -> str:
        """Return the negative prompt of an image if it has an effect, else an empty text."""
        return "" if self.recorded["guidance"] == 1 else image.prompt.negative_prompt


def resolve_arguments(
    arguments: GenerateArguments, models: dict[tuple[Any, ...], ResolvedModel] | None = None
) -> ResolvedRequest:
    """Return the arguments of a prompt with everything decided that does not need the model in memory.

    `models` keeps the models of other requests.
    Raises: LensError for whatever can be refused before the model is loaded.
    """
    models = {} if models is None else models
    source, mask = _open_images(arguments)
    model_options = {name: getattr(arguments, name) for name in PART_OPTIONS}
    key = (arguments.model, *model_options.values())
    if key not in models:
        models[key] = ResolvedModel.of(arguments.model or DEFAULT_MODEL, **model_options)
        models[key].log_summary()
    model = models[key]
    size = _resolve_size(arguments, model)
    _check_hash(arguments, model)
    guidance, strength = arguments.guidance, None
    if source is not None:
        strength = arguments.strength or default_strength(has_mask=mask is not None)
    recorded = {
        "steps": arguments.steps or model.defaults.num_inference_steps,
        "guidance": model.defaults.guidance_scale if guidance is None else guidance,
        "solver": arguments.solver or DEFAULT_SOLVER,
        "cache": arguments.step_cache,
        "model": model.recorded_name,
        "model_hash": model.content_hash,
        "parts": _part_records(model),
        "prompt_date": model.prompt_date,
        "init_image": FileRecord(**file_fields(arguments.init_image)) if arguments.init_image else None,
        "mask": FileRecord(**file_fields(arguments.mask)) if arguments.mask else None,
        "strength": strength,
        "quantize": arguments.quantization,
        "upscale": arguments.upscale,
        "upscale_strength": (arguments.upscale_strength or UPSCALE_STRENGTH) if arguments.upscale else None,
    }
    image_size = _image_size(size, source, model)
    _check_upscaled(arguments, image_size)
    images = _plan_images(arguments, has_guidance=recorded["guidance"] != 1)
    warnings = _warnings(arguments, images, recorded)
    warnings += _source_warnings(source, mask, image_size)
    return ResolvedRequest(arguments, model, size, image_size, recorded, images, warnings)


def _open_images(arguments: GenerateArguments) -> tuple[Image.Image | None, Image.Image | None]:
    source = None if arguments.init_image is None else open_source_image(arguments.init_image)
    return source, None if arguments.mask is None else open_mask(arguments.mask)


def _plan_images(arguments: GenerateArguments, has_guidance: bool) -> list[PlannedImage]:
    [prompt] = arguments.prompts or []
    planned = []
    for index in range(arguments.num_images_per_prompt):
        seed = seed_of_image(arguments.first_seed, index)
        read = arguments.prompt_reader.read(
            prompt, arguments.negative_prompt or "", seed, arguments.style or (), has_guidance
        )
        loras = (*arguments.loras, *map(arguments.find_lora, read.loras))
        planned.append(PlannedImage(seed, read, loras))
    return planned


def _resolve_size(arguments: GenerateArguments, model: ResolvedModel) -> tuple[int | None, int | None]:
    if arguments.init_image is not None and not arguments.has_size:
        return None, None
    width, height = arguments.image_size or (None, None)
    return resolve_resolution(
        height,
        width,
        arguments.base_resolution,
        arguments.aspect_ratio,
        default_base=model.defaults.base_resolution,
        allow_extreme=arguments.allow_extreme,
        words=arguments.size_words,
    )


def _check_upscaled(arguments: GenerateArguments, size: tuple[int, int]) -> None:
    """Raise SettingError for an upscaled image of a size that is too large; `size` is that before."""
    if arguments.upscale is not None:
        height, width = upscaled_size(*size, arguments.upscale)
        resolve_resolution(
            height, width, allow_extreme=arguments.allow_extreme, words=arguments.size_words
        )


def _warnings(
    arguments: GenerateArguments, images: Sequence[PlannedImage], recorded: dict[str, Any]
) -> list[str]:
    """Return what is told of settings."""
    return effect_warnings(
        guidance=recorded["guidance"], has_negative=any(image.prompt.negative_prompt for image in images),
        strength=arguments.strength, has_image=arguments.init_image is not None,
        has_mask=arguments.mask is not None, solver=recorded["solver"], num_steps=recorded["steps"],
        upscale=arguments.upscale, upscale_strength=arguments.upscale_strength,
    )  # fmt: skip


def _source_warnings(
    source: Image.Image | None, mask: Image.Image | None, size: tuple[int, int]
) -> list[str]:
    """Return what is told of a source image and its mask; `size` is (height, width).

    Raises: SettingError for a mask of another shape.
    """
    if source is None:
        return []
    height, width = size
    found = [colour_warning(source), cut_warning(source.size, (width, height))]
    if mask is not None:
        from lens.sampling.image_processor import resize_to_cover

        check_mask_shape(mask.size, source.size, (width, height), "--mask")
        found.append(mask_warning(resize_to_cover(mask, height, width)))
    return distinct(found)


def _part_records(model: ResolvedModel) -> dict[str, FileRecord] | None:
    """Return the file or folder of each component of a model of several files; None for a plain folder."""
    if not model.parts:
        return None
    return {
        # Links stay, as the hub's cache links to files whose names have no suffix.
        part: FileRecord(path=str(model.component_path(part).absolute()), sha256=model.part_hash(part))
        for part in COMPONENTS_WITH_FILES
    }


def _check_hash(arguments: GenerateArguments, model: ResolvedModel) -> None:
    """Check the weights against those of the image of --like, whose model is a plain folder."""
    if arguments.model_hash is None:
        return
    here = model.content_hash if model.folder is None or not model.parts else content_hash(model.folder)
    if arguments.model_hash != here:
        raise LensError(
            f"{arguments.like} was generated with other weights of {model.name} "
            f"({arguments.model_hash[:10]}; the weights here are {here[:10]}). "
            f"Restore those weights, or add --model {model.name} to use the weights here."
        )


def _image_size(
    size: tuple[int | None, int | None], source: Image.Image | None, model: ResolvedModel
) -> tuple[int, int]:
    """Return the (height, width) of the images."""
    height, width = size
    if height is None or width is None:
        base = model.defaults.base_resolution
        if source is not None:
            from lens.sampling.image_processor import size_from_image

            return size_from_image(source, base)
        return base, base
    return height, width


def file_fields(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": content_hash(path)}
