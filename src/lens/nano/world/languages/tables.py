"""Tables of the languages, JSON files beside the modules, and a choice from a table."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

from lens.nano.world.languages.base import Frames

T = TypeVar("T")


@cache
def read_table(code: str) -> Any:
    """Return what `CODE.json` holds."""
    return json.loads(files("lens.nano.world.languages").joinpath(f"{code}.json").read_text(encoding="utf-8"))


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of the choices, each as likely."""
    return choices[int(rng.integers(len(choices)))]


def frames(code: str) -> Frames:
    """Return the sentence frames that `CODE.json` holds."""
    return Frames(**read_table(code)["frames"])
