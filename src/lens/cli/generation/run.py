"""Generation of the images of one command: model resolved and loaded once, one image at a time.

Images are never generated in a batch, whatever --count is: the pixels of an image then depend on its own
settings alone, so that --like reproduces them, and each file exists as soon as its image is done.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from lens.cli.arguments import DEFAULT_MODEL
from lens.cli.generation.loading import GenerationSession, explain_out_of_memory
from lens.cli.generation.request import GenerateArguments
from lens.core.noise import seed_of_image
from lens.core.resolution import resolve_resolution
from lens.errors import LensError
from lens.models.checkpoints.hashing import content_hash
from lens.nano.request_warnings import is_nano, request_warnings
from lens.sampling.defaults import default_strength
from lens.sampling.image_metadata import (
    FileRecord,
    ImageMetadata,
    LoraRecord,
    library_versions,
    open_source_image,
)
from lens.sampling.resolved_model import COMPONENTS_WITH_FILES, ResolvedModel
from lens.sampling.solvers import DEFAULT_SOLVER

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor

    from lens.cli.progress import ProgressBar
    from lens.sampling.pipeline import LensPipeline


class GeneratedImage(NamedTuple):
    """An image and everything that decided it."""

    image: Image.Image
    metadata: ImageMetadata


class ResolvedRequest(NamedTuple):
    """What a command's images have in common, with every value decided from files and defaults."""

    model: ResolvedModel
    size: tuple[int | None, int | None]
    """(height, width); None if the source image decides."""
    source: Image.Image | None
    mask: Image.Image | None
    allow_extreme: bool
    recorded: dict[str, Any]
    """Fields of `ImageMetadata` that all images have in common and that need no loaded model."""


def generate_images(arguments: GenerateArguments, progress: "ProgressBar") -> Iterator[GeneratedImage]:
    """Yield the images of the arguments, each as soon as it is generated.

    Raises: LensError for whatever the caller can correct; MemoryNeedError if memory runs out.
    """
    resolved = resolve_arguments(arguments)
    with explain_out_of_memory():
        image_size = _image_size(resolved.size, resolved.source, resolved.model)
        session = GenerationSession(resolved.model, arguments, image_size)
        prompts, negative = arguments.prompts or [], _negative_text(resolved.recorded)
        texts: list[str] = list(dict.fromkeys([*prompts, *([negative] if negative else [])]))
        progress("encoding", 0, 1)
        features = session.encode(texts, lambda done, total: progress("encoding", done, total))
        pipeline = session.load_pipeline()
        if resolved.recorded["cache"] is not None:
            _enable_cache(pipeline, resolved.recorded["cache"], resolved.recorded["steps"])
        tile: dict[str, Any] = {"tile_px": pipeline.tile_px}
        recorded = resolved.recorded | _environment(session) | tile
        if arguments.is_seed_random:
            logger.info("random seed %d", arguments.first_seed)
        image_number = 0
        for prompt in prompts:
            prompt_embeds = _prompt_embeds(pipeline, features[prompt], features.get(negative))
            for index in range(arguments.num_images_per_prompt):
                seed = seed_of_image(arguments.first_seed, index)
                image_number += 1
                progress.start_image(image_number)
                image = _generate_one(pipeline, prompt_embeds, seed, resolved, progress)
                metadata = ImageMetadata(
                    prompt=prompt, seed=seed, width=image.width, height=image.height, **recorded
                )
                yield GeneratedImage(image, metadata)


def _enable_cache(pipeline: "LensPipeline", name: str, num_steps: int) -> None:
    from lens.models.step_cache import MIN_STEPS, cache_settings

    if num_steps < MIN_STEPS:
        logger.warning(
            "--cache %s saves next to nothing at %d steps, as the first steps are always computed; "
            "it is meant for %d steps or more.", name, num_steps, MIN_STEPS,
        )  # fmt: skip
    pipeline.transformer.enable_cache(cache_settings(name))


def _negative_text(recorded: dict[str, Any]) -> str:
    """Return the negative prompt if it has an effect, else an empty text."""
    text = recorded["negative_prompt"]
    return "" if recorded["guidance"] == 1 or not text.strip() else text


