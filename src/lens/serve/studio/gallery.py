"""The studio's gallery: a folder of images that carry their own metadata.

The folder is the whole state: an image that is copied into it appears, and a restart loses nothing. Knows
nothing of how images are generated, or of pages.
"""

import hashlib
import json
import logging
import threading
import zipfile
from collections.abc import Iterable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lens.errors import LensError
from lens.files import write_atomic, write_bytes_atomic, write_unique
from lens.sampling.image_metadata import (
    FORMAT_BY_SUFFIX,
    ImageMetadata,
    metadata_json,
    open_image,
    parse_image_metadata,
    read_image_metadata,
    slug,
)

logger = logging.getLogger(__name__)

FAVOURITES_FILE = "favourites.json"
INPUTS_FOLDER, THUMBNAILS_FOLDER, SHEETS_FOLDER = "inputs", "small", "sheets"
THUMBNAIL_SIDE_PX = 384
"""Longest side of an image in lists; smaller images are their own thumbnails."""


class GalleryItem(NamedTuple):
    """An image of the gallery."""

    name: str
    """File name; it begins with the time."""
    path: Path
    metadata: ImageMetadata
    is_favourite: bool


class Gallery:
    """Images in one folder; safe to share among threads."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.RLock()
        self._metadata_cache: dict[str, tuple[int, ImageMetadata | None]] = {}

    def save(self, content: bytes, metadata: ImageMetadata, image_format: str = "png") -> GalleryItem:
        """Write an image file, which has its metadata and marks inside.

        Raises: LensError if it cannot be written.
        """
        stem = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{slug(metadata.request)}"
        path = write_unique(self.folder, stem, f".{image_format}", lambda file: file.write(content))
        return GalleryItem(path.name, path, metadata, False)

    def items(self, search: str = "", only_favourites: bool = False) -> list[GalleryItem]:
        """Return the images whose prompts contain every word of the search, the newest first."""
        words = search.lower().split()
        favourites = self.favourites()
        matches = []
        for name, metadata in sorted(self._all_metadata().items(), reverse=True):
            prompt = f"{metadata.prompt} {metadata.request}".lower()
            if all(word in prompt for word in words) and (name in favourites or not only_favourites):
                matches.append(GalleryItem(name, self.folder / name, metadata, name in favourites))
        return matches

    def item(self, name: str) -> GalleryItem:
        """Return one image.

        Raises: LensError if no image has this name.
        """
        path = self._path(name)
        return GalleryItem(name, path, read_image_metadata(path), name in self.favourites())

    def set_favourite(self, name: str, is_favourite: bool) -> None:
        """Add an image to the favourites, or remove it from them."""
        self._path(name)
        with self._lock:
            names = self.favourites() - {name} | ({name} if is_favourite else set())
            self._write_favourites(names)

    def delete(self, name: str) -> None:
        """Delete an image and its thumbnail."""
        path = self._path(name)
        with self._lock:
            path.unlink(missing_ok=True)
            (self.folder / THUMBNAILS_FOLDER / f"{name}.webp").unlink(missing_ok=True)
            self._write_favourites(self.favourites() - {name})

    def thumbnail(self, item: GalleryItem) -> Path:
        """Return the thumbnail of an image; it is made on first use."""
        if max(item.metadata.width, item.metadata.height) <= THUMBNAIL_SIDE_PX:
            return item.path
        path = self.folder / THUMBNAILS_FOLDER / f"{item.name}.webp"
        if not path.exists():
            image = open_image(item.path).convert("RGB")
            image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX))
            write_atomic(path, lambda file: image.save(file, format="WEBP", quality=85))
        return path

    def write_zip(self, names: Iterable[str], path: Path) -> Path:
        """Write the image files into a ZIP file."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # images are compressed already
            for name in names:
                archive.write(self._path(name), name)
        return path

    def save_input(self, image: Image.Image) -> Path:
        """Store a source image or a mask; equal pixels are stored once."""
        data = BytesIO()
        image.save(data, format="PNG")
        path = self.folder / INPUTS_FOLDER / f"{hashlib.sha256(data.getvalue()).hexdigest()}.png"
        if not path.exists():
            write_bytes_atomic(path, data.getvalue())
        return path

    def find_input(self, sha256: str) -> Path | None:
        """Return the stored source image or mask with this hash, or None."""
        path = self.folder / INPUTS_FOLDER / f"{Path(sha256).name}.png"
        return path if path.is_file() else None

    def save_sheet(self, content: bytes, title: str) -> Path:
        """Store the PNG file of a contact sheet, which has its metadata and marks inside."""
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{slug(title)}"
        return write_unique(
            self.folder / SHEETS_FOLDER, stem, ".png", lambda file: file.write(content)
        )

    def _path(self, name: str) -> Path:
        path = self.folder / name
        is_plain = Path(name).name == name and path.suffix in FORMAT_BY_SUFFIX
        if not is_plain or name.startswith(".") or path.is_symlink() or not path.is_file():
            raise LensError(f"The gallery has no image {name!r}. It may have been deleted; reload the page.")
        return path

    def _all_metadata(self) -> dict[str, ImageMetadata]:
        with self._lock:
            if not self.folder.is_dir():
                return {}
            files = {
                path.name: path.stat().st_mtime_ns
                for path in self.folder.iterdir()
                if path.suffix in FORMAT_BY_SUFFIX and not path.name.startswith(".") and path.is_file()
                and not path.is_symlink()
            }  # fmt: skip
            self._metadata_cache = {
                name: known for name, known in self._metadata_cache.items() if files.get(name) == known[0]
            }
            for name in files.keys() - self._metadata_cache.keys():
                self._metadata_cache[name] = files[name], self._read_metadata(self.folder / name)
            return {
                name: settings for name, (_, settings) in self._metadata_cache.items() if settings is not None
            }

    def _read_metadata(self, path: Path) -> ImageMetadata | None:
        try:
            with Image.open(path) as image:
                document = metadata_json(image)  # pixels are not read: there may be thousands of files
            return read_image_metadata(path) if document is None else parse_image_metadata(document, path)
        except (LensError, OSError, Image.DecompressionBombError) as error:
            logger.warning("The gallery skips a file: %s", error)
            return None

    def favourites(self) -> set[str]:
        """Return the names of the favourites."""
        try:
            names = json.loads((self.folder / FAVOURITES_FILE).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return set()
        return set(names) if isinstance(names, list) else set()

    def _write_favourites(self, names: set[str]) -> None:
        document = json.dumps(sorted(names), indent=1).encode()
        write_bytes_atomic(self.folder / FAVOURITES_FILE, document)
