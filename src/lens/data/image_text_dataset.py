"""Images with captions for training, from an image folder or from the shards of a build.

Knows nothing of encoders. Each image is scaled and cropped to its bucket, enlarged by 2% at most.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from pydantic import Field

from lens.config import Settings
from lens.data.buckets import MAX_CUT, best_fit, resize_and_crop
from lens.data.io.entry import EntryReadError, PassedOver, read_entry
from lens.data.io.image_decoding import ImageError, decode_image, sample_id
from lens.data.io.sample import is_sidecar, parse_sample
from lens.data.io.webdataset import read_shard
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.sources.passed_over import UNPACK, PassedOverCounter, is_archive, no_image_message
from lens.errors import SettingError

logger = logging.getLogger(__name__)

TRIGGER_MARK = "[trigger]"
"""Where the captions of ai-toolkit have the trigger."""


class ImageTextSettings(Settings):
    """Where images with captions come from, and the buckets that they fill."""

    folder: Path | None = None
    """Images at any depth, with their captions as in `source.kind` folder of a build."""
    allows_outside: bool = False
    """Whether links may lead out of `folder`; they could expose other files of this machine."""
    shards: Path | None = None
    """Folder of the .tar files of a build, instead of `folder`."""
    trigger: str = ""
    """Words that name a new concept: they stand for `[trigger]` in a caption, else before it, or alone."""
    bases: tuple[int, ...] = Field((512, 768, 1024), min_length=1)
    """Base resolutions of the buckets, nine aspect ratios each."""


class ImageTextSample(NamedTuple):
    """An image of the size of its bucket, and its caption."""

    id: str
    """SHA-256 of the original bytes."""
    caption: str
    image: Image.Image


class _Sample(NamedTuple):
    name: str
    """For messages."""
    id: str
    caption: str
    content: bytes


def image_text_samples(settings: ImageTextSettings) -> Iterator[ImageTextSample]:
    """Yield the images of a folder or of shards, in the order of their names.

    Images that are damaged, or too small for every bucket, are skipped with a warning.
    Raises: SettingError for both or neither source, an image without a caption, or where no image is left.
    """
    check_source(settings)
    setting, read_samples = ("folder", _folder_samples) if settings.folder else ("shards", _shard_samples)
    count = 0
    for sample in read_samples(settings):
        image = _decode_to_bucket(sample.name, sample.content, settings.bases)
        if image is not None:
            count += 1
            yield ImageTextSample(sample.id, _with_trigger(sample.caption, settings.trigger), image)
    if not count:
        needs = f"images of at least the size of a bucket of base {min(settings.bases)}"
        raise SettingError(f"data.{setting}", str(settings.folder or settings.shards), needs)


def check_source(settings: ImageTextSettings) -> None:
    """Check that exactly one source is set and that it exists, without reading it.

    Raises: SettingError for both or neither, a missing folder, or a folder of shards without a .tar file.
    """
    folder, shards = settings.folder, settings.shards
    if (folder is None) == (shards is None):
        raise SettingError("data", {"folder": folder, "shards": shards}, "one of folder and shards")
    if folder is not None and not folder.is_dir():
        fix = UNPACK if is_archive(folder) else ""
        raise SettingError("data.folder", str(folder), "a folder of images", fix)
    if shards is not None and not any(shards.glob("*.tar")):
        raise SettingError("data.shards", str(shards), "a folder of .tar files: `shards` of a build's view")


def _folder_samples(settings: ImageTextSettings) -> Iterator[_Sample]:
    root = settings.folder
    assert root is not None
    entries, counter = [], PassedOverCounter()
    for one in ImageFolderSource(path=root, allows_outside=settings.allows_outside).listing():
        if isinstance(one, PassedOver):
            counter.add(one)
        else:
            entries.append(one)
    if counter.counts():
        logger.info("%s: passed over are %s", root, "; ".join(map(str, counter.counts())))
    if not entries:
        raise SettingError(
            "data.folder", str(root), "images", no_image_message(counter.counts(), "data.allows_outside")
        )
    _check_captions(
        settings,
        broken=[f"{one.address}: {one.detail}" for one in entries if one.fault == "broken_caption"],
        missing=[one.address for one in entries if not one.caption and not one.fault],
        unfilled=[one.address for one in entries if TRIGGER_MARK in one.caption],
    )
    for entry in entries:
        try:
            content = read_entry(entry)
        except EntryReadError as error:
            logger.warning("%s is skipped: %s", entry.address, error)
            continue
        yield _Sample(entry.address, sample_id(content), entry.caption, content)


def _with_trigger(caption: str, trigger: str) -> str:
    if TRIGGER_MARK in caption:
        return caption.replace(TRIGGER_MARK, trigger)
    return ", ".join(filter(None, (trigger, caption)))


def _check_captions(
    settings: ImageTextSettings, broken: list[str], missing: list[str], unfilled: list[str]
) -> None:
    """Raise SettingError for captions that are broken, or that need a trigger where none is set."""
    is_folder = settings.folder is not None
    setting, source = ("data.folder", settings.folder) if is_folder else ("data.shards", settings.shards)
    if broken:
        raise SettingError(setting, str(source), f"captions that can be read. {_first_of(broken)}")
    if missing and not settings.trigger:
        where = "into .txt files beside them" if is_folder else "and build again"
        fix = f"Write their captions {where}, or set data.trigger."
        raise SettingError(setting, str(source), f"a caption for {_first_of(missing)}", fix)
    if unfilled and not settings.trigger:
        fix = f"It is put in place of {TRIGGER_MARK} in the captions of {_first_of(unfilled)}."
        raise SettingError("data.trigger", "", "the words that name the concept", fix)


def _first_of(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)} in all)"


def _shard_samples(settings: ImageTextSettings) -> Iterator[_Sample]:
    assert settings.shards is not None
    tars = sorted(settings.shards.glob("*.tar"))
    # All of them first, without their images: encoding takes hours, and would end at the first one missing.
    sidecars = {
        f"{tar.name}::{key}": parse_sample(files).sidecar
        for tar in tars
        for key, files in read_shard(tar, is_sidecar)
    }
    _check_captions(
        settings,
        broken=[f"{name}{one.fault}" for name, one in sidecars.items() if one.fault],
        missing=[name for name, one in sidecars.items() if not one.caption and not one.fault],
        unfilled=[name for name, one in sidecars.items() if TRIGGER_MARK in one.caption],
    )
    for tar in tars:
        for key, files in read_shard(tar):
            image, sidecar, facts = parse_sample(files)
            yield _Sample(f"{tar.name}::{key}", str(facts.get("id", key)), sidecar.caption, image)


def _decode_to_bucket(name: str, content: bytes, bases: tuple[int, ...]) -> Image.Image | None:
    try:
        image = decode_image(content).image
    except ImageError as error:
        logger.warning("%s is skipped: %s", name, error)
        return None
    fit = best_fit(image.height, image.width, bases)
    if fit is None:
        size = f"{image.width} x {image.height}"
        logger.warning("%s is skipped: %s is too small for every bucket of base %d", name, size, min(bases))
        return None
    if fit.crop_fraction > MAX_CUT:
        ratio = f"its bucket of {fit.ratio}"
        logger.warning("%s loses %.0f%% of its area to fit %s.", name, 100 * fit.crop_fraction, ratio)
    return resize_and_crop(image, fit)
