"""`lens generate`: images from prompts, as files with their settings inside.

The walk of a prompt goes through `generation`: request, output, run, loading.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.cli.arguments import command_of
from lens.cli.generation.request import GenerateArguments
from lens.core.resolution import size_before_upscaling
from lens.sampling.solvers import DEFAULT_SOLVER

if TYPE_CHECKING:
    from lens.sampling.image_metadata import ImageMetadata

PRINTED_FIELDS = ("prompt", "seed", "width", "height", "steps", "guidance", "model")
OPTIONAL_FIELDS = ("negative_prompt", "cache", "strength", "upscale", "upscale_strength")
"""Printed where they are set."""


@command_of(GenerateArguments)
def generate(arguments: GenerateArguments) -> None:
    """Generate images from prompts; print one path per line."""
    from lens.cli.generation.output import OutputTarget
    from lens.cli.generation.run import generate_images
    from lens.cli.progress import ProgressBar

    requests = arguments.complete()
    num_images = sum(request.num_images for request in requests)
    target = OutputTarget.of(arguments.out, arguments.image_format, arguments.like, num_images)
    with ProgressBar(num_images) as progress:
        for generated in generate_images(requests, progress):
            path = target.save(generated.image, generated.metadata)
            progress.print(result_line(path, generated.metadata, arguments.as_json))


def result_line(path: Path, metadata: "ImageMetadata", as_json: bool) -> str:
    """Return what is printed of an image: its path, or settings that `--from-file` draws again."""
    if not as_json:
        return str(path)
    values: dict[str, Any] = {"path": str(path)}
    values |= {name: getattr(metadata, name) for name in PRINTED_FIELDS}
    values |= {name: value for name in OPTIONAL_FIELDS if (value := getattr(metadata, name))}
    if metadata.upscale:
        values["size"] = "{1}x{0}".format(
            *size_before_upscaling(metadata.height, metadata.width, metadata.upscale)
        )
    if metadata.solver != DEFAULT_SOLVER:
        values["solver"] = metadata.solver
    if metadata.loras:
        values["loras"] = [{"path": lora.path, "weight": lora.weight} for lora in metadata.loras]
    for name in ("init_image", "mask"):
        if (file := getattr(metadata, name)) is not None:
            values[name] = file.path
    return json.dumps(values)
