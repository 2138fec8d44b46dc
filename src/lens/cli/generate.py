"""`lens generate`: images from prompts, as files with their settings inside.

The walk of a prompt goes through `generation`: request, output, run, loading.
"""

from lens.cli.arguments import command_of
from lens.cli.generation.request import GenerateArguments


@command_of(GenerateArguments)
def generate(arguments: GenerateArguments) -> None:
    """Generate images from prompts; print one path per line."""
    from lens.cli.generation.output import OutputTarget, result_line
    from lens.cli.generation.run import generate_images
    from lens.cli.progress import ProgressBar

    requests = arguments.complete()
    num_images = sum(request.num_images for request in requests)
    target = OutputTarget.of(arguments.out, arguments.image_format, arguments.like, num_images)
    with ProgressBar(num_images) as progress:
        for generated in generate_images(requests, progress):
            path = target.save(generated.image, generated.metadata)
            progress.print(result_line(path, generated.metadata, arguments.as_json, generated.reasoned))
