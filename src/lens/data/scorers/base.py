"""What a scorer is: pictures in, one row of named numbers each, and a version that says what they mean.

Settings say which scorers a build asks; they know their columns without any model, and a scorer reads its
model when it scores first. So whoever only needs columns and versions pays for neither.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from PIL import Image

from lens.config import Settings
from lens.data.io.webdataset import json_bytes
from lens.errors import MissingExtraError, SettingError


class Scorer(Protocol):
    name: str
    """The kind of its settings."""
    version: str
    """Another one whenever the same picture may get another number: by our code, a package or weights."""
    columns: Mapping[str, str]
    """Type by column, as tables name them; `list` holds strings and `float32_list` an embedding."""

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """Return a row for each RGB picture; it does not depend on the other pictures."""
        ...


class ScorerSettings(Settings):
    """Base of the settings of all scorers; each adds its `kind`."""

    kind: str

    @property
    def columns(self) -> dict[str, str]:
        """Return the type of each column that the scorer fills."""
        raise NotImplementedError

    def __hash__(self) -> int:
        return hash((self.kind, self.model_dump_json()))

    def create_scorer(self) -> Scorer:
        """Return a new scorer; `load_scorer` keeps one for the process."""
        raise NotImplementedError


@functools.cache
def load_scorer(settings: ScorerSettings) -> Scorer:
    """Return the scorer of these settings, the same one for equal settings: models are read once a process.

    Raises: LensError for a package or a model that is not there.
    """
    return settings.create_scorer()


def scorer_versions(scorers: Sequence[ScorerSettings]) -> list[str]:
    """Return the version of each scorer; no model is read for it."""
    return [load_scorer(one).version for one in scorers]


def check_columns(scorers: Sequence[ScorerSettings]) -> None:
    """Check that no two scorers fill the same column.

    Raises: SettingError that names the column and both scorers.
    """
    owner: dict[str, str] = {}
    for one in scorers:
        for column in one.columns:
            if column in owner:
                needs = f"one scorer for the column {column}, which {owner[column]} and {one.kind} both fill"
                kinds = [each.kind for each in scorers]
                raise SettingError("scorers", kinds, needs, "Leave one of them out.")
            owner[column] = one.kind


def version_hash(*facts: Any) -> str:
    """Return a short hash of all that a scorer's numbers depend on."""
    return hashlib.sha256(json_bytes({"facts": facts})).hexdigest()[:12]


def package_versions(scorer: str, *packages: str) -> dict[str, str]:
    """Return the installed version of each package.

    Raises: MissingExtraError; `scorer` is the name of the scorer that needs them.
    """
    try:
        return {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        raise MissingExtraError(f"The scorer {scorer}", error.name, "data") from error
