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
    Dtype,
    Offload,
    PictureFormat,
    Quantize,
    Solver,
    gather_prompts,
    parse_lora,
    parse_size,
)
from lens.models.checkpoints.registry import KNOWN_MODELS

if TYPE_CHECKING:
    from lens.cli.generation.output import Target
    from lens.cli.generation.request import Wanted
    from lens.sampling.image_metadata import PictureSettings

WHAT, HOW, WITH, OUT = "What to draw", "How to draw it", "What to draw it with", "Where to write it"

Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        help="What the pictures show, one picture a prompt; - reads lines from stdin.", show_default=False
    ),
]
FromFile = Annotated[Path | None, typer.Option(help="A text file, one prompt a line.", rich_help_panel=WHAT)]
Like = Annotated[
    Path | None,
    typer.Option(
        help="Draw this picture again by the settings inside it; other options change them.",
        rich_help_panel=WHAT,
    ),
]
Negative = Annotated[str | None, typer.Option(help="What to steer away from.", rich_help_panel=WHAT)]
Count = Annotated[
    int, typer.Option(min=1, help="Pictures a prompt, with seeds counting up.", rich_help_panel=WHAT)
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of the first picture of a prompt (0).", rich_help_panel=WHAT)
]
AspectRatio = Annotated[
    str | None, typer.Option(metavar="W:H", help="One of nine, 1:2 to 2:1 (1:1).", rich_help_panel=HOW)
]
BaseResolution = Annotated[
    int | None,
    typer.Option(
        metavar="PX", help="Side of the square of the same area (the model's own).", rich_help_panel=HOW
    ),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Exact size in pixels, multiples of 16.", rich_help_panel=HOW),
]
AllowExtreme = Annotated[
    bool, typer.Option("--allow-extreme", help="Draw sizes outside the limits.", rich_help_panel=HOW)
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps (the model's own).", rich_help_panel=HOW)]
Cfg = Annotated[
    float | None, typer.Option(help="Guidance; 1 is none (the model's own).", rich_help_panel=HOW)
]
SolverOption = Annotated[
    Solver | None, typer.Option(help="How steps are taken (euler).", rich_help_panel=HOW)
]
InitImage = Annotated[Path | None, typer.Option(help="Start from this picture.", rich_help_panel=HOW)]
Strength = Annotated[
    float | None,
    typer.Option(help="How much of the start is redrawn, above 0 up to 1.", rich_help_panel=HOW),
]
Mask = Annotated[
    Path | None,
    typer.Option(help="Redraw only where this picture is white; needs --init-image.", rich_help_panel=HOW),
]
Model = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(KNOWN_MODELS)}, a folder or a hub id ({DEFAULT_MODEL}).",
        rich_help_panel=WITH,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH[:WEIGHT]", help="Apply a LoRA; repeat for more.", rich_help_panel=WITH),
]
DtypeOption = Annotated[
    Dtype | None, typer.Option(help="Number format of weights (auto).", rich_help_panel=WITH)
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps (the fastest there is).", rich_help_panel=WITH),
]
OffloadOption = Annotated[
    Offload, typer.Option(help="Keep parts in main memory while they wait.", rich_help_panel=WITH)
]
QuantizeOption = Annotated[
    Quantize | None, typer.Option(help="Squeeze weights while loading (none).", rich_help_panel=WITH)
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="A folder, or a file name for a single picture (replaced if it exists).", rich_help_panel=OUT
    ),
]
FormatOption = Annotated[
    PictureFormat | None, typer.Option("--format", help="File format (png).", rich_help_panel=OUT)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a picture.", rich_help_panel=OUT)]


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
    mask: Mask = None,
    model: Model = None,
    lora: Lora = None,
    dtype: DtypeOption = None,
    device: Device = None,
    offload: OffloadOption = Offload.NONE,
    quantize: QuantizeOption = None,
    out: Out = None,
    picture_format: FormatOption = None,
    as_json: AsJson = False,
) -> None:
    """Draw pictures from prompts; print one path a line."""
    from lens.cli.generation.output import Target
    from lens.cli.generation.request import Wanted
    from lens.sampling.image_metadata import read_settings

    said = gather_prompts(prompts or [], from_file, read_stdin=like is None)
    width, height = parse_size(size) if size is not None else (None, None)
    wanted = Wanted(
        prompts=tuple(said) or None,
        negative=negative,
        seed=seed,
        count=count,
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
        wanted = wanted.like(like, read_settings(like))
    wanted.check()
    target = Target.of(out, picture_format and picture_format.value, like, wanted.num_pictures)
    _draw_all(wanted, target, as_json)


def _draw_all(wanted: "Wanted", target: "Target", as_json: bool) -> None:
    from lens.cli.generation.run import draw
    from lens.cli.progress import Progress

    with Progress(wanted.num_pictures) as progress:
        for picture in draw(wanted, progress):
            path = target.save(picture.image, picture.settings)
            progress.print(json.dumps(_facts(path, picture.settings)) if as_json else str(path))


def _facts(path: Path, settings: "PictureSettings") -> dict[str, Any]:
    names = ("prompt", "seed", "width", "height", "steps", "guidance", "model")
    return {"path": str(path)} | {name: getattr(settings, name) for name in names}
