"""Generation of the images of one command: model resolved and loaded once, one image at a time.

Images are never generated in a batch, whatever --count is: the pixels of an image then depend on its own
settings alone, so that --like reproduces them, and each file exists as soon as its image is done.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from lens.cli.arguments import DEFAULT_MODEL, LoraArgument
from lens.cli.generation.loading import GenerationSession, explain_out_of_memory
from lens.cli.generation.request import GenerateArguments
from lens.core.noise import seed_of_image
from lens.core.resolution import resolve_resolution
from lens.core.step_caches import cache_warning
from lens.errors import LensError
from lens.models.checkpoints.hashing import content_hash
from lens.nano.request_warnings import request_warnings
from lens.prompts.reading import ReadPrompt
from lens.sampling.defaults import default_strength
from lens.sampling.image_metadata import (
    FileRecord,
    ImageMetadata,
    LoraRecord,
    library_versions,
    open_mask,
    open_source_image,
)
from lens.sampling.request_warnings import (
    check_mask_shape,
    cut_warning,
    distinct,
    effect_warnings,
    mask_warning,
)
from lens.sampling.resolved_model import COMPONENTS_WITH_FILES, ResolvedModel
from lens.sampling.solvers import DEFAULT_SOLVER

logger = logging.getLogger(__name__)

PART_OPTIONS = ("text_encoder", "vae", "tokenizer", "prompt_date")
SESSION_OPTIONS = (
    "model", *PART_OPTIONS, "dtype", "device", "memory", "offload", "quantize", "text_cache", "tile_px",
    "threads",
)  # fmt: skip
"""Options that decide how a model is loaded."""

if TYPE_CHECKING:
    from torch import Tensor

    from lens.cli.progress import ProgressBar
    from lens.sampling.pipeline import LensPipeline


class GeneratedImage(NamedTuple):
    """An image, everything that decided it, and which request it is of, counted from 0."""

    image: Image.Image
    metadata: ImageMetadata
    request_index: int


class PlannedImage(NamedTuple):
    """An image of a request: its seed, and its prompt as it is read for this seed."""

    seed: int
    prompt: ReadPrompt
    loras: tuple[LoraArgument, ...]
    """Those of the options, then those that the prompt names."""


class ResolvedRequest(NamedTuple):
    """What the images of a request have in common, with every value decided from files and defaults."""

    arguments: GenerateArguments
    model: ResolvedModel
    size: tuple[int | None, int | None]
    """(height, width); None if the source image decides."""
    source: Image.Image | None
    mask: Image.Image | None
    recorded: dict[str, Any]
    """Fields of `ImageMetadata` that all images have in common and that need no loaded model."""
    images: list[PlannedImage]
    warnings: list[str]
    index: int = 0
    """Of the request among those of the command."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        return _image_size(self.size, self.source, self.model)

    @property
    def session_key(self) -> tuple[Any, ...]:
        """Requests with equal keys are drawn with one load of the model."""
        return tuple(getattr(self.arguments, name) for name in SESSION_OPTIONS)

    def negative_text(self, image: PlannedImage) -> str:
        """Return the negative prompt of an image if it has an effect, else an empty text."""
        return "" if self.recorded["guidance"] == 1 else image.prompt.negative_prompt


def generate_images(
    requests: Sequence[GenerateArguments], progress: "ProgressBar"
) -> Iterator[GeneratedImage]:
    """Yield the images of requests, each as soon as it is generated; requests of one model come together.

    Raises: LensError for whatever the caller can correct; MemoryNeedError if memory runs out.
    """
    models: dict[tuple[Any, ...], ResolvedModel] = {}
    resolved = [
        resolve_arguments(arguments, models)._replace(index=index) for index, arguments in enumerate(requests)
    ]
    for warning in distinct([warning for request in resolved for warning in request.warnings]):
        logger.warning(warning)
    groups: dict[tuple[Any, ...], list[ResolvedRequest]] = {}
    for request in resolved:
        groups.setdefault(request.session_key, []).append(request)
    image_numbers = count(1)
    for group in groups.values():
        yield from _generate_group(group, progress, image_numbers, is_alone=len(requests) == 1)


