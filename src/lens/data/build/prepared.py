"""Prepared samples: the image and the facts of each sample that may stay, made where it is scored.

Scores and shards need the decoded image at different times; without these files it is decoded twice. They
are a cache, with a record for each entry of a part: a shard makes what it does not find there.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from lens.data.buckets import best_fit, fit_drop_reason, resize_and_crop
from lens.data.build.filters import KEPT, RULES, FilterSettings, drop_reasons
from lens.data.build.settings import BuildSettings, ShardSettings, digest
from lens.data.captions.settings import SidecarCaptionerSettings
from lens.data.io.entry import Entry
from lens.data.io.parquet import part_path
from lens.data.io.record_file import read_record, record_writer
from lens.data.io.webdataset import json_bytes

PILLOW_FORMAT = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
FACTS = "json"
"""Extension of the facts of a sample."""
PrepareFunction = Callable[[Entry, dict[str, Any], Image.Image | None], None]
"""Called with each entry of a part in their order, its row of scores, and its image if it has one."""


class Preparation(NamedTuple):
    """What is prepared of the images of a build, and where."""

    folder: Path
    shards: ShardSettings
    filters: FilterSettings
    requires_caption: bool
    """Whether a sample without a caption of its own is dropped."""

    @classmethod
    def of(cls, settings: BuildSettings) -> Self:
        """Return the preparation of a build; its folder is named after all that the files depend on."""
        name = f"{settings.inventory_id}-{digest(settings.shards.model_dump(mode='json'))}"
        captions = settings.captions
        requires_caption = isinstance(captions, SidecarCaptionerSettings) and captions.requires
        folder = prepared_root(settings.out) / name
        return cls(folder, settings.shards, settings.filters, requires_caption)

    def may_stay(self, entry: Entry, row: dict[str, Any]) -> bool:
        """Return whether nothing that is known of an image by itself drops it."""
        if self.requires_caption and not entry.caption:
            return False
        fit = best_fit(row["height_px"], row["width_px"], self.shards.bases)
        scores = {rule.score: np.array([row[rule.score]]) for rule in RULES if rule.score in row}
        is_kept = drop_reasons(scores, self.filters)[0] == KEPT
        return bool(is_kept) and not fit_drop_reason(fit, self.filters.max_cut)


def prepared_root(out: Path) -> Path:
    """Return the folder that holds all prepared samples of a build."""
    return out / "prepared"


@contextmanager
def sample_preparer(preparation: Preparation | None, number: int) -> Iterator[PrepareFunction]:
    """Yield a function that prepares the next entry of a part, or does nothing without a preparation."""
    if preparation is None:
        yield lambda entry, row, image: None
        return
    seen: set[str] = set()
    with record_writer(_path(preparation.folder, number), (preparation.shards.format, FACTS)) as add:

        def prepare(entry: Entry, row: dict[str, Any], image: Image.Image | None) -> None:
            is_new, name = row["id"] not in seen, row["id"]
            seen.add(name)
            if image is not None and is_new and preparation.may_stay(entry, row):
                add(image_files(entry, name, image, preparation.shards))
            else:
                add({})

        yield prepare


def read_prepared(folder: Path, row: dict[str, Any]) -> dict[str, bytes]:
    """Return the prepared files of a row of a view; empty where there are none."""
    files = read_record(_path(folder, row["part"]), row["row"])
    return files if files and json.loads(files[FACTS])["id"] == row["id"] else {}


def image_files(entry: Entry, name: str, image: Image.Image, settings: ShardSettings) -> dict[str, bytes]:
    """Return the image of a sample at the size of its bucket, and its facts, by extension."""
    fit = best_fit(image.height, image.width, settings.bases)
    assert fit is not None, name
    buffer = io.BytesIO()
    _save_image(resize_and_crop(image, fit), buffer, settings)
    facts = {
        "id": name,
        "address": entry.address,
        "licence": entry.licence,
        "base": fit.base,
        "ratio": fit.ratio,
        "height_px": image.height,
        "width_px": image.width,
        "cut": round(fit.crop_fraction, 6),
    }
    return {settings.format: buffer.getvalue(), FACTS: json_bytes(facts)}


def _path(folder: Path, number: int) -> Path:
    return part_path(folder, number).with_suffix(".arrow")


def _save_image(image: Image.Image, buffer: io.BytesIO, settings: ShardSettings) -> None:
    options = {
        "jpg": {"quality": settings.quality, "subsampling": 0, "optimize": False},
        "webp": {"quality": settings.quality, "method": 4},
        "png": {"compress_level": 6},
    }[settings.format]
    image.save(buffer, PILLOW_FORMAT[settings.format], **options)
