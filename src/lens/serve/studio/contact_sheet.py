"""Sheets of several pictures: a grid over two settings, two pictures side by side, each part labelled.

An axis is a setting and its values; every cell of a grid is the page's own choices with two of them replaced.
Knows nothing of drawing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lens.core.resolution import ASPECT_RATIOS
from lens.errors import SettingError
from lens.sampling.image_metadata import PictureSettings
from lens.serve.engine.request import LoraWanted, OfferedModel
from lens.serve.studio.form import SOLVERS, Form

MAX_CELLS = 64
LORA = "LoRA "
"""Begins the name of an axis over a LoRA's weight."""
TEXTS = ("prompt", "negative_prompt")
NUMBERS: dict[str, type] = {
    "seed": int, "steps": int, "guidance": float, "strength": float, "base_resolution": int
}  # fmt: skip
MARGIN_PX, LABEL_PX, FONT_PX = 12, 22, 14
INK, PAPER = (28, 28, 32), (250, 249, 246)


@dataclass(frozen=True)
class Axis:
    """A setting, and the values that it takes along one side of a grid."""

    setting: str
    values: tuple[Any, ...]

    @property
    def labels(self) -> list[str]:
        if self.setting in TEXTS:
            return [str(value) for value in self.values]
        return [f"{self.setting.replace('_', ' ')} {value}" for value in self.values]


def axis_names(models: Sequence[OfferedModel], loras: Sequence[str], has_image: bool = True) -> list[str]:
    """Return the settings that a grid can vary."""
    names = ["guidance", "steps", "seed", *TEXTS, "aspect_ratio", "base_resolution", "solver"]
    names += ["model"] * (len(models) > 1) + ["strength"] * has_image
    return names + [f"{LORA}{name}" for name in loras]


def parse_axis(setting: str, text: str, models: Sequence[OfferedModel]) -> Axis:
    """Return an axis from what a person typed: values with commas between, texts one a line, `1..4` a range.

    Raises: SettingError for a value that the setting cannot have.
    """
    parts = [part.strip() for part in re.split(r"\n" if setting in TEXTS else r"[,\n]", text)]
    parts = [part for part in parts if part]
    if not parts:
        needs = "values, one a line" if setting in TEXTS else "values with commas between, such as 1, 2, 4"
        raise SettingError(setting, text, needs)
    allowed: dict[str, Sequence[str]] = {
        "aspect_ratio": ASPECT_RATIOS,
        "solver": tuple(SOLVERS),
        "model": [model.name for model in models],
    }
    if setting in TEXTS:
        return Axis(setting, tuple(parts))
    if setting in allowed:
        for part in parts:
            if part not in allowed[setting]:
                raise SettingError(setting, part, f"one of {', '.join(allowed[setting])}")
        return Axis(setting, tuple(parts))
    kind = float if setting.startswith(LORA) else NUMBERS[setting]
    return Axis(setting, tuple(value for part in parts for value in _numbers(setting, part, kind)))


def _numbers(setting: str, part: str, kind: type) -> list[Any]:
    span = re.fullmatch(r"(\d+)\s*\.\.\s*(\d+)", part)
    if span and int(span[1]) <= int(span[2]) < int(span[1]) + MAX_CELLS:
        return [kind(number) for number in range(int(span[1]), int(span[2]) + 1)]
    try:
        return [kind(part)]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise SettingError(setting, part, f"{what}, or a range such as 1..4") from None


def cells(form: Form, x: Axis, y: Axis) -> list[Form]:
    """Return the choices of every cell, row by row; the seed is the same in all unless it is an axis.

    Raises: SettingError for one setting on both sides, or more cells than a sheet holds.
    """
    if x.setting == y.setting:
        raise SettingError("Y", y.setting, "another setting than X")
    num_cells = len(x.values) * len(y.values)
    if num_cells > MAX_CELLS:
        raise SettingError("grid", f"{len(x.values)} x {len(y.values)}", f"at most {MAX_CELLS} pictures")
    rows = [_with(form, y.setting, down) for down in y.values]
    return [_with(row, x.setting, across) for row in rows for across in x.values]


def _with(form: Form, setting: str, value: Any) -> Form:
    if setting.startswith(LORA):
        name = setting.removeprefix(LORA)
        others = tuple(lora for lora in form.loras if lora.name != name)
        return replace(form, loras=(*others, LoraWanted(name, value)))
    if setting in ("aspect_ratio", "base_resolution"):
        return replace(form, size="", **{setting: value})
    return replace(form, **{setting: value})


def sheet(
    images: Sequence[Image.Image | None], across: Sequence[str], down: Sequence[str], title: str = ""
) -> Image.Image:
    """Return pictures, row by row, as one sheet with a label over each column and beside each row.

    A picture that there is none of leaves its place empty; smaller ones stand in the middle of theirs.
    """
    width = max((image.width for image in images if image), default=64)
    height = max((image.height for image in images if image), default=64)
    font = ImageFont.load_default(FONT_PX)
    left = min(220, max((int(font.getlength(label)) for label in down), default=0)) + 2 * MARGIN_PX
    head = [_wrapped(label, font, width) for label in across]
    head_px = MARGIN_PX + LABEL_PX * max((len(lines) for lines in head), default=0)
    title_lines = _wrapped(title, font, left + len(across) * (width + MARGIN_PX) - MARGIN_PX) if title else []
    top = head_px + (MARGIN_PX + LABEL_PX * len(title_lines) if title else 0)
    size = left + len(across) * (width + MARGIN_PX), top + len(down) * (height + MARGIN_PX)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(title_lines):
        draw.text((MARGIN_PX, MARGIN_PX + number * LABEL_PX), line, INK, font)
    for column, lines in enumerate(head):
        for number, line in enumerate(lines):
            where = left + column * (width + MARGIN_PX), top - LABEL_PX * (len(lines) - number)
            draw.text(where, line, INK, font)
    for row, label in enumerate(down):
        for number, line in enumerate(_wrapped(label, font, left - 2 * MARGIN_PX)):
            draw.text((MARGIN_PX, top + row * (height + MARGIN_PX) + number * LABEL_PX), line, INK, font)
    for index, image in enumerate(images):
        row, column = divmod(index, len(across))
        x, y = left + column * (width + MARGIN_PX), top + row * (height + MARGIN_PX)
        if image is None:
            draw.rectangle((x, y, x + width - 1, y + height - 1), outline=(200, 196, 188))
        else:
            middle = x + (width - image.width) // 2, y + (height - image.height) // 2
            page.paste(image.convert("RGB"), middle)
    return page


def side_by_side(first: Image.Image, second: Image.Image, title: str = "") -> Image.Image:
    """Return two pictures as one, named A and B."""
    return sheet([first, second], ["A", "B"], [""], title)


def differences(first: PictureSettings, second: PictureSettings) -> list[tuple[str, str, str]]:
    """Return (setting, its value in the first, in the second) of all that two pictures differ in."""
    one, other = (settings.model_dump(mode="json", exclude_none=True) for settings in (first, second))
    names = [name for name in (one | other) if one.get(name) != other.get(name)]
    return [(name.replace("_", " "), str(one.get(name, "-")), str(other.get(name, "-"))) for name in names]


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]
