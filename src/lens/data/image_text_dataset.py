"""Pictures with captions, ready to be encoded for training: a plain folder, or the shards of a build.

Knows nothing of encoders. Each picture is cut to the bucket that it fills without being enlarged.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from pydantic import Field

from lens.config import Settings
from lens.data.buckets import BucketFit, best_fit, resize_and_crop
from lens.data.io.entry import Entry, read_entry
from lens.data.io.image_decoding import ImageError, decode_image, sample_id
from lens.data.io.webdataset import read_shard
from lens.data.sources.image_folder import ImageFolderSource, image_folder_entries
from lens.errors import SettingError

logger = logging.getLogger(__name__)


class ImageTextSettings(Settings):
    folder: Path | None = None
    """Pictures at any depth, each with its caption in the .txt or .json file of the same name."""
    shards: Path | None = None
    """Folder of a build's tars, in the place of `folder`."""
    trigger: str = ""
    """Words put before every caption, by which the new thing is called; alone, they are a caption."""
    bases: tuple[int, ...] = Field((512, 768, 1024), min_length=1)
    """Base resolutions of the buckets, nine ratios each."""


class ImageTextSample(NamedTuple):
    """A picture that fills its bucket, and its words."""

    id: str
    """SHA-256 of the original bytes."""
    caption: str
    image: Image.Image


def image_text_samples(settings: ImageTextSettings) -> Iterator[ImageTextSample]:
    """Yield the pictures of a folder or of shards, in the order of their names.

    What is damaged, or too small for every bucket, is named in a warning and left out.
    Raises: SettingError for both or neither source, a picture without any words, and where none is left.
    """
    check_source(settings)
    name, source = ("folder", settings.folder) if settings.folder is not None else ("shards", settings.shards)
    assert source is not None
    count = 0
    for one in (_folder_samples if name == "folder" else _shard_samples)(settings, source):
        count += 1
        yield one
    if not count:
        needs = f"pictures of at least the size of a bucket of base {min(settings.bases)}"
        raise SettingError(f"data.{name}", str(source), needs)


def check_source(settings: ImageTextSettings) -> None:
    """Look whether there is a source, without reading it.

    Raises: SettingError for both or neither, a folder that is none, or one of shards without any.
    """
    folder, shards = settings.folder, settings.shards
    if (folder is None) == (shards is None):
        raise SettingError("data", {"folder": folder, "shards": shards}, "one of folder and shards")
    if folder is not None and not folder.is_dir():
        raise SettingError("data.folder", str(folder), "a folder of pictures")
    if shards is not None and not any(shards.glob("*.tar")):
        raise SettingError("data.shards", str(shards), "a folder of .tar files, as a build leaves in shards")


def _folder_samples(settings: ImageTextSettings, root: Path) -> Iterator[ImageTextSample]:
    listed = list(image_folder_entries(ImageFolderSource(path=root)))
    without_caption = [entry.address for entry in listed if not entry.caption]
    if without_caption and not settings.trigger:
        fix = "Write their captions into .txt files beside them, or set data.trigger."
        named = ", ".join(without_caption[:3]) + (", ..." if len(without_caption) > 3 else "")
        raise SettingError(
            "data.folder", str(root), f"a caption for {named} ({len(without_caption)} in all)", fix
        )
    for entry in listed:
        if (found := _load_entry(entry, settings.bases)) is not None:
            yield ImageTextSample(found[0], _caption_with_trigger(settings.trigger, entry.caption), found[1])


def _shard_samples(settings: ImageTextSettings, folder: Path) -> Iterator[ImageTextSample]:
    for tar in sorted(folder.glob("*.tar")):
        for key, files in read_shard(tar):
            content = next((files[kind] for kind in ("jpg", "png", "webp") if kind in files), b"")
            words = _caption_with_trigger(
                settings.trigger, files.get("txt", b"").decode(errors="replace").strip()
            )
            if not words:
                raise SettingError("data.shards", str(tar), f"a caption for {key}", "Set data.trigger.")
            image = _decode_to_bucket(f"{tar.name}::{key}", content, settings.bases)
            if image is not None:
                yield ImageTextSample(json.loads(files.get("json", b"{}")).get("id", key), words, image)


def _caption_with_trigger(trigger: str, caption: str) -> str:
    return ", ".join(filter(None, (trigger, caption)))


def _load_entry(entry: Entry, bases: tuple[int, ...]) -> tuple[str, Image.Image] | None:
    content = read_entry(entry)
    image = _decode_to_bucket(entry.address, content, bases)
    return None if image is None else (sample_id(content), image)


def _decode_to_bucket(name: str, content: bytes, bases: tuple[int, ...]) -> Image.Image | None:
    try:
        image = decode_image(content).image
    except ImageError as error:
        logger.warning("%s is left out: %s", name, error)
        return None
    fit: BucketFit | None = best_fit(image.height, image.width, bases)
    if fit is None:
        logger.warning(
            "%s is left out: %d x %d is too small for every bucket of base %d",
            name, image.width, image.height, min(bases),
        )  # fmt: skip
        return None
    return resize_and_crop(image, fit)
