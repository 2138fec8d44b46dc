"""The protocol of scorers: images in, a row of named scores each, and a version of their meaning.

Settings choose the scorers of a build. They know their columns without a model, and a scorer loads its model
when it first scores, so columns and versions are cheap.
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
    """Computes scores of images."""

    name: str
    """The kind of its settings."""
    version: str
    """Changes whenever the same image may get another score: with our code, a package or weights."""
    columns: Mapping[str, str]
    """Type by column; `list` holds strings and `float32_list` an embedding."""

    def score(self, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """Return a row for each RGB image; it does not depend on the other images."""
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
    """Return the scorer of these settings, the same one for equal settings: models are loaded once a process.

    Raises: LensError for a missing package or model.
    """
    return settings.create_scorer()


def scorer_versions(scorers: Sequence[ScorerSettings]) -> list[str]:
    """Return the version of each scorer; this loads no model."""
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
                raise SettingError("scorers", kinds, needs, "Remove one of them.")
            owner[column] = one.kind


def version_hash(*facts: Any) -> str:
    """Return a short hash of all that the scores of a scorer depend on."""
    return hashlib.sha256(json_bytes({"facts": facts})).hexdigest()[:12]


def package_versions(scorer: str, *packages: str) -> dict[str, str]:
    """Return the installed version of each package.

    Raises: MissingExtraError; `scorer` is the name of the scorer that needs them.
    """
    try:
        return {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        raise MissingExtraError(f"The scorer {scorer}", error.name, "data") from error
