"""Options that several commands share, and the parsers of option values.

Parsers return a value or raise an error that shows the accepted form (`832x1248`, `style.safetensors:0.8`).
Loads no torch.
"""

import os.path
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, get_origin, get_type_hints

import typer

from lens.core.step_caches import CACHE_NAMES, NO_CACHE
from lens.errors import MissingExtraError, SettingError
from lens.sampling.defaults import MAX_UPSCALE
from lens.sampling.solvers import SOLVERS
from lens.text_files import TextError, check_text, decode_text, read_text

DEFAULT_MODEL = "lens-nano"
GPU_DRIVER_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
"""What the drivers of NVIDIA, of WSL and of ROCm have on Linux."""
PROMPT_LINES = "a text in UTF-8, one prompt per line"

ImageFormat = Literal["png", "jpg", "webp"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
OffloadMode = Literal["none", "model", "group"]
TextCacheOption = Literal["auto", "on", "off"]
QuantizeFormat = Literal["none", "int8", "float8"]
if TYPE_CHECKING:
    CacheName = SolverName = str
else:
    CacheName = Literal[NO_CACHE, *CACHE_NAMES]
    SolverName = Literal[tuple(SOLVERS)]

AsJson = Annotated[bool, typer.Option("--json", help="Print results as JSON, one object per line.")]
Recipe = Annotated[Path, typer.Argument(help="Recipe: a YAML file, see recipes/.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one setting; repeat for more.", show_default=False
    ),
]

ArgumentsT = TypeVar("ArgumentsT")


class LoraArgument(NamedTuple):
    """A LoRA file and its weight."""

    path: Path
    weight: float


def command_of(
    arguments_class: type[ArgumentsT],
) -> Callable[[Callable[[ArgumentsT], None]], Callable[..., None]]:
    """Return a decorator that makes a command of a function whose one argument is a dataclass.

    Each field of the dataclass that is annotated with a typer option or argument becomes one.
    """
    hints = get_type_hints(arguments_class, include_extras=True)
    parameters = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(arguments_class)  # type: ignore[arg-type]
        if get_origin(hints[field.name]) is Annotated
    ]

    def decorate(function: Callable[[ArgumentsT], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(arguments_class(**values))

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def parse_size(text: str) -> tuple[int, int]:
    """Return the (width, height) of a size in the form WIDTHxHEIGHT."""
    match = re.fullmatch(r"\s*(\d+)\s*[xX*\u00d7]\s*(\d+)\s*", text)
    if not match:
        raise SettingError("--size", text, "the form WIDTHxHEIGHT in pixels", "For example --size 1248x832.")
    return int(match[1]), int(match[2])


def parse_lora(text: str) -> LoraArgument:
    """Return the path and weight of a LoRA in the form PATH or PATH:WEIGHT.

    A colon that is part of the path stays there: a drive letter, or the name of an existing file.
    """
    if not text.strip():
        raise SettingError("--lora", text, "the path of a LoRA file", "Omit it to draw without one.")
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
    """Return the prompts of the arguments, then those of a file, one per line; `-` reads lines from stdin.

    Without arguments and file, stdin is read if `read_stdin` is true and it is a pipe or a file.
    Raises: SettingError for an empty prompt, or if there is no prompt at all and `read_stdin` is true.
    """
    prompts: list[str] = []
    for argument in arguments:
        if argument == "-":
            prompts += _non_empty_lines(_read_stdin())
        elif not argument.strip():
            raise SettingError("the prompt", argument, "some text", "Describe the image, in quotes.")
        else:
            prompts.append(argument.strip())
    if from_file is not None:
        prompts += _non_empty_lines(read_text(from_file, "--from-file", PROMPT_LINES))
    has_no_prompts = not arguments and from_file is None
    if has_no_prompts and read_stdin and not sys.stdin.isatty():
        prompts += _non_empty_lines(_read_stdin())
    if not prompts and not (has_no_prompts and not read_stdin):
        fix = 'Pass it as an argument (lens generate "a red apple"), in --from-file, or on stdin.'
        raise SettingError("the prompt", "", "some text", fix)
    return prompts


def check_device(device: str | None, offload: str, quantization: str | None) -> None:
    """Raise an error for a device, or what needs one, that cannot be here; torch is not loaded for it."""
    if device is not None:
        kind, _, index = device.partition(":")
        has_driver = {"cpu": True, "mps": sys.platform == "darwin", "cuda": _has_gpu_driver()}
        if kind not in has_driver or (index and not (kind == "cuda" and index.isdigit())):
            raise SettingError("--device", device, "one of cpu, cuda, cuda:1 or mps")
        if not has_driver[kind]:
            here = ", ".join(name for name, is_here in has_driver.items() if is_here)
            raise SettingError("--device", device, f"one of {here}", f"This machine has no {kind}.")
        if offload != "none" and kind != "cuda":
            raise SettingError("--offload", offload, "a CUDA device", f"Omit it on {device}; see --memory.")
    if quantization is not None and find_spec("torchao") is None:
        raise MissingExtraError("--quantize", "torchao", "quantize")


def _has_gpu_driver() -> bool:
    return sys.platform != "linux" or any(map(os.path.exists, GPU_DRIVER_FILES))


def check_number(name: str, value: float, low: float, high: float, fix: str = "") -> None:
    """Raise a SettingError unless low <= value <= high."""
    if not low <= value <= high:
        raise SettingError(name, value, f"a number from {low:g} to {high:g}", fix)


def check_upscale(factor: float | None, strength: float | None, has_mask: bool) -> None:
    """Raise a SettingError for an --upscale or --upscale-strength that is out of range or does not fit."""
    if factor is not None and not 1 < factor <= MAX_UPSCALE:
        raise SettingError("--upscale", factor, f"a number above 1, at most {MAX_UPSCALE}")
    if factor is not None and has_mask:
        raise SettingError("--upscale", factor, "to be given without --mask", "Upscale the result.")
    check_strength("--upscale-strength", strength)


def check_strength(name: str, strength: float | None) -> None:
    """Raise a SettingError for a share of noise that is out of range."""
    if strength is not None and not 0 < strength <= 1:
        fix = "1 redraws everything, 0.3 changes little."
        raise SettingError(name, strength, "a number above 0, at most 1", fix)


def _non_empty_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_stdin() -> str:
    stream = getattr(sys.stdin, "buffer", None)
    try:
        return check_text(sys.stdin.read()) if stream is None else decode_text(stream.read())
    except TextError as error:
        raise SettingError("stdin", "bytes", PROMPT_LINES, f"It {error}.") from error