def _generate_group(
    group: Sequence[ResolvedRequest], progress: "ProgressBar", image_numbers: Iterator[int], is_alone: bool
) -> Iterator[GeneratedImage]:
    """Yield the images of requests that one load of a model draws; a request that is alone tells its seed."""
    first, images = group[0], [image for request in group for image in request.images]
    largest = max((request.image_size for request in group), key=math.prod)
    with explain_out_of_memory():
        session = GenerationSession(first.model, first.arguments, largest, _lora_files(images))
        texts = [image.prompt.prompt for image in images]
        texts += [request.negative_text(image) for request in group for image in request.images]
        progress("encoding", 0, 1)
        features = session.encode(
            list(dict.fromkeys(filter(None, texts))), lambda done, total: progress("encoding", done, total)
        )
        pipeline = session.load_pipeline()
        pipeline.logs_warnings = False  # they were told before anything was loaded
        environment = _environment(session) | {"tile_px": pipeline.tile_px}
        active_cache = None
        for request in group:
            if (cache := request.recorded["cache"]) != active_cache:
                _switch_cache(pipeline, cache, request.recorded["steps"], is_on=active_cache is not None)
                active_cache = cache
            if is_alone and request.arguments.is_seed_random:
                logger.info("random seed %d", request.images[0].seed)
            files = {path: _file_fields(path) for image in request.images for path, _ in image.loras}
            for planned in request.images:
                progress.start_image(next(image_numbers))
                session.activate_loras(pipeline, planned.loras)
                negative = features.get(request.negative_text(planned))
                prompt_embeds = _prompt_embeds(pipeline, features[planned.prompt.prompt], negative)
                image = _generate_one(pipeline, prompt_embeds, planned.seed, request, progress)
                records = tuple(LoraRecord(**files[path], weight=weight) for path, weight in planned.loras)
                metadata = ImageMetadata(
                    prompt=planned.prompt.prompt,
                    negative_prompt=planned.prompt.negative_prompt,
                    prompt_template=planned.prompt.template,
                    seed=planned.seed,
                    width=image.width,
                    height=image.height,
                    loras=records,
                    **request.recorded,
                    **environment,
                )
                yield GeneratedImage(image, metadata, request.index)


def _lora_files(images: Sequence[PlannedImage]) -> list[Path]:
    """Return the LoRA files of all images, each as often as one image uses it."""
    uses: Counter[Path] = Counter()
    for image in images:
        uses |= Counter(path for path, _ in image.loras)
    return list(uses.elements())


def _switch_cache(pipeline: "LensPipeline", name: str | None, num_steps: int, is_on: bool) -> None:
    from lens.models.step_cache import cache_settings

    if is_on:
        pipeline.transformer.disable_cache()
    if name is None:
        return
    if warning := cache_warning(name, num_steps, "--cache"):
        logger.warning(warning)
    pipeline.transformer.enable_cache(cache_settings(name))


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


def resolve_arguments(
    arguments: GenerateArguments, models: dict[tuple[Any, ...], ResolvedModel] | None = None
) -> ResolvedRequest:
    """Return the arguments of a prompt with everything decided that does not need the model in memory.

    `models` keeps the models of other requests.
    Raises: LensError for whatever can be refused before the model is loaded.
    """
    models = {} if models is None else models
    source = None if arguments.init_image is None else open_source_image(arguments.init_image)
    mask = None if arguments.mask is None else open_mask(arguments.mask)
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
        "init_image": FileRecord(**_file_fields(arguments.init_image)) if arguments.init_image else None,
        "mask": FileRecord(**_file_fields(arguments.mask)) if arguments.mask else None,
        "strength": strength,
        "quantize": arguments.quantization,
    }
    images = _plan_images(arguments, has_guidance=recorded["guidance"] != 1)
    warnings = _warnings(arguments, images, model, recorded, _image_size(size, source, model))
    warnings += _source_warnings(source, mask, _image_size(size, source, model))
    return ResolvedRequest(arguments, model, size, source, mask, recorded, images, warnings)


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


def _warnings(
    arguments: GenerateArguments, images: Sequence[PlannedImage], model: ResolvedModel,
    recorded: dict[str, Any], size: tuple[int, int],
) -> list[str]:  # fmt: skip
    """Return what is told of settings, of prompts, and of what a model of a small world does not know."""
    warnings = effect_warnings(
        guidance=recorded["guidance"], has_negative=any(image.prompt.negative_prompt for image in images),
        strength=arguments.strength, has_image=arguments.init_image is not None,
        has_mask=arguments.mask is not None, solver=recorded["solver"], num_steps=recorded["steps"],
    )  # fmt: skip
    for image in images:
        warnings += image.prompt.warnings
        warnings += request_warnings(model.variant, model.trained_bases, image.prompt.prompt, size)
    return distinct(warnings)


def _source_warnings(
    source: Image.Image | None, mask: Image.Image | None, size: tuple[int, int]
) -> list[str]:
    """Return what is told of a source image and its mask; `size` is (height, width).

    Raises: SettingError for a mask of another shape.
    """
    if source is None:
        return []
    height, width = size
    found = [cut_warning(source.size, (width, height))]
    if mask is not None:
        from lens.sampling.image_processor import resize_to_cover

        check_mask_shape(mask.size, source.size, (width, height), "--mask")
        found.append(mask_warning(*resize_to_cover(mask, height, width).getextrema()))
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
        allow_extreme=resolved.arguments.allow_extreme,
    )
    return result.images[0]  # type: ignore[union-attr]


def _file_fields(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": content_hash(path)}
