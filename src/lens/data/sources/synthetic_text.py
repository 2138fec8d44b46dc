"""Synthetic images of text, rendered on demand, whose captions quote the text exactly.

Nothing is stored. An image depends only on the settings, the files that they name, and its index: its bytes
are the same in any process and order. Paper: Lens report, data section (synthetic renderings).
"""

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from PIL.Image import Image
from pydantic import Field, model_validator

from lens.core.resolution import ASPECT_RATIOS, buckets_for
from lens.data.io.entry import UNKNOWN_SIZE, Entry, SourceError
from lens.data.io.image_decoding import IMAGE_EXTENSIONS
from lens.data.sources.base import DataSource
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.text_rendering.captions import scene_caption
from lens.data.text_rendering.corpus import Script, TextCorpus, load_corpus
from lens.data.text_rendering.fonts import load_faces
from lens.data.text_rendering.renderer import TextScene, render_text_scene, sample_scene
from lens.errors import SettingError

ADDRESS_PREFIX = "text:"
MAX_SCENE_ATTEMPTS = 50
SCENE, WORDS, PIXELS = range(3)
"""Purposes of random draws; each has a stream of its own."""


class SyntheticTextSource(DataSource):
    """Images of text in given fonts."""

    kind: Literal["text"] = "text"
    fonts: Path
    """Folder of .ttf, .otf and .ttc files, at any depth."""
    texts: Path | None = None
    """UTF-8 file with one text a line; None means the built-in ones. Lines no font covers are skipped."""
    scripts: tuple[Script, ...] | None = Field(None, min_length=1)
    """Scripts of the built-in texts; None means all that the fonts cover and this machine can lay out."""
    backgrounds: Path | None = None
    """Folder of images, at any depth, used behind some of the texts."""
    count: int = Field(1000, gt=0)
    """Number of images."""
    seed: int = Field(0, ge=0)
    bases: tuple[int, ...] = Field((512,), min_length=1)
    """Base resolutions of the images."""
    ratios: tuple[str, ...] = Field(ASPECT_RATIOS, min_length=1)
    """Aspect ratios of the images, W:H."""
    min_text_px: int = Field(18, ge=8)
    """Font size of the smallest text; scripts with many strokes need larger text."""
    licence: str = ""
    """Licence of the images. It has to respect the licences of the fonts, texts and backgrounds."""

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

    def entries(self) -> Iterator[Entry]:
        """Yield an entry for each image, in the order of their indices; nothing is rendered.

        Raises: SettingError and SourceError for fonts, texts or backgrounds that cannot be used.
        """
        for index in range(self.count):
            address = f"{ADDRESS_PREFIX}{index:06d}"
            words = scene_caption(scene_at(self, index), _generator(self, index, WORDS))
            yield Entry(address, address, 0, UNKNOWN_SIZE, words, self.licence)

    def read(self, entry: Entry, cache: Path) -> bytes:
        """Render the image of an entry and return its PNG."""
        return render_png(self, int(entry.path.removeprefix(ADDRESS_PREFIX)))


class _Assets(NamedTuple):
    texts: TextCorpus
    background_images: tuple[Entry, ...]


def render_png(source: SyntheticTextSource, index: int) -> bytes:
    """Return the PNG of one image."""
    content = io.BytesIO()
    render_image(source, index).save(content, format="PNG")
    return content.getvalue()


def render_image(source: SyntheticTextSource, index: int) -> Image:
    """Return the pixels of one image."""
    return render_text_scene(scene_at(source, index), _generator(source, index, PIXELS))


def scene_at(source: SyntheticTextSource, index: int) -> TextScene:
    """Return the scene of one image.

    Raises: SettingError where no text fits into the image; SettingError and SourceError for assets that
    cannot be used.
    """
    assets = _load_assets(source.fonts, source.texts, source.scripts, source.backgrounds)
    rng = _generator(source, index, SCENE)
    size = source.sizes[rng.integers(len(source.sizes))]
    for _ in range(MAX_SCENE_ATTEMPTS):
        found = sample_scene(assets.texts, assets.background_images, size, source.min_text_px, rng)
        if found is not None:
            return found
    needs = f"a font size at which a text fits in an image of {size[1]}x{size[0]}"
    fix = "Lower it, shorten the texts, or raise source.bases."
    raise SettingError("source.min_text_px", source.min_text_px, needs, fix)


@lru_cache(maxsize=4)
def _load_assets(
    fonts: Path, texts: Path | None, scripts: tuple[Script, ...] | None, backgrounds: Path | None
) -> _Assets:
    """Return texts and background images; read once a process, so files that are added later are not seen."""
    if not fonts.is_dir():
        fix = "scripts/fetch_pictures.py downloads some."
        raise SettingError("source.fonts", str(fonts), "a folder with fonts", fix)
    found = load_corpus(load_faces(fonts), texts, scripts)
    if backgrounds is None:
        return _Assets(found, ())
    background_images = tuple(ImageFolderSource(path=backgrounds).entries())
    if not background_images:
        known = ", ".join(IMAGE_EXTENSIONS)
        where = f"source.backgrounds is {str(backgrounds)!r}"
        raise SourceError(f"{where}, which holds no image. Known extensions: {known}.")
    return _Assets(found, background_images)


def _generator(source: SyntheticTextSource, index: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([source.seed, index, purpose])
