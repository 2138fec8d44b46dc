"""From what is wanted to pictures: resolve the model, load it once, draw one picture at a time.

One at a time, whatever --count says: then a picture's bits cannot depend on its company, so that --like finds
them again, and each file is there as soon as it is drawn.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from lens.cli.arguments import DEFAULT_MODEL
from lens.cli.generation.loading import explain_out_of_memory, prepare_pipeline
from lens.cli.generation.request import GenerateArguments
from lens.core.resolution import resolve_resolution
from lens.errors import LensError
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.registry import resolve_model
from lens.sampling.defaults import SamplingDefaults, folder_defaults
from lens.sampling.image_metadata import FileRecord, ImageMetadata, LoraRecord, library_versions, open_image

if TYPE_CHECKING:
    from lens.cli.progress import ProgressBar
    from lens.sampling.pipeline import LensPipeline


class GeneratedImage(NamedTuple):
    """A picture and everything that decided it."""

    image: Image.Image
    metadata: ImageMetadata


class ResolvedRequest(NamedTuple):
    """What is wanted with everything left open decided, from files alone."""

    folder: Path
    model: str
    model_hash: str
    defaults: SamplingDefaults
    size: tuple[int, int] | None
    """(height, width); None where the starting picture decides."""


def resolve_arguments(arguments: GenerateArguments) -> ResolvedRequest:
    """Return the plan for what is wanted; everything that can be refused without loading the model is."""
    model = arguments.model or DEFAULT_MODEL
    folder = resolve_model(model)
    defaults = folder_defaults(folder, model)
    has_size = any(
        side is not None for side in (arguments.width, arguments.aspect_ratio, arguments.base_resolution)
    )
    size = None
    if has_size or arguments.init_image is None:
        size = resolve_resolution(
            arguments.height,
            arguments.width,
            arguments.base_resolution,
            arguments.aspect_ratio,
            default_base=defaults.base_resolution,
            allow_extreme=bool(arguments.allow_extreme),
        )
    actual_hash = content_hash(folder)
    if arguments.model_hash not in (None, actual_hash):
        raise LensError(
            f"The picture was drawn with other weights of {model} "
            f"({arguments.model_hash[:10]}, here {actual_hash[:10]}). "
            f"Bring those back, or draw with these: --model {model}."
        )
    name = str(folder.resolve()) if Path(model).expanduser().is_dir() else model
    return ResolvedRequest(folder, name, actual_hash, defaults, size)


def generate_images(arguments: GenerateArguments, progress: "ProgressBar") -> Iterator[GeneratedImage]:
    """Yield the pictures that are wanted, each as soon as it is drawn.

    Raises: LensError for whatever the caller can mend; MemoryNeedError where memory ran out on the way.
    """
    resolved = resolve_arguments(arguments)
    with explain_out_of_memory():
        pipeline, dtype = prepare_pipeline(resolved.folder, arguments)
        shared = _shared_metadata(resolved, arguments, pipeline, dtype)
        image_number = 0
        for prompt in arguments.prompts or ():
            progress("encoding", 0, 1)
            encoded_prompt = pipeline.encode_prompt(prompt, arguments.negative_prompt or "")
            for seed in range(shared["seed"], shared["seed"] + arguments.num_images_per_prompt):
                image_number += 1
                progress.start_image(image_number)
                image = _generate_one(
                    pipeline, encoded_prompt, resolved, shared | {"seed": seed}, arguments, progress
                )
                image_fields = {"prompt": prompt, "seed": seed, "width": image.width, "height": image.height}
                yield GeneratedImage(image, ImageMetadata(**(shared | image_fields)))


def _shared_metadata(
    resolved: ResolvedRequest, arguments: GenerateArguments, pipeline: "LensPipeline", dtype: str
) -> dict[str, Any]:
    """Return the settings that all pictures of a call have in common; `seed` is the first one's."""
    import torch

    device = str(pipeline._execution_device)
    strength = arguments.strength
    if arguments.init_image is not None and strength is None:
        from lens.sampling.inputs import DEFAULT_STRENGTH

        strength = DEFAULT_STRENGTH if arguments.mask is None else 1.0
    loras = arguments.loras or ()
    return {
        "negative_prompt": arguments.negative_prompt or "",
        "seed": arguments.seed or 0,
        "steps": arguments.steps or resolved.defaults.num_inference_steps,
        "guidance": resolved.defaults.guidance_scale if arguments.guidance is None else arguments.guidance,
        "solver": arguments.solver or "euler",
        "model": resolved.model,
        "model_hash": resolved.model_hash,
        "loras": tuple(LoraRecord(**_file_fields(lora.path), weight=lora.weight) for lora in loras),
        "init_image": FileRecord(**_file_fields(arguments.init_image)) if arguments.init_image else None,
        "mask": FileRecord(**_file_fields(arguments.mask)) if arguments.mask else None,
        "strength": strength,
        "dtype": dtype,
        "device": device,
        "quantize": arguments.quantization,
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "versions": library_versions(),
    }


def _generate_one(
    pipeline: "LensPipeline",
    encoded_prompt: Any,
    resolved: ResolvedRequest,
    settings: dict[str, Any],
    arguments: GenerateArguments,
    progress: "ProgressBar",
) -> Image.Image:
    import torch

    embeds, mask, negative_embeds, negative_mask = encoded_prompt
    height, width = resolved.size or (None, None)
    result = pipeline(
        height=height,
        width=width,
        num_inference_steps=settings["steps"],
        guidance_scale=settings["guidance"],
        generator=torch.Generator("cpu").manual_seed(settings["seed"]),
        prompt_embeds=embeds,
        prompt_mask=mask,
        negative_prompt_embeds=negative_embeds,
        negative_prompt_mask=negative_mask,
        image=open_image(arguments.init_image) if arguments.init_image else None,
        mask_image=open_image(arguments.mask) if arguments.mask else None,
        strength=settings["strength"],
        solver=settings["solver"],
        on_progress=progress,
        allow_extreme=bool(arguments.allow_extreme),
    )
    return result.images[0]  # type: ignore[union-attr]


def _file_fields(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": content_hash(path)}
