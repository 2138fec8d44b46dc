"""Settings that another tool recorded in an image, as far as Lens has the same ones; the rest by name.

Knows nothing of files or of the forms that tools write; the modules beside it do.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from lens.core.noise import MAX_SEED
from lens.core.resolution import SIDE_STEP_PX

MAX_STEPS, MAX_GUIDANCE, MAX_SIDE_PX = 1000, 100.0, 16384
MAX_VALUE_CHARACTERS, MAX_NAMED = 80, 40
"""What a note repeats of a value that is not taken over, and how many it names."""
NETWORK_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)
"""A file of weights that a prompt names, as in `<lora:ink:0.8>`."""
NumberT = TypeVar("NumberT", int, float)


@dataclass(frozen=True)
class ForeignSettings:
    """The settings of an image that another tool generated; None for what it does not say."""

    tool: str
    prompt: str = ""
    negative_prompt: str = ""
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    left_out: tuple[str, ...] = ()
    """Each setting that Lens does not take over, with its value."""

    @classmethod
    def of(cls, tool: str, values: Mapping[str, Any], others: Iterable[tuple[str, Any]] = ()) -> Self:
        """Return settings from the values of a file, which may be of any type and in any range.

        `others` are settings that Lens does not have. A value that cannot be used is left out by name.
        """
        left_out = []
        texts = {}
        for name in ("prompt", "negative_prompt"):
            text = values.get(name)
            text = text if isinstance(text, str) else ""
            left_out += [shortened(tag) for tag in NETWORK_TAG.findall(text)]
            texts[name] = _without_tags(text)

        def number(name: str, kind: Callable[[Any], NumberT], low: float, high: float) -> NumberT | None:
            value = values.get(name)
            if value is None:
                return None
            found = _number(value, kind)
            if found is None or not low <= found <= high:
                left_out.append(f"{name} {shortened(value)} (Lens takes {low:.17g} to {high:.17g})")
                return None
            return found

        seed = number("seed", int, 0, MAX_SEED)
        width = number("width", int, 1, MAX_SIDE_PX)
        height = number("height", int, 1, MAX_SIDE_PX)
        if width is None or height is None:
            width = height = None
        elif width % SIDE_STEP_PX or height % SIDE_STEP_PX:
            given = f"{width}x{height}"
            width, height = _nearest_side(width), _nearest_side(height)
            left_out.append(f"size {given} ({width}x{height} instead, multiples of {SIDE_STEP_PX})")
        steps = number("steps", int, 1, MAX_STEPS)
        guidance = number("guidance", float, 0.0, MAX_GUIDANCE)
        left_out += [f"{shortened(name)} {shortened(value)}".strip() for name, value in others]
        return cls(tool, **texts, seed=seed, width=width, height=height, steps=steps, guidance=guidance,
                   left_out=tuple(dict.fromkeys(left_out)))  # fmt: skip

    @property
    def size(self) -> str | None:
        """Width x height, or None."""
        return None if self.width is None else f"{self.width}x{self.height}"

    @property
    def summary(self) -> str:
        """Which settings are taken over, and which are not, in two sentences."""
        ours = ("prompt", "negative_prompt", "seed", "size", "steps", "guidance")
        taken = [name.replace("_", " ") for name in ours if getattr(self, name) not in (None, "")]
        sentences = [f"Taken over from {self.tool}: {', '.join(taken) or 'nothing'}."]
        if self.left_out:
            more = len(self.left_out) - MAX_NAMED
            names = [*self.left_out[:MAX_NAMED], *([f"and {more} more"] if more > 0 else [])]
            sentences.append(f"Not taken over: {', '.join(names)}.")
        return " ".join(sentences)


def _without_tags(text: str) -> str:
    """Return a prompt without the files of weights in it, and without the commas between them."""
    first, *others = NETWORK_TAG.split(text)
    for other in others:
        first, other = first.rstrip(), other.lstrip()
        first = f"{first} {other.lstrip(', ') if first.endswith(',') else other}".strip()
    return first.strip().rstrip(",") if others else first.strip()


def _number(value: Any, kind: Callable[[Any], NumberT]) -> NumberT | None:
    """Return a number of a file, which may be written as text; None if it is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    for read in (kind, float):  # a whole number may be written as 20.0
        try:
            number = read(value)
            found = kind(number)
        except (ValueError, OverflowError):
            continue
        is_exact = math.isfinite(found) and (isinstance(value, str) or number == value)
        return found if is_exact and found == number else None
    return None


def _nearest_side(side: int) -> int:
    return max(SIDE_STEP_PX, int(side / SIDE_STEP_PX + 0.5) * SIDE_STEP_PX)


def shortened(value: Any) -> str:
    """Return a value of a file as one line of bounded length, without control characters."""
    try:
        text = str(value)
    except (RecursionError, ValueError):  # a list in a list in ...; a number of thousands of digits
        text = "..."
    text = "".join(one if one.isprintable() else " " for one in text[: 2 * MAX_VALUE_CHARACTERS]).strip()
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}..."
