"""The lines of a batch: prompts, or settings as JSON objects or rows of CSV, as `--json` prints them.

Knows nothing of how a line is drawn.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field

from lens.cli.arguments import gather_prompts
from lens.config import Settings
from lens.errors import SettingError
from lens.prompts.syntax import escape
from lens.sampling.image_metadata import ReasonerRecord
from lens.text_files import TextError, parse_json, read_json_lines, read_text

JSON_SUFFIXES, CSV_SUFFIXES = (".jsonl", ".ndjson"), (".csv", ".tsv")
DELIMITERS = ",;\t"
SYNONYMS = {
    "cfg": "guidance", "guidance_scale": "guidance", "num_inference_steps": "steps", "n": "count",
    "negative": "negative_prompt", "lora": "loras", "style": "styles",
}  # fmt: skip
"""Names of options, of the API's fields and of diffusers for what is called differently here."""
SIZE_FIELDS = ("size", "width", "height", "aspect_ratio", "base_resolution")


class LineLora(Settings):
    """A LoRA file of a line, and its weight."""

    path: str
    weight: float = 1.0


class LineReasoner(ReasonerRecord):
    """What `--json` printed of a reasoner; what an image does not record is not used."""

    reason: str | None = None
    checks: tuple[dict[str, Any], ...] = ()
    usage: dict[str, Any] | None = None


class BatchLine(Settings):
    """Settings of a line; None is that of the command's options."""

    prompt: str
    negative_prompt: str | None = None
    seed: int | str | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    size: str | None = None
    """WIDTHxHEIGHT; it wins over width and height, which are those of an image after it was upscaled."""
    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = None
    base_resolution: int | None = None
    steps: int | None = None
    guidance: float | None = None
    solver: str | None = None
    cache: str | None = None
    init_image: Path | None = None
    mask: Path | None = None
    strength: float | None = None
    upscale: float | None = None
    upscale_strength: float | None = None
    model: str | None = None
    loras: tuple[LineLora | str, ...] | str | None = None
    """Each with path and weight; as a text PATH:WEIGHT, several with semicolons between them."""
    styles: tuple[str, ...] | str | None = None
    """Names; in a text, with semicolons between them."""
    original_prompt: str | None = None
    reasoner: LineReasoner | None = None
    """The reasoner that made the prompt of `original_prompt`; it is not asked again."""
    path: str | None = None
    """The file that `--json` printed: not used, as no file is ever replaced."""

    @classmethod
    def read(cls, values: dict[str, Any], place: str) -> Self:
        """Return the settings of a line.

        Raises: SettingError that names the line, for an unknown name or a value that does not fit.
        """
        named: dict[str, Any] = {}
        for given, value in values.items():
            name = SYNONYMS.get(given, given)
            if name in named:
                raise SettingError(f"{given} of {place}", value, f"to be given once: it is {name}")
            named[name] = value
        line = cls.of(named, source=place)
        if not line.prompt.strip():
            raise SettingError(f"prompt of {place}", line.prompt, "some text", "Describe the image.")
        if (line.width is None) != (line.height is None):
            missing, other = ("width", "height") if line.width is None else ("height", "width")
            raise SettingError(f"{missing} of {place}", None, f"a number, as {other} is given")
        return line

    def changes(self) -> dict[str, Any]:
        """Return the fields of `GenerateArguments` that this line decides."""
        names = ("negative_prompt", "steps", "guidance", "solver", "cache", "init_image", "mask", "strength")
        names = (*names, "upscale", "upscale_strength", "model")
        values = {name: getattr(self, name) for name in names}
        values |= {
            "seed": None if self.seed is None else str(self.seed).removesuffix(".0"),  # of pandas
            "num_images_per_prompt": self.count,
            "lora": None if self.loras is None else _lora_texts(self.loras),
            "style": None if self.styles is None else _texts(self.styles),
        }
        values = {name: value for name, value in values.items() if value is not None}
        if any(getattr(self, name) is not None for name in SIZE_FIELDS):
            size = self.size or (None if self.width is None else f"{self.width}x{self.height}")
            values |= {"size": size, "width": None, "height": None, "aspect_ratio": self.aspect_ratio}
            values |= {"base_resolution": self.base_resolution, "width": None, "height": None}
        if self.reasoner is None:
            return values | {"prompts": [self.prompt.strip()]}
        record = ReasonerRecord(**self.reasoner.model_dump(include=set(ReasonerRecord.model_fields)))
        # The prompt was read before the reasoner saw it: brackets in it are the words of the reasoner.
        values |= {"original_prompt": self.original_prompt, "reasoner_record": record}
        return values | {"prompts": [escape(self.prompt.strip())]}


