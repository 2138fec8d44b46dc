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

from lens.cli.generation.loading import GenerationSession, explain_out_of_memory
from lens.cli.generation.reasoning import reason_about
from lens.cli.generation.request import GenerateArguments
from lens.cli.generation.resolve import PlannedImage, ResolvedRequest, file_fields, resolve_arguments
from lens.core.step_caches import cache_warning
from lens.models.checkpoints.hashing import weights_hash
from lens.reasoner.outcome import Reasoned
from lens.sampling.image_metadata import ImageMetadata, LoraRecord, library_versions, reasoner_fields
from lens.sampling.request_warnings import distinct
from lens.sampling.resolved_model import ResolvedModel

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torch import Tensor

    from lens.cli.progress import ProgressBar
    from lens.sampling.pipeline import LensPipeline


class GeneratedImage(NamedTuple):
    """An image, everything that decided it, and which request it is of, counted from 0."""

    image: Image.Image
    metadata: ImageMetadata
    request_index: int
    reasoned: Reasoned | None = None
    """What a reasoner made of its prompt now; None where the metadata has what it made of it before."""


def generate_images(
    requests: Sequence[GenerateArguments], progress: "ProgressBar", needs_all: bool = False
) -> Iterator[GeneratedImage]:
    """Yield the images of requests, each as soon as it is generated; requests of one model come together.

    Images whose prompts a reasoner refuses are left out, and an error tells so at the end; with `needs_all`,
    nothing is drawn then.
    Raises: LensError for whatever the caller can correct; MemoryNeedError if memory runs out.
    """
    models: dict[tuple[Any, ...], ResolvedModel] = {}
    resolved = [
        resolve_arguments(arguments, models)._replace(index=index) for index, arguments in enumerate(requests)
    ]
    groups = _groups(resolved)
    sessions = dict[tuple[Any, ...], GenerationSession]()

    def session_of(key: tuple[Any, ...]) -> GenerationSession:
        for other in sessions.keys() - {key}:  # several text encoders may not fit into memory
            sessions[other].drop_text_encoder()
        if key not in sessions:
            sessions[key] = _session_of_group(groups[key])
        return sessions[key]

    with explain_out_of_memory():
        reasoned = reason_about(resolved, session_of, progress)
    drawn = reasoned.requests
    progress.num_images = sum(len(request.images) for request in drawn)
    warnings = [warning for request in drawn for warning in request.warnings + request.prompt_warnings()]
    for warning in distinct(warnings):
        logger.warning(warning)
    reasoned.check(needs_all)
    image_numbers = count(1)
    for key, group in _groups(drawn).items():
        with explain_out_of_memory():
            session = session_of(key)
        yield from _generate_group(group, session, progress, image_numbers, is_alone=len(requests) == 1)
    if reasoned.refused:
        raise reasoned.error()


def _groups(requests: Sequence[ResolvedRequest]) -> dict[tuple[Any, ...], list[ResolvedRequest]]:
    """Return requests by what loads their model."""
    groups: dict[tuple[Any, ...], list[ResolvedRequest]] = {}
    for request in requests:
        groups.setdefault(request.session_key, []).append(request)
    return groups


def _session_of_group(group: Sequence[ResolvedRequest]) -> GenerationSession:
    """Return the session that draws the requests of a group."""
    images = [image for request in group for image in request.images]
    largest = max((request.final_size for request in group), key=math.prod)
    return GenerationSession(group[0].model, group[0].arguments, largest, _lora_files(images))


