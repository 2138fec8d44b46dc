"""Settings of a build: sources, scorers, filters, captions and shards."""

import hashlib
import os.path
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.data.build.filters import FilterSettings
from lens.data.captions.settings import AnyCaptionerSettings, SidecarCaptionerSettings
from lens.data.io.webdataset import json_bytes
from lens.data.scorers import pixel_stats
from lens.data.scorers.base import check_columns, scorer_versions
from lens.data.scorers.registry import AnyScorerSettings
from lens.data.sources.registry import AnySource
from lens.errors import SettingError
from lens.files import check_writable

INVENTORY_VERSION = 2
"""Change it with the columns of an inventory, or with what sources list."""
PIXEL_SCORES = {"area_px", *pixel_stats.PixelScores._fields}
"""Scores that every build computes."""
NO_MODEL_THRESHOLDS: dict[str, Any] = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None}


class DedupSettings(Settings):
    """Near duplicates, of which one is kept."""

    max_hash_bits: int | None = Field(4, ge=0, le=64)
    """Near duplicates have perceptual hashes that differ in at most this many bits; None does not compare."""
    min_cosine: float | None = Field(None, gt=0, le=1)
    """Near duplicates have embeddings with a larger cosine (paper: 0.985); needs the scorer `embedding`."""
    licences: tuple[str, ...] = ()
    """Beginnings of licences, the best first; decides between copies of equal size and aesthetics."""


class ShardSettings(Settings):
    """Shards: sizes and format of the images in them."""

    bases: tuple[int, ...] = (512, 768, 1024)
    """Base resolutions of the buckets, nine aspect ratios each."""
    samples_per_shard: int = Field(1000, gt=0)
    format: Literal["jpg", "png", "webp"] = "jpg"
    quality: int = Field(95, ge=1, le=100)
    """Quality of JPEG and WebP."""


class BuildSettings(Settings):
    """A whole build."""

    out: Path
    """Folder of the build; the same command resumes what is in it."""
    source: AnySource | None = None
    """The source of the images."""
    sources: tuple[AnySource, ...] = ()
    """Further sources, in this order."""
    part_size: int = Field(64, gt=0)
    """Images that are scored as one piece of work; a kill loses at most one piece a worker."""
    scorers: tuple[AnyScorerSettings, ...] = ()
    """Scorers with models; scores without a model are always computed."""
    withdrawn: Path | None = None
    """File with the ids of withdrawn samples, one a line."""
    held_out: Path | None = None
    """Folder of evaluation images; samples close to one of them are dropped (decontamination)."""
    captions: AnyCaptionerSettings = Field(default_factory=lambda: SidecarCaptionerSettings.of({}))
    """The source of the captions."""
    filters: FilterSettings = Field(default_factory=lambda: FilterSettings.of(NO_MODEL_THRESHOLDS))
    duplicates: DedupSettings = Field(default_factory=lambda: DedupSettings.of({}))
    shards: ShardSettings = Field(default_factory=lambda: ShardSettings.of({}))
    ray_address: str | None = None
    """Address of a running Ray cluster; None builds on this machine, by a Ray of its own where the build is
    large or uses GPUs."""
    num_workers: int | None = Field(None, gt=0)
    """Worker processes; None uses all cores. The result does not depend on it."""

    gpus_per_worker: float | None = Field(None, ge=0)
    """GPUs, or a share of one, of each worker while it scores.

    None means one where the cluster has GPUs and a scorer can use them.
    """

    @model_validator(mode="after")
    def _has_a_source_and_scores(self) -> Self:
        if not self.all_sources:
            fix = "Pass --set source.path=FOLDER."
            raise SettingError("source", None, "a source of images", fix)
        check_columns(self.scorers)
        given = {name for scorer in self.scorers for name in scorer.columns}
        missing = sorted(self.filters.scores - PIXEL_SCORES - given)
        if missing:
            fix = "Add scorers that do, or set these thresholds to null."
            raise SettingError("filters", ", ".join(missing), "scores that this build computes", fix)
        if self.duplicates.min_cosine is not None and "embedding" not in given:
            needs = "null, for no scorer of this build computes embeddings"
            raise SettingError("duplicates.min_cosine", self.duplicates.min_cosine, needs)
        return self

    def check_inputs(self) -> None:
        """Check what the build reads beside its sources, and where it writes.

        Raises: SettingError.
        """
        for name, path, is_there in (
            ("withdrawn", self.withdrawn, os.path.isfile),
            ("held_out", self.held_out, os.path.isdir),
        ):
            if path is not None and not is_there(path):
                kind = "file" if name == "withdrawn" else "folder"
                raise SettingError(name, str(path), f"a {kind} that exists", "Check the path.")
        check_writable(self.out, "out")

    @property
    def all_sources(self) -> tuple[AnySource, ...]:
        """Return `source` and `sources` together."""
        return ((self.source,) if self.source else ()) + self.sources

    @property
    def inventory_id(self) -> str:
        """Return a hash of the settings that decide the entries and their parts."""
        sources = [one.model_dump(mode="json") for one in self.all_sources]
        return digest([sources, self.part_size, INVENTORY_VERSION])

    @property
    def view_id(self) -> str:
        """Return a hash of all that decides which samples are kept and how shards are written."""
        parts = (self.filters, self.duplicates, self.captions, self.shards)
        listed = self.withdrawn.read_bytes() if self.withdrawn and self.withdrawn.is_file() else b""
        withdrawn = listed.decode(errors="backslashreplace")
        facts = [
            self.inventory_id, pixel_stats.VERSION, scorer_versions(self.scorers), withdrawn,
            str(self.held_out or ""), *(part.model_dump(mode="json") for part in parts),
        ]  # fmt: skip
        return digest(facts)


def digest(facts: Any) -> str:
    """Return a short hash of settings."""
    return hashlib.sha256(json_bytes({"facts": facts})).hexdigest()[:12]
