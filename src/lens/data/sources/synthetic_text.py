"""Pictures of text that are drawn on demand, with captions that are exactly true; nothing is stored.

A picture depends on the settings, on what lies in the folders that they name, and on its index, nothing else:
the same bytes come in any process and order. Paper: Lens report, data section (synthetic renderings).
"""

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from PIL.Image import Image
from pydantic import Field, model_validator

from lens.config import Settings
from lens.core.resolution import ASPECT_RATIOS, buckets_for
from lens.data.io.entry import UNKNOWN_SIZE, Entry, SourceError
from lens.data.sources import image_folder
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.text_rendering.captions import scene_caption
from lens.data.text_rendering.corpus import Script, TextCorpus, load_corpus
from lens.data.text_rendering.fonts import load_faces
from lens.data.text_rendering.renderer import TextScene, render_text_scene, sample_scene
from lens.errors import SettingError

ADDRESS_PREFIX = "text:"
MAX_SCENE_ATTEMPTS = 50
SCENE, WORDS, PIXELS = range(3)
"""What a picture's random draws are for; each has a stream of its own."""


class SyntheticTextSource(Settings):
    kind: Literal["text"] = "text"
    fonts: Path
    """Folder of .ttf, .otf and .ttc files, at any depth."""
    texts: Path | None = None
    """UTF-8 file with a text a line; None takes the built-in ones. Lines that no font covers are left out."""
    scripts: tuple[Script, ...] | None = Field(None, min_length=1)
    """Of the built-in texts; None takes all that the fonts cover and that can be set here."""
    backgrounds: Path | None = None
    """Folder of pictures, at any depth, some of which lie behind the letters."""
    count: int = Field(1000, gt=0)
    """Pictures that the source has."""
    seed: int = Field(0, ge=0)
    bases: tuple[int, ...] = Field((512,), min_length=1)
    """Base resolutions of the pictures."""
    ratios: tuple[str, ...] = Field(ASPECT_RATIOS, min_length=1)
    """Aspect ratios of the pictures, W:H."""
    min_text_px: int = Field(18, ge=8)
    """Size of the smallest letters; of scripts with many strokes they are larger."""
    licence: str = ""
    """Of the pictures; what fonts, texts and backgrounds ask for is known to who chose them."""

    @model_validator(mode="after")
    def _sizes_are_known(self) -> Self:
        unknown = [ratio for ratio in self.ratios if ratio not in ASPECT_RATIOS]
        if unknown:
            raise SettingError("source.ratios", unknown[0], f"one of {', '.join(ASPECT_RATIOS)}")
        assert self.sizes
        return self

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Return the (height, width) of every base and ratio."""
        return tuple(buckets_for(base)[ratio] for base in self.bases for ratio in self.ratios)


class _Assets(NamedTuple):
    texts: TextCorpus
    background_images: tuple[Entry, ...]


def synthetic_text_entries(source: SyntheticTextSource) -> Iterator[Entry]:
    """Yield an entry a picture, in the order of their indices; nothing is drawn.

    Raises: SettingError and SourceError for fonts, texts or backgrounds that cannot be used.
    """
    for index in range(source.count):
        address = f"{ADDRESS_PREFIX}{index:06d}"
        words = scene_caption(scene_at(source, index), _generator(source, index, WORDS))
        yield Entry(address, address, 0, UNKNOWN_SIZE, words, source.licence)


def is_rendered(path: str) -> bool:
    """Return whether an entry's path is the address of a picture that is drawn on demand."""
    return path.startswith(ADDRESS_PREFIX)


def index_from_path(path: str) -> int:
    """Return the index that an entry's path stands for."""
    return int(path.removeprefix(ADDRESS_PREFIX))


def render_png(source: SyntheticTextSource, index: int) -> bytes:
    """Return the PNG of one picture."""
    content = io.BytesIO()
    render_image(source, index).save(content, format="PNG")
    return content.getvalue()


def render_image(source: SyntheticTextSource, index: int) -> Image:
    """Return the pixels of one picture."""
    return render_text_scene(scene_at(source, index), _generator(source, index, PIXELS))


def scene_at(source: SyntheticTextSource, index: int) -> TextScene:
    """Return all facts of one picture.

    Raises: SettingError where no text fits into it; SettingError and SourceError for its material.
    """
    assets = _load_assets(source.fonts, source.texts, source.scripts, source.backgrounds)
    rng = _generator(source, index, SCENE)
    size = source.sizes[rng.integers(len(source.sizes))]
    for _ in range(MAX_SCENE_ATTEMPTS):
        found = sample_scene(assets.texts, assets.background_images, size, source.min_text_px, rng)
        if found is not None:
            return found
    needs = f"letters so small that a text fits in a picture of {size[1]}x{size[0]}"
    fix = "Lower it, shorten the texts, or raise source.bases."
    raise SettingError("source.min_text_px", source.min_text_px, needs, fix)


@lru_cache(maxsize=4)
def _load_assets(
    fonts: Path, texts: Path | None, scripts: tuple[Script, ...] | None, backgrounds: Path | None
) -> _Assets:
    """Return fonts, texts and pictures; read once a process, so what comes to a folder later is not seen."""
    if not fonts.is_dir():
        fix = "scripts/fetch_pictures.py fetches some."
        raise SettingError("source.fonts", str(fonts), "a folder with fonts in it", fix)
    found = load_corpus(load_faces(fonts), texts, scripts)
    if backgrounds is None:
        return _Assets(found, ())
    background_images = tuple(image_folder.image_folder_entries(ImageFolderSource(path=backgrounds)))
    if not background_images:
        known = ", ".join(image_folder.IMAGE_EXTENSIONS)
        where = str(backgrounds)
        raise SourceError(f"source.backgrounds is {where!r}, which holds no picture. Known: {known}.")
    return _Assets(found, background_images)


def _generator(source: SyntheticTextSource, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([source.seed, index, purpose])
