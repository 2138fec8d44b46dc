"""Manifests: tables with a path, a URL or an embedded image, a caption and a licence in each row."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from lens.data.io.download import DownloadSettings, cache_path, download_all
from lens.data.io.entry import (
    UNKNOWN_SIZE,
    Entry,
    EntryReadError,
    PassedOver,
    SourceError,
    faulty_entry,
    read_entry,
)
from lens.data.io.rows import (
    ROW_FILE_EXTENSIONS,
    Row,
    embedded_column,
    embedded_images,
    is_row_file,
    iter_file_rows,
)
from lens.data.io.text_values import CAPTION_KEYS, LICENCE_KEYS, escape_surrogates, first_text, text_value
from lens.data.sources.base import DataSource
from lens.data.sources.folder_walk import FolderWalk, WalkedFile, WalkedFolder, is_blob, kind_of_file
from lens.errors import LensError
from lens.files import write_bytes_atomic
from lens.text_files import TextError, check_text

LOCATION_KEYS = ("url", "image_url", "file_name", "path", "image", "image_path", "jpg", "png", "webp")
"""Columns that may hold the location, where the recipe names none; the first that is there counts."""
EMBEDDED_PREFIX = "row:"
"""Begins the path of an entry whose bytes are in a row of a Parquet file; its offset is the row."""
FIX = "Set source.location to the name of the column."


class ManifestSource(DataSource):
    """Lists of images, which may be on the web, or in the list itself."""

    may_download: ClassVar[bool] = True

    kind: Literal["manifest"] = "manifest"
    path: Path
    """A `.jsonl`, `.csv`, `.tsv` or `.parquet` file, or a folder of them, at any depth."""
    location: str | None = None
    """Column of a URL (http, https), a path relative to the folder of the manifest, or an embedded image.

    None means the first of the usual names that a row has.
    """
    caption: str | None = None
    """Column of the caption, or of a list of captions; None means the first usual name that has one."""
    licence: str | None = None
    """Column of the licence; None means `licence` or `license`."""
    allows_outside: bool = False
    """Whether paths and links may lead out of the folder; they could expose other files of this machine."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draw where an image has several captions."""
    fetching: DownloadSettings = Field(default_factory=lambda: DownloadSettings.of({}))
    """How images are downloaded."""

    def entries(self) -> Iterator[Entry]:
        """Yield the rows of all manifests, in the order of their names; broken ones with their fault.

        Raises: SourceError where there is no manifest, or where no row has a location.
        """
        return (one for one in self.listing() if isinstance(one, Entry))

    def listing(self) -> Iterator[Entry | PassedOver]:
        """Yield the rows of all manifests, and the files that are passed over. Raises: as `entries`."""
        tables: list[_File] = []
        others: list[_File] = []
        for one in _walk_tables(self.path, self.allows_outside):
            if isinstance(one, _File):
                (tables if is_row_file(one.name) else others).append(one)
            else:
                yield one
        if not tables:
            needs = f"neither a table ({', '.join(ROW_FILE_EXTENSIONS)}) nor a folder of them"
            raise SourceError(f"source.path is {str(self.path)!r}, which is {needs}.")
        first_fault, has_sound_row, named = "", False, set()
        for entry in (entry for table in tables for entry in self._table_entries(table)):
            has_sound_row = has_sound_row or not entry.fault
            first_fault = first_fault or entry.detail
            named.add(entry.path)
            yield entry
        if first_fault and not has_sound_row:
            raise SourceError(f"No row of {self.path} can be used. The first one: {first_fault}. {FIX}")
        for one in others:
            if str(one.path) not in named:
                yield PassedOver(kind_of_file(one.name), escape_surrogates(one.name))

    def read(self, entry: Entry, cache: Path) -> bytes:
        """Return the bytes of an entry. Raises: EntryReadError where it has none."""
        path = _cached(entry, cache)
        if path is None:
            return read_entry(entry)
        if not path.is_file() and not is_url(entry.path):
            self._extract([entry], cache)
        if not path.is_file():
            detail = f"{entry.path} gave no bytes"
            if entry.path.startswith(EMBEDDED_PREFIX):
                where = f"{entry.path.removeprefix(EMBEDDED_PREFIX)}, row {entry.offset + 1},"
                needs = "of a file in the folder (or anywhere, with source.allows_outside)"
                detail = f"{where} has no bytes of an image, nor the path {needs}"
            raise EntryReadError("missing", detail)
        return path.read_bytes()

    def prefetch(self, entries: Sequence[Entry], cache: Path) -> dict[str, str]:
        """Download or extract the entries that the cache lacks; return the reason of each failure by URL."""
        self._extract([entry for entry in entries if entry.path.startswith(EMBEDDED_PREFIX)], cache)
        urls = [entry.path for entry in entries if is_url(entry.path)]
        if not urls:
            return {}
        results = zip(urls, download_all(urls, cache, self.fetching), strict=True)
        return {url: result.reason for url, result in results if result.reason}

    def _extract(self, entries: Sequence[Entry], cache: Path) -> None:
        """Write embedded images into the cache: a row of a Parquet file cannot be read alone."""
        missing: dict[str, dict[int, Path]] = {}
        for entry in entries:
            path = _cached(entry, cache)
            if path is not None and not path.is_file():
                missing.setdefault(entry.path, {})[entry.offset] = path
        for name, rows in missing.items():
            file = Path(name.removeprefix(EMBEDDED_PREFIX))
            try:
                column = embedded_column(file, self.location or "")
                for row, content in embedded_images(file, column, set(rows)):
                    content = self._read_beside(file, content) if isinstance(content, str) else content
                    if content:
                        write_bytes_atomic(rows[row], content)
            except LensError:
                raise  # the disk of the cache is full
            except (OSError, ValueError):
                continue  # a broken file: the rows that are lacking are missing

    def _read_beside(self, table: Path, location: str) -> bytes:
        """Return the bytes of the file that a row has instead of an embedded image; empty for none."""
        try:
            path, num_bytes = self._local_file(table.parent, location)
            return path.read_bytes() if num_bytes else b""
        except (_RowError, OSError):
            return b""

    def _table_entries(self, table: "_File") -> Iterator[Entry]:
        column = ""
        if table.name.lower().endswith(".parquet"):
            column = embedded_column(table.path, self.location or "")
            column = column if self.location in (None, column) else ""
        for row in iter_file_rows(table.path, table.name):
            where = escape_surrogates(f"{table.name}:{row.number}")
            try:
                if row.fault:
                    raise _RowError("broken_row", row.fault)
                yield self._row_entry(table, row, where, column)
            except (_RowError, TextError) as error:
                fault = error.fault if isinstance(error, _RowError) else "broken_row"
                reason = f"{escape_surrogates(table.name)}, row {row.number}, {error}"
                yield faulty_entry(where, fault, escape_surrogates(reason))

    def _row_entry(self, table: "_File", row: Row, where: str, column: str) -> Entry:
        location = _location_of(row.values, self.location)
        # The row number too: a manifest may name one image twice, with two captions.
        address = f"{where}:{location}"
        draw_key = f"{self.seed}:{address}"
        caption = _text_of(row.values, self.caption, CAPTION_KEYS, draw_key)
        licence = _text_of(row.values, self.licence, LICENCE_KEYS)
        if column:
            path = f"{EMBEDDED_PREFIX}{table.path}"
            return Entry(address, path, row.number - 1, UNKNOWN_SIZE, caption, licence)
        if not location:
            name = self.location or LOCATION_KEYS[0]
            raise _RowError("broken_row", f"has no field {name!r} with a path or URL")
        if is_url(location):
            return Entry(address, location, 0, UNKNOWN_SIZE, caption, licence)
        if "://" in location:
            raise _RowError("bad_address", f"has {location!r}, but only http and https are downloaded")
        path, num_bytes = self._local_file(table.folder, location)
        return Entry(address, str(path), 0, num_bytes, caption, licence)

    def _local_file(self, folder: Path, location: str) -> tuple[Path, int]:
        """Return the file that a row names and its size, 0 where it is gone."""
        try:
            path = (folder / location).resolve()
            # A path that leads out would read files that the author of the manifest cannot see.
            is_inside = path.is_relative_to(folder.resolve()) or is_blob(folder.resolve(), path)
            if not is_inside and not self.allows_outside:
                raise _RowError("outside", f"{location!r} leads out of the folder of the manifest")
            return path, path.stat().st_size if path.is_file() else 0
        except (OSError, ValueError, RuntimeError):  # a loop of links, or a name that no file can have
            return folder / location, 0