class PlacedLine(NamedTuple):
    """A line, and how messages name it; empty for the command's own arguments."""

    line: BatchLine
    place: str


def batch_lines(prompts: Sequence[str], from_file: Path | None, read_stdin: bool) -> list[PlacedLine]:
    """Return the lines of the arguments, then those of a file or stdin, in order.

    A line of text that is a JSON object with a `prompt` holds settings; any other one is a prompt.
    Raises: SettingError for what cannot be read, an empty prompt, or no prompt where one is needed.
    """
    suffix = from_file.suffix.lower() if from_file is not None else ""
    if from_file is None or suffix not in JSON_SUFFIXES + CSV_SUFFIXES:
        return [_line_of(text) for text in gather_prompts(prompts, from_file, read_stdin)]
    lines = [_line_of(text) for text in gather_prompts(prompts, None, read_stdin=False)]
    rows = _read_rows(from_file) if suffix in CSV_SUFFIXES else _read_objects(from_file)
    from_rows = [PlacedLine(BatchLine.read(values, place), place) for place, values in rows]
    if not from_rows:
        raise SettingError("--from-file", str(from_file), "at least one line of settings")
    return lines + from_rows


def _line_of(text: str) -> PlacedLine:
    if text.startswith("{"):
        try:
            values = parse_json(text)
        except TextError:
            values = None  # alternatives, such as {red|blue}
        if isinstance(values, dict) and "prompt" in values:
            place = f"the line {text[:40]}"
            return PlacedLine(BatchLine.read(values, place), place)
    return PlacedLine(BatchLine(prompt=text), "")


def _read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    return read_json_lines(path, "--from-file", "a file with a JSON object in each line")


def _read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cells of each row that are not empty, by the names in the first row.

    Spreadsheets add empty cells and rows, and some a first line `sep=;`.
    """
    text = read_text(path, "--from-file", "a CSV file with names in its first row")
    text = re.sub(r"\A\s*\"?sep=.\"?[^\n]*\n", "", text, flags=re.IGNORECASE)
    header = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise SettingError("--from-file", str(path), "a file in valid CSV", f"{error}.") from error
    rows = [_without_empty_end(row) for row in rows if any(cell.strip() for cell in row)]
    names = [name.strip().lower() for name in rows[0]] if rows else []
    if "prompt" not in names or len(set(names)) < len(names):
        needs = "a first row of distinct names, one of them prompt"
        raise SettingError("--from-file", str(path), needs, f"It begins with: {header[:60]}")
    for number, row in enumerate(rows[1:], 1):
        place = f"{path}, row {number}"
        if len(row) > len(names):
            raise SettingError("--from-file", place, f"at most {len(names)} cells, as many as names")
        yield place, {name: cell.strip() for name, cell in zip(names, row, strict=False) if cell.strip()}


def _without_empty_end(row: list[str]) -> list[str]:
    while not row[-1].strip():
        row = row[:-1]
    return row


def _lora_texts(loras: Sequence[LineLora | str] | str) -> list[str]:
    each = _texts(loras) if isinstance(loras, str) else loras
    return [lora if isinstance(lora, str) else f"{lora.path}:{lora.weight!r}" for lora in each]


def _texts(values: Sequence[str] | str) -> list[str]:
    if isinstance(values, str):
        return [text.strip() for text in values.split(";") if text.strip()]
    return list(values)
