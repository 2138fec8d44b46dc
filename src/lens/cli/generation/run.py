"""From what is wanted to pictures: resolve the model, load it once, draw one picture at a time.

One at a time, whatever --count says: then a picture's bits cannot depend on its company, so that --like finds
them again, and each file is there as soon as it is drawn.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from lens.cli.arguments import DEFAULT_MODEL
from lens.cli.generation.loading import load, out_of_memory_explained
from lens.cli.generation.request import Wanted
from lens.core.resolution import resolve_resolution
from lens.errors import LensError
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.registry import resolve_model
from lens.sampling.defaults import SamplingDefaults, folder_defaults
from lens.sampling.image_metadata import FileUsed, LoraUsed, PictureSettings, open_image, versions_here

if TYPE_CHECKING:
    from lens.cli.progress import Progress
    from lens.sampling.pipeline import LensPipeline


class Drawn(NamedTuple):
    """A picture and everything that decided it."""

    image: Image.Image
    settings: PictureSettings


class Plan(NamedTuple):
    """What is wanted with everything left open decided, from files alone."""

    folder: Path
    model: str
    model_hash: str
    defaults: SamplingDefaults
    size: tuple[int, int] | None
    """(height, width); None where the starting picture decides."""


def plan_of(wanted: Wanted) -> Plan:
    """Return the plan for what is wanted; everything that can be refused without loading the model is."""
    model = wanted.model or DEFAULT_MODEL
    folder = resolve_model(model)
    defaults = folder_defaults(folder, model)
    asks_for_size = any(
        side is not None for side in (wanted.width, wanted.aspect_ratio, wanted.base_resolution)
    )
    size = None
    if asks_for_size or wanted.init_image is None:
        size = resolve_resolution(
            wanted.height,
            wanted.width,
            wanted.base_resolution,
            wanted.aspect_ratio,
            default_base=defaults.base_resolution,
            allow_extreme=bool(wanted.allow_extreme),
        )
    found = content_hash(folder)
    if wanted.model_hash not in (None, found):
        raise LensError(
            f"The picture was drawn with other weights of {model} "
            f"({wanted.model_hash[:10]}, here {found[:10]}). "
            f"Bring those back, or draw with these: --model {model}."
        )
    name = str(folder.resolve()) if Path(model).expanduser().is_dir() else model
    return Plan(folder, name, found, defaults, size)


def draw(wanted: Wanted, progress: "Progress") -> Iterator[Drawn]:
    """Yield the pictures that are wanted, each as soon as it is drawn.

    Raises: LensError for whatever the caller can mend; MemoryNeedError where memory ran out on the way.
    """
    plan = plan_of(wanted)
    with out_of_memory_explained():
        pipeline, dtype = load(plan.folder, wanted)
        unchanging = _unchanging_settings(plan, wanted, pipeline, dtype)
        number = 0
        for prompt in wanted.prompts or ():
            progress("encoding", 0, 1)
            text = pipeline.encode_prompt(prompt, wanted.negative or "")
            for seed in range(unchanging["seed"], unchanging["seed"] + wanted.count):
                number += 1
                progress.start_picture(number)
                image = _draw_one(pipeline, text, plan, unchanging | {"seed": seed}, wanted, progress)
                facts = {"prompt": prompt, "seed": seed, "width": image.width, "height": image.height}
                yield Drawn(image, PictureSettings(**(unchanging | facts)))


def _unchanging_settings(plan: Plan, wanted: Wanted, pipeline: "LensPipeline", dtype: str) -> dict[str, Any]:
    """Return the settings that all pictures of a call have in common; `seed` is the first one's."""
    import torch

    device = str(pipeline._execution_device)
    strength = wanted.strength
    if wanted.init_image is not None and strength is None:
        from lens.sampling.inputs import DEFAULT_STRENGTH

        strength = DEFAULT_STRENGTH if wanted.mask is None else 1.0
    loras = wanted.loras or ()
    return {
        "negative_prompt": wanted.negative or "",
        "seed": wanted.seed or 0,
        "steps": wanted.steps or plan.defaults.num_inference_steps,
        "guidance": plan.defaults.guidance_scale if wanted.guidance is None else wanted.guidance,
        "solver": wanted.solver or "euler",
        "model": plan.model,
        "model_hash": plan.model_hash,
        "loras": tuple(LoraUsed(**_used(lora.path), weight=lora.weight) for lora in loras),
        "init_image": FileUsed(**_used(wanted.init_image)) if wanted.init_image else None,
        "mask": FileUsed(**_used(wanted.mask)) if wanted.mask else None,
        "strength": strength,
        "dtype": dtype,
        "device": device,
        "quantize": wanted.quantization,
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "versions": versions_here(),
    }


def _draw_one(
    pipeline: "LensPipeline",
    text: Any,
    plan: Plan,
    settings: dict[str, Any],
    wanted: Wanted,
    progress: "Progress",
) -> Image.Image:
    import torch

    embeds, mask, negative_embeds, negative_mask = text
    height, width = plan.size or (None, None)
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
        image=open_image(wanted.init_image) if wanted.init_image else None,
        mask_image=open_image(wanted.mask) if wanted.mask else None,
        strength=settings["strength"],
        solver=settings["solver"],
        on_progress=progress,
        allow_extreme=bool(wanted.allow_extreme),
    )
    return result.images[0]  # type: ignore[union-attr]


def _used(path: Path) -> dict[str, str]:
    return {"path": str(path.resolve()), "sha256": content_hash(path)}
