"""Contact sheets: a grid of images over two settings, or two images side by side, with labels.

An axis is a setting and its values; each cell of a grid is the page's form with two values replaced. Knows
nothing of how images are generated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lens.core.resolution import ASPECT_RATIOS
from lens.core.step_caches import CACHE_NAMES, NO_CACHE
from lens.errors import SettingError
from lens.sampling.image_metadata import AxisRecord, ImageMetadata, SheetRecord
from lens.sampling.solvers import SOLVERS
from lens.serve.engine.request import LoraRequest, ModelInfo
from lens.serve.studio.form import StudioForm

MAX_GRID_CELLS = 64
LORA_PREFIX = "LoRA "
"""Prefix of an axis over the weight of a LoRA."""
TEXT_SETTINGS = ("prompt", "negative_prompt")
NUMERIC_SETTINGS: dict[str, type] = {
    "seed": int, "steps": int, "guidance": float, "strength": float, "base_resolution": int
}  # fmt: skip
MARGIN_PX, LABEL_PX, FONT_PX = 12, 22, 14
TEXT_COLOR, BACKGROUND_COLOR = (28, 28, 32), (250, 249, 246)


@dataclass(frozen=True)
class Axis:
    """A setting and its values along one side of a grid."""

    setting: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> list[str]:
        if self.setting in TEXT_SETTINGS:
            return [str(value) for value in self.values]
        return [f"{self.setting.replace('_', ' ')} {value}" for value in self.values]


def axis_names(models: Sequence[ModelInfo], loras: Sequence[str], has_image: bool = True) -> list[str]:
    """Return the settings that a grid can vary."""
    names = ["guidance", "steps", "seed", *TEXT_SETTINGS]
    names += ["aspect_ratio", "base_resolution", "solver", "cache"]
    names += ["model"] * (len(models) > 1) + ["strength"] * has_image
    return names + [f"{LORA_PREFIX}{name}" for name in loras]


def parse_axis(setting: str, text: str, models: Sequence[ModelInfo] | None) -> Axis:
    """Return an axis from typed text: values separated by commas, prompts by lines; `1..4` is a range.

    Without `models`, a model may have any name.
    Raises: SettingError for a value that the setting does not accept.
    """
    allowed: dict[str, Sequence[str] | None] = {
        "aspect_ratio": ASPECT_RATIOS,
        "solver": tuple(SOLVERS),
        "cache": (NO_CACHE, *CACHE_NAMES),
        "model": None if models is None else [model.name for model in models],
    }
    known = (*TEXT_SETTINGS, *allowed, *NUMERIC_SETTINGS)
    if not isinstance(setting, str) or not (setting in known or setting.startswith(LORA_PREFIX)):
        raise SettingError("axis", setting or "", "a setting of the list")
    parts = [part.strip() for part in re.split(r"\n" if setting in TEXT_SETTINGS else r"[,\n]", text)]
    parts = [part for part in parts if part]
    if not parts:
        needs = (
            "one value per line"
            if setting in TEXT_SETTINGS
            else "values separated by commas, such as 1, 2, 4"
        )
        raise SettingError(setting, text, needs)
    if setting in TEXT_SETTINGS:
        return Axis(setting, tuple(parts))
    if setting in allowed:
        names = allowed[setting]
        for part in parts:
            if names is not None and part not in names:
                raise SettingError(setting, part, f"one of {', '.join(names)}")
        return Axis(setting, tuple(parts))
    kind = float if setting.startswith(LORA_PREFIX) else NUMERIC_SETTINGS[setting]
    return Axis(setting, tuple(value for part in parts for value in _parse_numbers(setting, part, kind)))


def _parse_numbers(setting: str, part: str, kind: type) -> list[Any]:
    span = re.fullmatch(r"(-?\d+)\s*\.\.\s*(-?\d+)", part)
    if span:
        first, last = int(span[1]), int(span[2])
        step = 1 if first <= last else -1
        if abs(last - first) >= MAX_GRID_CELLS:
            needs = f"at most {MAX_GRID_CELLS} values; this range has {abs(last - first) + 1}"
            raise SettingError(setting, part, needs)
        return [kind(number) for number in range(first, last + step, step)]
    try:
        return [kind(part)]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise SettingError(setting, part, f"{what}, or a range such as 1..4") from None


def grid_forms(form: StudioForm, x: Axis, y: Axis) -> list[StudioForm]:
    """Return the forms of all cells, row by row; all have the same seed unless the seed is an axis.

    Raises: SettingError, as `grid_cells` does.
    """
    forms = []
    for cell in grid_cells(x, y):
        changed = form
        for setting, value in cell.items():
            changed = _replace_setting(changed, setting, value)
        forms.append(changed)
    return forms


def grid_cells(x: Axis, y: Axis) -> list[dict[str, Any]]:
    """Return the two settings of each cell, row by row.

    Raises: SettingError for one setting on both sides, or too many cells.
    """
    if x.setting == y.setting:
        raise SettingError("Y", y.setting, "a setting that differs from X")
    num_cells = len(x.values) * len(y.values)
    if num_cells > MAX_GRID_CELLS:
        raise SettingError("grid", f"{len(x.values)} x {len(y.values)}", f"at most {MAX_GRID_CELLS} images")
    return [{y.setting: y_value, x.setting: x_value} for y_value in y.values for x_value in x.values]


def _replace_setting(form: StudioForm, setting: str, value: Any) -> StudioForm:
    if setting.startswith(LORA_PREFIX):
        name = setting.removeprefix(LORA_PREFIX)
        others = tuple(lora for lora in form.loras if lora.name != name)
        return replace(form, loras=(*others, LoraRequest(name, value)))
    if setting in ("aspect_ratio", "base_resolution"):
        return replace(form, size="", **{setting: value})
    return replace(form, **{setting: value})


def render_sheet(
    images: Sequence[Image.Image | None],
    column_labels: Sequence[str],
    row_labels: Sequence[str],
    title: str = "",
) -> Image.Image:
    """Return images, row by row, as one sheet with a label above each column and beside each row.

    The place of a missing image stays empty; smaller images are centred.
    """
    width = max((image.width for image in images if image), default=64)
    height = max((image.height for image in images if image), default=64)
    font = ImageFont.load_default(FONT_PX)
    left = min(220, max((int(font.getlength(label)) for label in row_labels), default=0)) + 2 * MARGIN_PX
    column_lines = [_wrap_text(label, font, width) for label in column_labels]
    header_px = MARGIN_PX + LABEL_PX * max((len(lines) for lines in column_lines), default=0)
    title_lines = (
        _wrap_text(title, font, left + len(column_labels) * (width + MARGIN_PX) - MARGIN_PX) if title else []
    )
    top = header_px + (MARGIN_PX + LABEL_PX * len(title_lines) if title else 0)
    size = left + len(column_labels) * (width + MARGIN_PX), top + len(row_labels) * (height + MARGIN_PX)
    page = Image.new("RGB", size, BACKGROUND_COLOR)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(title_lines):
        draw.text((MARGIN_PX, MARGIN_PX + number * LABEL_PX), line, TEXT_COLOR, font)
    for column, lines in enumerate(column_lines):
        for number, line in enumerate(lines):
            where = left + column * (width + MARGIN_PX), top - LABEL_PX * (len(lines) - number)
            draw.text(where, line, TEXT_COLOR, font)
    for row, label in enumerate(row_labels):
        for number, line in enumerate(_wrap_text(label, font, left - 2 * MARGIN_PX)):
            draw.text(
                (MARGIN_PX, top + row * (height + MARGIN_PX) + number * LABEL_PX), line, TEXT_COLOR, font
            )
    for index, image in enumerate(images):
        row, column = divmod(index, len(column_labels))
        x, y = left + column * (width + MARGIN_PX), top + row * (height + MARGIN_PX)
        if image is None:
            draw.rectangle((x, y, x + width - 1, y + height - 1), outline=(200, 196, 188))
        else:
            corner = x + (width - image.width) // 2, y + (height - image.height) // 2
            page.paste(image.convert("RGB"), corner)
    return page


def render_side_by_side(first: Image.Image, second: Image.Image, title: str = "") -> Image.Image:
    """Return two images as one, labelled A and B."""
    return render_sheet([first, second], ["A", "B"], [""], title)


def sheet_metadata(
    sheet: Image.Image,
    cells: Sequence[tuple[str, ImageMetadata] | None],
    columns: Axis | None = None,
    rows: Axis | None = None,
) -> ImageMetadata:
    """Return the metadata of a sheet: those of its first image, and the files and metadata of all.

    A cell is None if its image could not be generated; at least one is not.
    """
    axes = [axis and AxisRecord(setting=axis.setting, values=axis.values) for axis in (columns, rows)]
    record = SheetRecord(
        width=sheet.width,
        height=sheet.height,
        columns=axes[0],
        rows=axes[1],
        files=tuple(cell and cell[0] for cell in cells),
        images=tuple(cell and cell[1] for cell in cells),
    )
    first = next(metadata for metadata in record.images if metadata is not None)
    return first.model_copy(update={"sheet": record})


def axis_texts(sheet: SheetRecord) -> list[str]:
    """Return setting and values of the columns and of the rows, as `parse_axis` reads them."""
    texts = []
    for axis in (sheet.columns, sheet.rows):
        if axis is not None:
            separator = "\n" if axis.setting in TEXT_SETTINGS else ", "
            texts += [axis.setting, separator.join(map(str, axis.values))]
    return texts


def metadata_differences(first: ImageMetadata, second: ImageMetadata) -> list[tuple[str, str, str]]:
    """Return (setting, value in the first, value in the second) of each difference."""
    a, b = (metadata.model_dump(mode="json", exclude_none=True) for metadata in (first, second))
    names = [name for name in (a | b) if a.get(name) != b.get(name)]
    return [(name.replace("_", " "), str(a.get(name, "-")), str(b.get(name, "-"))) for name in names]


def _wrap_text(text: str, font: Any, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]
