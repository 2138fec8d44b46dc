"""Throughput rates of cost estimates and their sources, read from throughput.yaml and checked.

Knows nothing of stages.
"""

from datetime import date as Date
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.text_files import read_yaml

RATES_PATH = Path(__file__).with_name("throughput.yaml")
REQUIRED_FIELDS = {
    "measured": ("source", "date", "machine"),
    "published": ("source",),
    "assumed": ("measure",),
}
"""Fields that a rate needs, by its kind."""


class Rate(Settings):
    """One rate of an estimate."""

    value: float = Field(gt=0)
    unit: str
    kind: Literal["measured", "published", "assumed"]
    source: str = ""
    """The command that measures the rate, or the document that it was published in."""
    date: Date | None = None
    machine: str = ""
    measure: str = ""
    """How to measure an assumed rate."""

    @model_validator(mode="after")
    def _says_where_it_is_from(self) -> Self:
        missing = [name for name in REQUIRED_FIELDS[self.kind] if not getattr(self, name)]
        if missing:
            raise SettingError("kind", self.kind, f"{' and '.join(missing)} beside it")
        return self

    @property
    def origin(self) -> str:
        """Return the kind and the source of the rate."""
        if self.kind == "assumed":
            return f"assumed; to measure it: {self.measure}"
        parts = (self.source, str(self.date or ""), self.machine)
        return f"{self.kind}: {', '.join(filter(None, parts))}"


class RateLookup:
    """Looks rates up for one stage and remembers which were used."""

    def __init__(self, rates: dict[str, Rate]):
        self._rates, self.used_names = rates, dict[str, None]()

    def __call__(self, name: str) -> float:
        self.used_names[name] = None
        return self._rates[name].value


def read_rates(path: Path = RATES_PATH) -> dict[str, Rate]:
    """Return the rates of a file by name. Raises: SettingError for a rate without its source."""
    found = read_yaml(path, "rates")
    if not isinstance(found, dict):
        raise SettingError("rates", str(path), "a mapping of rates by name")
    return {name: Rate.of(values, f"{path.name}, {name}") for name, values in found.items()}
