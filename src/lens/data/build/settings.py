"""Settings of a build: what goes in, what is measured, what stays, what comes out."""

import hashlib
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

PIXEL_SCORES = {"area_px", "clarity", "entropy", "luminance"}
NO_MODEL_THRESHOLDS: dict[str, Any] = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None}


class DedupSettings(Settings):
    max_hash_bits: int | None = Field(4, ge=0, le=64)
    """Near duplicates have perceptual hashes that differ in so many bits or fewer; None looks for none."""
    min_cosine: float | None = Field(None, gt=0, le=1)
    """And embeddings with a larger cosine (0.985 in the paper); needs a scorer that gives embeddings."""
    licences: tuple[str, ...] = ()
    """Beginnings of licences, the best first: which of two copies alike in size and looks stays."""


class ShardSettings(Settings):
    bases: tuple[int, ...] = (512, 768, 1024)
    """Base resolutions; each brings its nine aspect ratios."""
    samples_per_shard: int = Field(1000, gt=0)
    format: Literal["jpg", "png", "webp"] = "jpg"
    quality: int = Field(95, ge=1, le=100)
    """Of JPEG and WebP."""


class BuildSettings(Settings):
    out: Path
    """Folder of the build; the same command goes on with whatever is in it."""
    source: AnySource | None = None
    """Where pictures come from."""
    sources: tuple[AnySource, ...] = ()
    """Further ones, in this order."""
    part_size: int = Field(256, gt=0)
    """Pictures that are measured as one piece of work; a kill loses no more than one of them a worker."""
    scorers: tuple[AnyScorerSettings, ...] = ()
    """What is measured with models, beside the scores that need none."""
    withdrawn: Path | None = None
    """File with ids of samples that must not be used any more, one a line."""
    held_out: Path | None = None
    """Folder of pictures that models are measured with; what is like one of them falls."""
    captions: AnyCaptionerSettings = Field(default_factory=lambda: SidecarCaptionerSettings.of({}))
    """Where captions come from."""
    filters: FilterSettings = Field(default_factory=lambda: FilterSettings.of(NO_MODEL_THRESHOLDS))
    duplicates: DedupSettings = Field(default_factory=lambda: DedupSettings.of({}))
    shards: ShardSettings = Field(default_factory=lambda: ShardSettings.of({}))
    ray_address: str | None = None
    """Of a Ray cluster that runs already; None starts Ray on this machine for the length of the build."""
    num_workers: int | None = Field(None, gt=0)
    """Processes at once; None takes all cores. What comes out does not depend on it."""

    gpus_per_worker: float | None = Field(None, ge=0)
    """GPUs, or a share of one, that each worker takes while it scores.

    None takes one where there are any and a scorer has weights to put on it.
    """

    @model_validator(mode="after")
    def _has_a_source_and_scores(self) -> Self:
        if not self.all_sources:
            fix = "Say --set source.path=FOLDER."
            raise SettingError("source", None, "a place to take pictures from", fix)
        check_columns(self.scorers)
        given = {name for scorer in self.scorers for name in scorer.columns}
        missing = sorted(self.filters.scores - PIXEL_SCORES - given)
        if missing:
            needs, fix = "scores that this build computes", "Add scorers that do, or set these to null."
            raise SettingError("filters", ", ".join(missing), needs, fix)
        if self.duplicates.min_cosine is not None and "embedding" not in given:
            needs = "null, for no scorer of this build gives embeddings"
            raise SettingError("duplicates.min_cosine", self.duplicates.min_cosine, needs)
        return self

    @property
    def all_sources(self) -> tuple[AnySource, ...]:
        return ((self.source,) if self.source else ()) + self.sources

    @property
    def inventory_id(self) -> str:
        """Return a hash of what decides which entries there are, and in which parts."""
        return _digest([[one.model_dump(mode="json") for one in self.all_sources], self.part_size])

    @property
    def view_id(self) -> str:
        """Return a hash of what decides which samples stay and how they are packed, scorers' versions too."""
        parts = (self.filters, self.duplicates, self.captions, self.shards)
        withdrawn = self.withdrawn.read_text() if self.withdrawn and self.withdrawn.is_file() else ""
        facts = [
            self.inventory_id, pixel_stats.VERSION, scorer_versions(self.scorers), withdrawn,
            str(self.held_out or ""), *(part.model_dump(mode="json") for part in parts),
        ]  # fmt: skip
        return _digest(facts)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json_bytes({"facts": facts})).hexdigest()[:12]
