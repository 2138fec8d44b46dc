"""`lens generate`: images from prompts, as files with their settings inside.

The walk of a prompt goes through `generation`: request, output, run, loading.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.cli.arguments import command_of
from lens.cli.generation.request import GenerateArguments

if TYPE_CHECKING:
    from lens.sampling.image_metadata import ImageMetadata


@command_of(GenerateArguments)
def generate(arguments: GenerateArguments) -> None:
    """Generate images from prompts; print one path per line."""
    from lens.cli.generation.output import OutputTarget
    from lens.cli.generation.run import generate_images
    from lens.cli.progress import ProgressBar

    complete = arguments.complete()
    target = OutputTarget.of(complete.out, complete.image_format, complete.like, complete.num_images)
    with ProgressBar(complete.num_images) as progress:
        for generated in generate_images(complete, progress):
            path = target.save(generated.image, generated.metadata)
            is_json = complete.as_json
            progress.print(json.dumps(_result_fields(path, generated.metadata)) if is_json else str(path))


def _result_fields(path: Path, metadata: "ImageMetadata") -> dict[str, Any]:
    names = ("prompt", "seed", "width", "height", "steps", "guidance", "model")
    return {"path": str(path)} | {name: getattr(metadata, name) for name in names}
