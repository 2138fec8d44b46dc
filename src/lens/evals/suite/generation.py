"""Second step: images of a run that are not there yet. Stopped at any moment, the next run goes on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from lens.benchmarks.base import Benchmark
from lens.evals.suite.run_folder import EvalRunSettings, RunFolder, RunImage, write_json_lines
from lens.files import write_atomic

Draw = Callable[[Sequence[RunImage]], Iterator[Image.Image]]
"""Returns one image for each request, in order."""
OnProgress = Callable[[str, int, int], None]


def generate_missing(
    run: RunFolder, benchmark: Benchmark, draw: Draw, batch_size: int, on_progress: OnProgress
) -> int:
    """Draw the images that have no file, write each as soon as it is there, and return their number."""
    planned = list(run.planned(benchmark))
    missing = [image for image in planned if not (run.images / image.name).is_file()]
    num_done = len(planned) - len(missing)
    on_progress("generating", num_done, len(planned))
    for start in range(0, len(missing), batch_size):
        batch = missing[start : start + batch_size]
        for request, image in zip(batch, draw(batch), strict=True):
            path = run.images / request.name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda file, image=image: image.save(file, "PNG"))
            num_done += 1
            on_progress("generating", num_done, len(planned))
    rows = (
        {"key": one.prompt.key, "repeat": one.repeat, "file": one.name, "seed": one.seed} for one in planned
    )
    write_json_lines(run.folder / "images.jsonl", rows)
    for row in planned:
        if "tag" in row.prompt.facts and row.repeat == 0:  # GenEval's scripts look for it beside the samples
            _write_metadata(run, row)
    return len(missing)


def pipeline_draw(pipeline: Any, settings: EvalRunSettings) -> Draw:
    """Return a function that draws with a loaded pipeline, each batch in one call."""
    import torch

    pipeline.logs_warnings = False  # a benchmark asks for what it asks for

    def draw(requests: Sequence[RunImage]) -> Iterator[Image.Image]:
        output = pipeline(
            [request.prompt.prompt for request in requests],
            height=settings.height, width=settings.width,
            num_inference_steps=settings.steps, guidance_scale=settings.guidance, solver=settings.solver,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        )  # fmt: skip
        yield from output.images

    return draw


def _write_metadata(run: RunFolder, image: RunImage) -> None:
    facts = image.prompt.facts
    row = {name: facts[name] for name in ("tag", "include", "exclude") if facts.get(name)}
    folder = (run.images / image.name).parent.parent
    write_json_lines(folder / "metadata.jsonl", [row | {"prompt": image.prompt.prompt}])
