"""The studio's pictures: one folder of files that carry their settings, so that nothing else has to be kept.

Searched, marked, deleted, packed. What is in the folder is the gallery: pictures that somebody puts there are
found, a restart loses nothing. Knows nothing of who draws, or of pages.
"""

import hashlib
import json
import logging
import threading
import zipfile
from collections.abc import Callable, Iterable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from lens.errors import LensError
from lens.sampling.image_metadata import (
    FORMAT_OF_SUFFIX,
    PictureSettings,
    open_image,
    parsed_settings,
    read_settings,
    settings_document,
    slug,
    write_new,
    write_over,
)
from lens.serve.safety.provenance import marked

logger = logging.getLogger(__name__)

FAVOURITES = "favourites.json"
INPUTS, SMALL, SHEETS = "inputs", "small", "sheets"
SMALL_SIDE_PX = 384
"""Side of what lists show of larger pictures."""

Mark = Callable[[Image.Image, PictureSettings, str, int | None], bytes]
"""(picture, settings, png, None) -> the file that leaves, with its settings and marks inside."""


class Kept(NamedTuple):
    """A picture of the gallery."""

    name: str
    """Its file's name, which sorts by time."""
    path: Path
    settings: PictureSettings
    is_favourite: bool


class Gallery:
    """Pictures in one folder; safe to share among threads."""

    def __init__(self, folder: Path, mark: Mark = marked):
        self.folder = folder
        self._mark = mark
        self._lock = threading.RLock()
        self._known: dict[str, tuple[int, PictureSettings | None]] = {}

    def keep(self, image: Image.Image, settings: PictureSettings) -> Kept:
        """Write a picture with its settings and marks inside.

        Raises: LensError where it cannot be marked or written.
        """
        stem = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{slug(settings.prompt)}"
        path = write_new(self.folder, stem, ".png", _writing(self._mark(image, settings, "png", None)))
        return Kept(path.name, path, settings, False)

    def pictures(self, search: str = "", only_favourites: bool = False) -> list[Kept]:
        """Return the pictures whose prompt has every word of the search, the newest first."""
        words = search.lower().split()
        favourites = self._favourites()
        found = []
        for name, settings in sorted(self._all_settings().items(), reverse=True):
            prompt = settings.prompt.lower()
            if all(word in prompt for word in words) and (name in favourites or not only_favourites):
                found.append(Kept(name, self.folder / name, settings, name in favourites))
        return found

    def picture(self, name: str) -> Kept:
        """Return one picture.

        Raises: LensError where there is none of this name.
        """
        path = self._path(name)
        return Kept(name, path, read_settings(path), name in self._favourites())

    def mark(self, name: str, is_favourite: bool) -> None:
        """Make a picture a favourite, or an ordinary one again."""
        self._path(name)
        with self._lock:
            names = self._favourites() - {name} | ({name} if is_favourite else set())
            self._write_favourites(names)

    def delete(self, name: str) -> None:
        """Delete a picture and its small copy."""
        path = self._path(name)
        with self._lock:
            path.unlink(missing_ok=True)
            (self.folder / SMALL / f"{name}.webp").unlink(missing_ok=True)
            self._write_favourites(self._favourites() - {name})

    def small(self, kept: Kept) -> Path:
        """Return a file that is quick to show: the picture itself where it is small."""
        if max(kept.settings.width, kept.settings.height) <= SMALL_SIDE_PX:
            return kept.path
        path = self.folder / SMALL / f"{kept.name}.webp"
        if not path.exists():
            image = open_image(kept.path).convert("RGB")
            image.thumbnail((SMALL_SIDE_PX, SMALL_SIDE_PX))
            write_over(path, lambda file: image.save(file, format="WEBP", quality=85))
        return path

    def write_zip(self, names: Iterable[str], path: Path) -> Path:
        """Pack pictures, as they are, into one file."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:  # pictures are compressed already
            for name in names:
                packed.write(self._path(name), name)
        return path

    def keep_input(self, image: Image.Image) -> Path:
        """Keep a picture that others start from, or a mask; the same pixels are kept once."""
        data = BytesIO()
        image.save(data, format="PNG")
        path = self.folder / INPUTS / f"{hashlib.sha256(data.getvalue()).hexdigest()}.png"
        if not path.exists():
            write_over(path, _writing(data.getvalue()))
        return path

    def input_with(self, sha256: str) -> Path | None:
        """Return the kept input of this content, if it is here."""
        path = self.folder / INPUTS / f"{Path(sha256).name}.png"
        return path if path.is_file() else None

    def keep_sheet(self, sheet: Image.Image, title: str) -> Path:
        """Keep a sheet of several pictures."""
        stem = f"{datetime.now():%Y%m%d-%H%M%S}-{slug(title)}"
        return write_new(
            self.folder / SHEETS, stem, ".png", lambda file: sheet.save(file, format="PNG")
        )

    def _path(self, name: str) -> Path:
        path = self.folder / name
        is_plain = Path(name).name == name and path.suffix in FORMAT_OF_SUFFIX
        if not is_plain or name.startswith(".") or path.is_symlink() or not path.is_file():
            raise LensError(f"The gallery has no picture {name!r}. It may be deleted; reload the page.")
        return path

    def _all_settings(self) -> dict[str, PictureSettings]:
        with self._lock:
            if not self.folder.is_dir():
                return {}
            files = {
                path.name: path.stat().st_mtime_ns
                for path in self.folder.iterdir()
                if path.suffix in FORMAT_OF_SUFFIX and not path.name.startswith(".") and path.is_file()
                and not path.is_symlink()
            }  # fmt: skip
            self._known = {name: known for name, known in self._known.items() if files.get(name) == known[0]}
            for name in files.keys() - self._known.keys():
                self._known[name] = files[name], self._settings_in(self.folder / name)
            return {name: settings for name, (_, settings) in self._known.items() if settings is not None}

    def _settings_in(self, path: Path) -> PictureSettings | None:
        try:
            with Image.open(path) as image:
                document = settings_document(image)  # pixels are not read: there may be thousands of files
            return read_settings(path) if document is None else parsed_settings(document, path)
        except (LensError, OSError, Image.DecompressionBombError) as error:
            logger.warning("The gallery leaves a file out: %s", error)
            return None

    def _favourites(self) -> set[str]:
        try:
            names = json.loads((self.folder / FAVOURITES).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return set()
        return set(names) if isinstance(names, list) else set()

    def _write_favourites(self, names: set[str]) -> None:
        document = json.dumps(sorted(names), indent=1).encode()
        write_over(self.folder / FAVOURITES, _writing(document))


def _writing(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write