def _prompt_embeds(
    pipeline: "LensPipeline", positive: "list[Tensor]", negative: "list[Tensor] | None"
) -> Any:
    """Return what `LensPipeline.encode_prompt` returns, of text features that are there already."""
    return pipeline.encode_prompt(
        prompt_embeds=[layer[None] for layer in positive],
        negative_prompt_embeds=None if negative is None else [layer[None] for layer in negative],
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


def resolve_arguments(arguments: GenerateArguments) -> ResolvedRequest:
    """Return the arguments with everything decided that does not need the model in memory.

    Raises: LensError for whatever can be refused before the model is loaded.
    """
    source, mask = (
        None if path is None else open_source_image(path) for path in (arguments.init_image, arguments.mask)
    )
    model = ResolvedModel.of(
        arguments.model or DEFAULT_MODEL,
        text_encoder=arguments.text_encoder,
        vae=arguments.vae,
        tokenizer=arguments.tokenizer,
        prompt_date=arguments.prompt_date,
    )
    model.log_summary()
    size = _resolve_size(arguments, model)
    _log_warnings(arguments.prompts or [], model, size, source)
    _check_hash(arguments, model)
    guidance, strength = arguments.guidance, arguments.strength
    if source is not None and strength is None:
        strength = default_strength(has_mask=mask is not None)
    recorded = {
        "negative_prompt": arguments.negative_prompt or "",
        "steps": arguments.steps or model.defaults.num_inference_steps,
        "guidance": model.defaults.guidance_scale if guidance is None else guidance,
        "solver": arguments.solver or DEFAULT_SOLVER,
        "cache": arguments.step_cache,
        "model": model.recorded_name,
        "model_hash": model.content_hash,
        "parts": _part_records(model),
        "prompt_date": model.prompt_date,
        "loras": tuple(LoraRecord(**_file_fields(path), weight=weight) for path, weight in arguments.loras),
        "init_image": FileRecord(**_file_fields(arguments.init_image)) if arguments.init_image else None,
        "mask": FileRecord(**_file_fields(arguments.mask)) if arguments.mask else None,
        "strength": strength,
        "quantize": arguments.quantization,
    }
    return ResolvedRequest(model, size, source, mask, arguments.allow_extreme, recorded)


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
    )


def _log_warnings(
    prompts: list[str], model: ResolvedModel, size: tuple[int | None, int | None], source: Image.Image | None
) -> None:
    """Log, once for each prompt, what a model of a small world does not know of it; of sizes, once."""
    pixels = _image_size(size, source, model) if is_nano(model.variant) else None
    found = (request_warnings(model.variant, model.trained_bases, prompt, pixels) for prompt in prompts)
    for warning in dict.fromkeys(text for texts in found for text in texts):
        logger.warning(warning)


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


def _environment(session: GenerationSession) -> dict[str, Any]:
    """Return the fields of the metadata that say where and with what an image is computed."""
    import torch

    threads = torch.get_num_threads() if session.device == "cpu" else None
    fields = {"dtype": session.dtype, "device": session.device, "threads": threads}
    return fields | {"versions": library_versions()}


def _generate_one(
    pipeline: "LensPipeline",
    prompt_embeds: Any,
    seed: int,
    resolved: ResolvedRequest,
    progress: "ProgressBar",
) -> Image.Image:
    import torch

    embeds, mask, negative_embeds, negative_mask = prompt_embeds
    height, width = resolved.size
    recorded = resolved.recorded
    result = pipeline(
        height=height,
        width=width,
        num_inference_steps=recorded["steps"],
        guidance_scale=recorded["guidance"],
        generator=torch.Generator("cpu").manual_seed(seed),
        prompt_embeds=embeds,
        prompt_mask=mask,
        negative_prompt_embeds=negative_embeds,
        negative_prompt_mask=negative_mask,
        image=resolved.source,
        mask_image=resolved.mask,
        strength=recorded["strength"],
        solver=recorded["solver"],
        on_progress=progress,
        allow_extreme=resolved.allow_extreme,
    )
    return result.images[0]  # type: ignore[union-attr]


def _file_fields(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": content_hash(path)}
