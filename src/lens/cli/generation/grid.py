"""`lens grid`: one image for each pair of values of two settings, and a sheet that shows them all.

Axes and sheet are those of the studio's grid; images are drawn as `lens generate` draws them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.cli.arguments import command_of
from lens.cli.generation.request import PROMPT, GenerateArguments
from lens.errors import SettingError

if TYPE_CHECKING:
    from lens.cli.generation.run import GeneratedImage
    from lens.sampling.image_metadata import ImageMetadata
    from lens.serve.studio.contact_sheet import Axis

SIZE_OPTIONS: dict[str, Any] = {"size": None, "width": None, "height": None}
LORA_AXIS = "lora "


def _axis_option(where: str) -> Any:
    text = f'Setting and values of the {where}: "cfg=1, 2, 4", "seed=1..4", "lora FILE=0.5, 1".'
    return typer.Option(help=text, metavar="SETTING=VALUES", rich_help_panel=PROMPT, show_default=False)


@dataclass(frozen=True)
class GridArguments(GenerateArguments):
    """Options of `lens grid`: those of `lens generate`, and two axes."""

    x: Annotated[str | None, _axis_option("columns")] = None
    y: Annotated[str | None, _axis_option("rows")] = None


@command_of(GridArguments)
def grid(arguments: GridArguments) -> None:
    """Generate a grid of images over two settings; print one path per line, that of the sheet last."""
    from lens.cli.generation.output import OutputTarget, result_line
    from lens.cli.generation.run import generate_images
    from lens.cli.progress import ProgressBar
    from lens.serve.studio.contact_sheet import Axis, grid_cells

    arguments = _axes_of_sheet(arguments)
    columns = _parse_axis(arguments.x, "--x")
    rows = Axis("", ("",)) if arguments.y is None else _parse_axis(arguments.y, "--y")
    cells = grid_cells(columns, rows)
    for cell in cells:
        cell.pop("", None)
    requests = _cell_requests(arguments, cells)
    target = OutputTarget.of(arguments.out, arguments.image_format, arguments.like, len(requests) + 1)
    drawn: list[tuple[Path, GeneratedImage] | None] = [None] * len(requests)
    with ProgressBar(len(requests)) as progress:
        for generated in generate_images(requests, progress, needs_all=True):
            path = target.save(generated.image, generated.metadata)
            drawn[generated.request_index] = path, generated
            line = result_line(path, generated.metadata, arguments.as_json, generated.reasoned)
            progress.print(line)
    sheet, metadata = _sheet([one for one in drawn if one is not None], columns, rows)
    # The settings of all cells do not fit into the metadata of a JPEG.
    path = replace(target, image_format="png").save(sheet, metadata, "grid-")
    print(result_line(path, metadata, arguments.as_json))


def _axes_of_sheet(arguments: GridArguments) -> GridArguments:
    """Return the arguments with the axes and the first image of the sheet of --like."""
    if arguments.like is None or arguments.x is not None:
        return arguments
    from lens.sampling.image_metadata import read_image_metadata
    from lens.serve.studio.contact_sheet import axis_texts

    sheet = read_image_metadata(arguments.like).sheet
    if sheet is None:
        return arguments
    texts = axis_texts(sheet)
    axes = [f"{name}={values}" for name, values in zip(texts[::2], texts[1::2], strict=True)]
    x, y = (*axes, None, None)[:2]
    first = arguments.like.with_name(next(filter(None, sheet.files), arguments.like.name))
    return replace(arguments, like=first, x=x, y=arguments.y or y)


def _cell_requests(arguments: GridArguments, cells: list[dict[str, Any]]) -> list[GenerateArguments]:
    """Return the arguments of each cell; a seed that nobody chose is drawn once for all."""
    if not arguments.prompts and "prompt" in cells[0]:
        arguments = replace(arguments, prompts=[cells[0]["prompt"]])
    requests = arguments.complete()
    if len(requests) > 1 or arguments.num_images_per_prompt > 1:
        is_count = len(requests) == 1
        name, got = ("--count", arguments.num_images_per_prompt) if is_count else ("the prompt", "several")
        fix = "Make prompt or seed an axis: --y 'prompt=a fox\\na cat' with a line for each."
        raise SettingError(name, got, "one image, which the axes vary", fix)
    one = requests[0]
    one = replace(one, seed=None, recorded_seed=one.first_seed)
    return [replace(one, **_changes(one, cell)).check() for cell in cells]


def _changes(one: GenerateArguments, cell: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a cell replaces."""
    changes: dict[str, Any] = {}
    for setting, value in cell.items():
        if setting.startswith(_lora_prefix()):
            path = setting.removeprefix(_lora_prefix())
            others = [text for text in changes.get("lora", one.lora or ()) if text.partition(":")[0] != path]
            changes["lora"] = [*others, f"{path}:{value!r}"]
        elif setting in ("aspect_ratio", "base_resolution"):
            changes |= SIZE_OPTIONS | {setting: value}
        elif setting == "prompt":
            changes |= {"prompts": [value], "original_prompt": None, "reasoner_record": None}
        else:
            changes[setting] = str(value) if setting == "seed" else value
    return changes


def _parse_axis(text: str | None, option: str) -> "Axis":
    from lens.cli.generation.batch import SYNONYMS
    from lens.serve.studio.contact_sheet import NUMERIC_SETTINGS, TEXT_SETTINGS, parse_axis

    setting, equals, values = (text or "").partition("=")
    if not equals:
        fix = f'For example {option} "cfg=1, 2, 4".'
        raise SettingError(option, text, "the form SETTING=VALUES", fix)
    name = setting.strip().lstrip("-").replace("-", "_").lower()
    if name.startswith(LORA_AXIS):
        setting = _lora_prefix() + setting.strip()[len(LORA_AXIS) :].strip()
    else:
        setting = (SYNONYMS | {"ar": "aspect_ratio", "base": "base_resolution"}).get(name, name)
    try:
        return parse_axis(setting, values.replace("\\n", "\n"), None)
    except SettingError as error:
        known = ", ".join([*NUMERIC_SETTINGS, *TEXT_SETTINGS, "aspect_ratio", "solver", "model", "lora FILE"])
        fix = f"Settings are {known}." if error.setting == "axis" else str(error)
        raise SettingError(option, text, "a setting and values that it accepts", fix) from error


def _lora_prefix() -> str:
    from lens.serve.studio.contact_sheet import LORA_PREFIX

    return LORA_PREFIX


def _sheet(
    drawn: "list[tuple[Path, GeneratedImage]]", columns: "Axis", rows: "Axis"
) -> "tuple[Any, ImageMetadata]":
    """Return the sheet of all cells, and its metadata."""
    from lens.serve.studio.contact_sheet import render_sheet, sheet_metadata

    has_rows = bool(rows.setting)
    title = "" if "prompt" in (columns.setting, rows.setting) else drawn[0][1].metadata.prompt
    images = [generated.image for _, generated in drawn]
    sheet = render_sheet(images, columns.labels, rows.labels if has_rows else [""], title)
    cells = [(path.name, generated.metadata) for path, generated in drawn]
    return sheet, sheet_metadata(sheet, cells, columns, rows if has_rows else None)
