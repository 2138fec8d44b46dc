"""Lists of pictures: JSONL or Parquet files with a path or an address a row, and what is known of each."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lens.config import Settings
from lens.data.io.download import DownloadSettings
from lens.data.io.entry import UNKNOWN_SIZE, Entry, SourceError
from lens.data.io.parquet import iter_rows


class ManifestSource(Settings):
    kind: Literal["manifest"] = "manifest"
    path: Path
    """A `.jsonl` or `.parquet` file, or a folder of them."""
    location: str = "url"
    """Field that holds an address (http, https), or a path relative to the list's folder."""
    caption: str = "caption"
    """Field that holds the caption; rows may lack it."""
    licence: str = "licence"
    """Field that holds the licence; rows may lack it."""
    fetching: DownloadSettings = Field(default_factory=lambda: DownloadSettings.of({}))
    """How addresses are fetched."""


def manifest_entries(source: ManifestSource) -> Iterator[Entry]:
    """Yield the rows of all lists, in the order of the lists' names.

    Raises: SourceError where there is no list, or a row that is none or names no picture.
    """
    for path in _manifest_files(source.path):
        for number, row in enumerate(_read_rows(path), 1):
            where = row.get(source.location) if isinstance(row, Mapping) else None
            if not isinstance(where, str) or not where:
                missing = f"{path}, row {number}, has no {source.location!r} that says where the picture is."
                raise SourceError(f"{missing} Name the right field with source.location.")
            yield _entry(path, number, where, row, source)


def is_url(path: str) -> bool:
    """Return whether an entry's path is to be fetched."""
    return path.startswith(("http://", "https://"))


def _entry(path: Path, number: int, where: str, row: Mapping[str, Any], source: ManifestSource) -> Entry:
    caption, licence = (str(row.get(name) or "").strip() for name in (source.caption, source.licence))
    # The row's number too: a list may name one picture twice, with two captions.
    address = f"{path.name}:{number}:{where}"
    if is_url(where):
        return Entry(address, where, 0, UNKNOWN_SIZE, caption, licence)
    file = path.parent / where
    # A path that leads out of the list's folder would read what the list's author cannot see.
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise SourceError(f"{path}, row {number}: {where!r} leads out of the list's folder.")
    return Entry(address, str(file), 0, file.stat().st_size if file.is_file() else 0, caption, licence)


def _manifest_files(path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    lists = [one for one in found if one.suffix in (".jsonl", ".parquet") and one.is_file()]
    if not lists:
        raise SourceError(f"source.path is {str(path)!r}, which is, and holds, no .jsonl or .parquet file.")
    return lists


def _read_rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        yield from iter_rows(path)
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise SourceError(f"{path}, line {number}, is no JSON ({error}).") from error
