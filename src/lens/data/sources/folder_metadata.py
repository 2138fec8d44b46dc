"""Captions of a whole folder in one file: `metadata.*`, `captions.json`, and kohya's `meta_*.json`.

The file lies in the folder, or above it, and names images by their path from where it lies.
"""

import fnmatch
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lens.data.io.entry import Entry, PassedOver, faulty_entry
from lens.data.io.image_decoding import IMAGE_EXTENSIONS
from lens.data.io.rows import iter_file_rows
from lens.data.io.sample import Sidecar
from lens.data.io.text_values import (
    CAPTION_KEYS,
    LICENCE_KEYS,
    escape_surrogates,
    first_text,
    tags_text,
    text_value,
)
from lens.text_files import TextError, parse_json

TABLE_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
KOHYA_NAMES = "meta_*.json"
CAPTIONS_NAME = "captions.json"
"""An object of diffusion-pipe, with a caption or a list of them by the name of each image."""
FILE_NAME_KEYS = ("file_name", "image_file_name", "filename", "image", "image_path", "path", "file")
CAPTION_WITHOUT_IMAGE = "captions without an image"


class FolderMetadata:
    """The captions that one file holds for the images of a folder."""

    def __init__(self, prefix: str, name: str):
        self.prefix, self.name, self.is_kohya = prefix, name, fnmatch.fnmatch(name.lower(), KOHYA_NAMES)
        self._rows: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        """Names and values of rows, by the path of their image."""
        self._paths_by_stem: dict[str, list[str]] = {}
        self._used: set[str] = set()
        self.faults: list[Entry] = []
        """Entries for the rows that cannot be read."""

    def add(self, row: str, file_name: str, values: Mapping[str, Any]) -> None:
        """Add the values of an image, and what the row is called."""
        path = normalize_name(file_name.replace("\\", "/").removeprefix("./"))
        if path not in self._rows:
            self._rows[path] = []
            self._paths_by_stem.setdefault(_stem(path), []).append(path)
        self._rows[path].append((row, dict(values)))

    def add_fault(self, row: str, reason: str) -> None:
        """Add a row that cannot be read."""
        where = escape_surrogates(f"{self.prefix}{self.name}:{row}")
        self.faults.append(faulty_entry(where, "broken_row", f"{where} {reason}"))

    def sidecar(self, path: str, draw_key: str) -> Sidecar:
        """Return what the file says of the image at a path below the root; of several rows one is drawn."""
        named = self._paths_of(normalize_name(path).removeprefix(normalize_name(self.prefix)))
        self._used.update(named)
        if not named:
            return Sidecar()
        if len(named) > 1:
            return Sidecar(fault=f"{self.name} has several rows that may mean it: {', '.join(named)}")
        captions, licences = [], []
        for row, values in self._rows[named[0]]:
            try:
                captions.append(self._caption(values, draw_key))
                licences.append(first_text(values, LICENCE_KEYS, draw_key))
            except TextError as error:
                return Sidecar(fault=f"{self.name}, row {row}, {error}")
        return Sidecar(text_value(captions, draw_key), next(filter(None, licences), ""))

    def unused(self) -> Iterator[Entry | PassedOver]:
        """Yield what no image was found for."""
        for path in sorted(self._rows.keys() - self._used):
            where = escape_surrogates(f"{self.prefix}{self.name}:{self._rows[path][0][0]}:{path}")
            if self.is_kohya:
                yield PassedOver(CAPTION_WITHOUT_IMAGE, where)
            else:
                yield faulty_entry(where, "missing", f"{where} names a file that is not there")

    def _paths_of(self, own: str) -> list[str]:
        if own in self._rows or not self.is_kohya:
            return [own] if own in self._rows else []
        # Kohya names images without their extension, and by their full path on the machine of the trainer.
        one = f"/{_without_extension(own)}"
        named = self._paths_by_stem.get(_stem(own), [])
        ends = {name: f"/{_without_extension(name)}" for name in named}
        return [name for name in named if ends[name].endswith(one) or one.endswith(ends[name])]

    def _caption(self, values: dict[str, Any], draw_key: str) -> str:
        """Return a caption; kohya's trainer puts the tags after it."""
        caption = first_text(values, CAPTION_KEYS, draw_key)
        if caption and not self.is_kohya:
            return caption
        return ", ".join(filter(None, (caption, tags_text(values.get("tags"), draw_key))))


def is_metadata(name: str) -> bool:
    """Return whether a file with this name may hold the captions of a folder."""
    return name.lower() in (*TABLE_NAMES, CAPTIONS_NAME) or fnmatch.fnmatch(name.lower(), KOHYA_NAMES)


def read_metadata(prefix: str, name: str, path: Path) -> FolderMetadata | None:
    """Return what a file of captions holds; None for a file that names no image."""
    found = FolderMetadata(prefix, name)
    if name.lower() == CAPTIONS_NAME:
        return _read_captions(found, path)
    return (_read_kohya if found.is_kohya else _read_table)(found, path)


def normalize_name(name: str) -> str:
    """Return a name as names are compared: macOS decomposes accents, other systems do not."""
    return unicodedata.normalize("NFC", name)


def _read_table(found: FolderMetadata, path: Path) -> FolderMetadata | None:
    is_metadata = False
    for row in iter_file_rows(path, found.name):
        try:
            name = first_text(dict(row.values), FILE_NAME_KEYS, "")
            is_metadata = is_metadata or bool(name or row.fault)
            if row.fault or not name:
                raise TextError(row.fault or f"has no {FILE_NAME_KEYS[0]}")
            found.add(str(row.number), name, row.values)
        except TextError as error:
            found.add_fault(str(row.number), str(error))
    return found if is_metadata else None


def _read_captions(found: FolderMetadata, path: Path) -> FolderMetadata | None:
    try:
        values = parse_json(path.read_bytes())
    except (OSError, TextError) as error:
        found.add_fault("", f"cannot be read: {error}")
        return found
    if not isinstance(values, dict) or not all(isinstance(one, str | list) for one in values.values()):
        return None
    for name, caption in values.items():
        found.add(escape_surrogates(name), name, {"caption": caption})
    return found if values else None


def _read_kohya(found: FolderMetadata, path: Path) -> FolderMetadata | None:
    try:
        values = parse_json(path.read_bytes())
    except (OSError, TextError) as error:
        found.add_fault("", f"cannot be read: {error}")
        return found
    if not isinstance(values, dict) or not any(_is_kohya(one) for one in values.values()):
        return None
    for name, one in values.items():
        if _is_kohya(one):
            found.add(escape_surrogates(name), name, one)
    return found


def _is_kohya(value: Any) -> bool:
    return isinstance(value, dict) and bool({"caption", "tags"} & value.keys())


def _without_extension(path: str) -> str:
    is_named = path.lower().endswith(IMAGE_EXTENSIONS)
    return path.rpartition(".")[0] if is_named else path


def _stem(path: str) -> str:
    return _without_extension(PurePosixPath(path).name)