def _generate_group(
    group: Sequence[ResolvedRequest], session: GenerationSession, progress: "ProgressBar",
    image_numbers: Iterator[int], is_alone: bool,
) -> Iterator[GeneratedImage]:  # fmt: skip
    """Yield the images of requests that one load of a model draws; a request that is alone tells its seed."""
    images = [image for request in group for image in request.images]
    with explain_out_of_memory():
        texts = [image.prompt.prompt for image in images]
        texts += [request.negative_text(image) for request in group for image in request.images]
        progress("encoding", 0, 1)
        features = session.encode(
            list(dict.fromkeys(filter(None, texts))), lambda done, total: progress("encoding", done, total)
        )
        pipeline = session.load_pipeline()
        pipeline.logs_warnings = False  # they were told before anything was loaded
        environment: dict[str, Any] = _environment(session) | {"tile_px": pipeline.tile_px}
        active_cache = None
        for request in group:
            if (cache := request.recorded["cache"]) != active_cache:
                _switch_cache(pipeline, cache, request.recorded["steps"], is_on=active_cache is not None)
                active_cache = cache
            if is_alone and request.arguments.is_seed_random:
                logger.info("random seed %d", request.images[0].seed)
            files = {path: _lora_fields(path) for image in request.images for path, _ in image.loras}
            for planned in request.images:
                progress.start_image(next(image_numbers))
                session.activate_loras(pipeline, planned.loras)
                negative = features.get(request.negative_text(planned))
                prompt_embeds = _prompt_embeds(pipeline, features[planned.prompt.prompt], negative)
                image = _generate_one(pipeline, prompt_embeds, planned.seed, request, progress)
                records = tuple(LoraRecord(**files[path], weight=weight) for path, weight in planned.loras)
                metadata = ImageMetadata(
                    **_prompt_fields(request, planned),
                    negative_prompt=planned.prompt.negative_prompt,
                    prompt_template=planned.prompt.template,
                    seed=planned.seed,
                    width=image.width,
                    height=image.height,
                    loras=records,
                    **request.recorded,
                    **environment,
                )
                yield GeneratedImage(image, metadata, request.index, planned.reasoned)


def _prompt_fields(request: ResolvedRequest, planned: PlannedImage) -> dict[str, Any]:
    """Return the prompt of an image, and what is recorded of a reasoner that was asked now or before."""
    if planned.reasoned is not None:
        return reasoner_fields(planned.reasoned)
    arguments = request.arguments
    recorded = {"original_prompt": arguments.original_prompt, "reasoner": arguments.reasoner_record}
    return {"prompt": planned.prompt.prompt, **recorded}


def _lora_fields(path: Path) -> dict[str, Any]:
    return {**file_fields(path), "weights_sha256": weights_hash(path)}


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
    source, redrawn = resolved.open_images()
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
        image=source,
        mask_image=redrawn,
        strength=recorded["strength"],
        solver=recorded["solver"],
        on_progress=progress,
        allow_extreme=resolved.arguments.allow_extreme,
        output_type="latent" if recorded["upscale"] else "pil",
    )
    images: Any = result.images  # type: ignore[union-attr]
    if not recorded["upscale"]:
        return images[0]
    return _draw_larger(pipeline, images, prompt_embeds, seed, resolved, progress)


def _draw_larger(
    pipeline: "LensPipeline",
    latents: "Tensor",
    prompt_embeds: Any,
    seed: int,
    resolved: ResolvedRequest,
    progress: "ProgressBar",
) -> Image.Image:
    """Return the image of finished latents, drawn again at a larger size."""
    from lens.sampling.guided_denoiser import upscaled_state
    from lens.sampling.inputs import SourceImages
    from lens.sampling.solvers import get_solver

    recorded, cell_px = resolved.recorded, pipeline.vae_scale_factor
    before, after = (
        (height // cell_px, width // cell_px) for height, width in (resolved.image_size, resolved.final_size)
    )
    steps, strength = recorded["steps"], recorded["upscale_strength"]
    with pipeline._call_context(recorded["guidance"], None, progress):
        initial = upscaled_state(pipeline, latents, before, after, steps, strength, seed)
        x = pipeline.denoise(initial, prompt_embeds, after, get_solver(recorded["solver"]))
        return pipeline.postprocess(x, SourceImages(*resolved.final_size), "pil")[0]
