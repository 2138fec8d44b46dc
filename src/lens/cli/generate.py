"""`lens generate`: its options, in the order of help, and the checks that need no model.

Every option that decides the picture defaults to None, "not said": then the settings of --like count, then
the model's own defaults. Drawing itself is in `drawing`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.cli.arguments import (
    DEFAULT_MODEL,
    DtypeName,
    ImageFormat,
    OffloadMode,
    QuantizeFormat,
    SolverName,
    gather_prompts,
    parse_lora,
    parse_size,
)
from lens.models.checkpoints.registry import KNOWN_MODELS

if TYPE_CHECKING:
    from lens.cli.generation.output import OutputTarget
    from lens.cli.generation.request import GenerateArguments
    from lens.sampling.image_metadata import ImageMetadata

PROMPT_PANEL, SAMPLING_PANEL, MODEL_PANEL, OUTPUT_PANEL = (
    "What to draw",
    "How to draw it",
    "What to draw it with",
    "Where to write it",
)

Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        help="What the pictures show, one picture a prompt; - reads lines from stdin.", show_default=False
    ),
]
FromFile = Annotated[
    Path | None, typer.Option(help="A text file, one prompt a line.", rich_help_panel=PROMPT_PANEL)
]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Draw this picture again by the settings inside it; other options change them.",
        rich_help_panel=PROMPT_PANEL,
    ),
]
Negative = Annotated[str | None, typer.Option(help="What to steer away from.", rich_help_panel=PROMPT_PANEL)]
Count = Annotated[
    int, typer.Option(min=1, help="Pictures a prompt, with seeds counting up.", rich_help_panel=PROMPT_PANEL)
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of the first picture of a prompt (0).", rich_help_panel=PROMPT_PANEL)
]
AspectRatio = Annotated[
    str | None,
    typer.Option(metavar="W:H", help="One of nine, 1:2 to 2:1 (1:1).", rich_help_panel=SAMPLING_PANEL),
]
BaseResolution = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help="Side of the square of the same area (the model's own).",
        rich_help_panel=SAMPLING_PANEL,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="Exact size in pixels, multiples of 16.", rich_help_panel=SAMPLING_PANEL
    ),
]
AllowExtreme = Annotated[
    bool,
    typer.Option("--allow-extreme", help="Draw sizes outside the limits.", rich_help_panel=SAMPLING_PANEL),
]
Steps = Annotated[
    int | None, typer.Option(help="Denoising steps (the model's own).", rich_help_panel=SAMPLING_PANEL)
]
Cfg = Annotated[
    float | None, typer.Option(help="Guidance; 1 is none (the model's own).", rich_help_panel=SAMPLING_PANEL)
]
SolverOption = Annotated[
    SolverName | None, typer.Option(help="How steps are taken (euler).", rich_help_panel=SAMPLING_PANEL)
]
InitImage = Annotated[
    Path | None, typer.Option(help="Start from this picture.", rich_help_panel=SAMPLING_PANEL)
]
Strength = Annotated[
    float | None,
    typer.Option(help="How much of the start is redrawn, above 0 up to 1.", rich_help_panel=SAMPLING_PANEL),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        help="Redraw only where this picture is white; needs --init-image.", rich_help_panel=SAMPLING_PANEL
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(KNOWN_MODELS)}, a folder or a hub id ({DEFAULT_MODEL}).",
        rich_help_panel=MODEL_PANEL,
    ),
]
LoraOption = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH[:WEIGHT]", help="Apply a LoRA; repeat for more.", rich_help_panel=MODEL_PANEL),
]
DtypeOption = Annotated[
    DtypeName | None, typer.Option(help="Number format of weights (auto).", rich_help_panel=MODEL_PANEL)
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="cpu, cuda, cuda:1, mps (the fastest there is).", rich_help_panel=MODEL_PANEL
    ),
]
OffloadOption = Annotated[
    OffloadMode, typer.Option(help="Keep parts in main memory while they wait.", rich_help_panel=MODEL_PANEL)
]
QuantizeOption = Annotated[
    QuantizeFormat | None,
    typer.Option(help="Squeeze weights while loading (none).", rich_help_panel=MODEL_PANEL),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="A folder, or a file name for a single picture (replaced if it exists).",
        rich_help_panel=OUTPUT_PANEL,
    ),
]
FormatOption = Annotated[
    ImageFormat | None, typer.Option("--format", help="File format (png).", rich_help_panel=OUTPUT_PANEL)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a picture.", rich_help_panel=OUTPUT_PANEL)
]


def generate(
    prompts: Prompts = None,
    from_file: FromFile = None,
    like: Like = None,
    negative: Negative = None,
    count: Count = 1,
    seed: Seed = None,
    aspect_ratio: AspectRatio = None,
    base_resolution: BaseResolution = None,
    size: Size = None,
    allow_extreme: AllowExtreme = False,
    steps: Steps = None,
    cfg: Cfg = None,
    solver: SolverOption = None,
    init_image: InitImage = None,
    strength: Strength = None,
    mask: MaskOption = None,
    model: ModelOption = None,
    lora: LoraOption = None,
    dtype: DtypeOption = None,
    device: Device = None,
    offload: OffloadOption = OffloadMode.NONE,
    quantize: QuantizeOption = None,
    out: Out = None,
    image_format: FormatOption = None,
    as_json: AsJson = False,
) -> None:
    """Draw pictures from prompts; print one path a line."""
    from lens.cli.generation.output import OutputTarget
    from lens.cli.generation.request import GenerateArguments
    from lens.sampling.image_metadata import read_image_metadata

    all_prompts = gather_prompts(prompts or [], from_file, read_stdin=like is None)
    width, height = parse_size(size) if size is not None else (None, None)
    arguments = GenerateArguments(
        prompts=tuple(all_prompts) or None,
        negative_prompt=negative,
        seed=seed,
        num_images_per_prompt=count,
        width=width,
        height=height,
        aspect_ratio=aspect_ratio,
        base_resolution=base_resolution,
        allow_extreme=allow_extreme or None,
        steps=steps,
        guidance=cfg,
        solver=solver and solver.value,
        model=model,
        loras=tuple(map(parse_lora, lora)) if lora else None,
        init_image=init_image,
        mask=mask,
        strength=strength,
        dtype=dtype and dtype.value,
        device=device,
        quantize=quantize and quantize.value,
        offload=offload.value,
    )
    if like is not None:
        arguments = arguments.fill_from_image(like, read_image_metadata(like))
    arguments.check()
    target = OutputTarget.of(out, image_format and image_format.value, like, arguments.num_images)
    _generate_all(arguments, target, as_json)


def _generate_all(arguments: "GenerateArguments", target: "OutputTarget", as_json: bool) -> None:
    from lens.cli.generation.run import generate_images
    from lens.cli.progress import ProgressBar

    with ProgressBar(arguments.num_images) as progress:
        for generated in generate_images(arguments, progress):
            path = target.save(generated.image, generated.metadata)
            progress.print(json.dumps(_result_fields(path, generated.metadata)) if as_json else str(path))


def _result_fields(path: Path, metadata: "ImageMetadata") -> dict[str, Any]:
    names = ("prompt", "seed", "width", "height", "steps", "guidance", "model")
    return {"path": str(path)} | {name: getattr(metadata, name) for name in names}