class _File(NamedTuple):
    """A file of the source."""

    name: str
    """Its path below the root."""
    path: Path
    """Where its bytes are."""
    folder: Path
    """The folder that paths of its rows begin in: that of the link, where it is one."""


class _RowError(Exception):
    """A row that names no image; the fault is a word for the ledger."""

    def __init__(self, fault: str, detail: str):
        super().__init__(detail)
        self.fault = fault

def is_url(path: str) -> bool:
    """Return whether the path of an entry is a URL to download."""
    return path.lower().startswith(("http://", "https://"))


def _walk_tables(path: Path, allows_outside: bool) -> Iterator["_File | Entry | PassedOver"]:
    """Yield a file, or all files below a folder."""
    if path.is_file():
        yield _File(path.name, path, path.parent)
    elif path.is_dir():
        walk = FolderWalk(path, allows_outside)
        yield from _walk_folder(walk, walk.root)


def _walk_folder(walk: FolderWalk, folder: WalkedFolder) -> Iterator["_File | Entry | PassedOver"]:
    for child in walk.children(folder):
        if isinstance(child, WalkedFolder):
            yield from _walk_folder(walk, child)
        elif isinstance(child, WalkedFile):
            yield _File(folder.prefix + child.name, child.path, folder.path)
        else:
            yield child


def _location_of(values: Mapping[str, Any], name: str | None) -> str:
    """Return the path or URL of a row; empty for none. Raises: TextError."""
    folded = {key.lower(): value for key, value in reversed([*values.items()])} if name is None else values
    for key in LOCATION_KEYS if name is None else (name,):
        value = folded.get(key)
        if isinstance(value, dict):  # Hugging Face's image: a path beside the bytes
            value = value.get("path")
        if isinstance(value, str) and value:
            return check_text(value)
    return ""


def _text_of(
    values: Mapping[str, Any], name: str | None, usual_names: tuple[str, ...], draw_key: str = ""
) -> str:
    if name is not None:
        return text_value(values.get(name), draw_key)
    return first_text(dict(values), usual_names, draw_key)


def _cached(entry: Entry, cache: Path) -> Path | None:
    """Return where the bytes of an entry are kept; None for a local file."""
    if is_url(entry.path):
        return cache_path(entry.path, cache)
    is_embedded = entry.path.startswith(EMBEDDED_PREFIX)
    return cache_path(f"{entry.path}:{entry.offset}", cache) if is_embedded else None
