"""What a person types, turned into values or into an error that says what to type instead.

Knows the command line's forms (`832x1248`, `style.safetensors:0.8`, one prompt a line); loads no torch.
"""

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from lens.errors import SettingError

DEFAULT_MODEL = "lens-nano"


class ImageFormat(StrEnum):
    """The file formats that pictures are written in."""

    PNG = "png"
    JPG = "jpg"
    WEBP = "webp"


class DtypeName(StrEnum):
    """The number formats of weights and arithmetic."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class OffloadMode(StrEnum):
    """What waits in main memory while another part computes."""

    NONE = "none"
    MODEL = "model"
    GROUP = "group"


class QuantizeFormat(StrEnum):
    """The formats that weights can be squeezed into while loading."""

    NONE = "none"
    INT8 = "int8"
    FLOAT8 = "float8"


class SolverName(StrEnum):
    """The ways to take steps."""

    EULER = "euler"
    AB2 = "ab2"


class LoraArgument(NamedTuple):
    """A LoRA file and the weight to apply it with."""

    path: Path
    weight: float


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of a size written WIDTHxHEIGHT."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX*]\s*(\d+)\s*", text)
    if not match:
        raise SettingError("--size", text, "the form WIDTHxHEIGHT in pixels", "For example --size 1248x832.")
    return int(match[1]), int(match[2])


def parse_lora(text: str) -> LoraArgument:
    """Return path and weight of a LoRA written PATH or PATH:WEIGHT.

    A colon that belongs to the path (C:\\, or a file of that very name) is kept.
    """
    head, colon, tail = text.rpartition(":")
    path, weight = Path(text), 1.0
    if colon and head and not path.exists() and not re.fullmatch(r"[A-Za-z]", head):
        try:
            path, weight = Path(head), float(tail)
        except ValueError as error:
            form = "a path, or PATH:WEIGHT with a number as the weight"
            raise SettingError("--lora", text, form, f"For example --lora {head}:0.8.") from error
    if not abs(weight) < 100:
        raise SettingError("--lora", text, "a weight between -100 and 100", "Usual weights are 0.5 to 1.2.")
    if not path.exists():
        raise SettingError("--lora", str(path), "a LoRA file that exists", "Check the path.")
    return LoraArgument(path, weight)


def gather_prompts(arguments: Sequence[str], from_file: Path | None, read_stdin: bool) -> list[str]:
    """Return the prompts of the arguments, then of a file, one a line; `-` stands for lines on stdin.

    Where nothing is given and `read_stdin` is true, stdin is read when it is a pipe or a file.
    Raises: SettingError for an empty prompt, and where no prompt is left at all.
    """
    prompts: list[str] = []
    for argument in arguments:
        if argument == "-":
            prompts += _non_empty_lines(_read_stdin())
        elif not argument.strip():
            raise SettingError("the prompt", argument, "words", "Say what the picture shows, in quotes.")
        else:
            prompts.append(argument.strip())
    if from_file is not None:
        prompts += _non_empty_lines(_read_text(from_file))
    has_no_prompts = not arguments and from_file is None
    if has_no_prompts and read_stdin and not sys.stdin.isatty():
        prompts += _non_empty_lines(_read_stdin())
    if not prompts and not (has_no_prompts and not read_stdin):
        fix = 'Give one as an argument (lens generate "a red apple"), a line of --from-file, or on stdin.'
        raise SettingError("the prompt", "", "words", fix)
    return prompts


def check_number(name: str, value: float, low: float, high: float, fix: str = "") -> None:
    """Raise a SettingError unless low <= value <= high."""
    if not low <= value <= high:
        raise SettingError(name, value, f"a number from {low:g} to {high:g}", fix)


def _non_empty_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise SettingError("stdin", "bytes", "text in UTF-8, one prompt a line") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError("--from-file", str(path), "a text file in UTF-8, one prompt a line") from error
    except OSError as error:
        needs = "a text file that can be read, one prompt a line"
        raise SettingError("--from-file", str(path), needs, f"{error.strerror}.") from error
