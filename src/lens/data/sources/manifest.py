"""Manifests: JSONL or Parquet files with a path or URL, a caption and a licence in each row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from lens.data.io.download import DownloadSettings, cache_path, download_all
from lens.data.io.entry import UNKNOWN_SIZE, Entry, SourceError
from lens.data.io.parquet import iter_rows
from lens.data.sources.base import DataSource


class ManifestSource(DataSource):
    """Lists of images, which may be on the web."""

    may_download: ClassVar[bool] = True

    kind: Literal["manifest"] = "manifest"
    path: Path
    """A `.jsonl` or `.parquet` file, or a folder of them."""
    location: str = "url"
    """Field that holds a URL (http, https), or a path relative to the folder of the manifest."""
    caption: str = "caption"
    """Field that holds the caption; rows may lack it."""
    licence: str = "licence"
    """Field that holds the licence; rows may lack it."""
    fetching: DownloadSettings = Field(default_factory=lambda: DownloadSettings.of({}))
    """How images are downloaded."""

    def entries(self) -> Iterator[Entry]:
        """Yield the rows of all manifests, in the order of the manifests' names.

        Raises: SourceError where there is no manifest, or for a row that is not an object or has no location.
        """
        for path in _manifest_files(self.path):
            for number, row in enumerate(_read_rows(path), 1):
                where = row.get(self.location) if isinstance(row, Mapping) else None
                if not isinstance(where, str) or not where:
                    missing = f"{path}, row {number}, has no field {self.location!r} with a path or URL."
                    raise SourceError(f"{missing} Set source.location to the name of that field.")
                yield _entry(path, number, where, row, self)

    def read(self, entry: Entry, cache: Path) -> bytes:
        """Return the bytes of an entry; none where they are gone, or where the download failed."""
        if not is_url(entry.path):
            return super().read(entry, cache)
        path = cache_path(entry.path, cache)
        return path.read_bytes() if path.is_file() else b""

    def prefetch(self, entries: Sequence[Entry], cache: Path) -> dict[str, str]:
        """Download the entries that the cache lacks; return the reason of each failure by URL."""
        urls = [entry.path for entry in entries if is_url(entry.path)]
        if not urls:
            return {}
        results = zip(urls, download_all(urls, cache, self.fetching), strict=True)
        return {url: result.reason for url, result in results if result.reason}


def is_url(path: str) -> bool:
    """Return whether the path of an entry is a URL to download."""
    return path.startswith(("http://", "https://"))


def _entry(path: Path, number: int, where: str, row: Mapping[str, Any], source: ManifestSource) -> Entry:
    caption, licence = (str(row.get(name) or "").strip() for name in (source.caption, source.licence))
    # The row number too: a manifest may name one image twice, with two captions.
    address = f"{path.name}:{number}:{where}"
    if is_url(where):
        return Entry(address, where, 0, UNKNOWN_SIZE, caption, licence)
    file = path.parent / where
    # A path that leads out of the folder would read files that the author of the manifest cannot see.
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise SourceError(f"{path}, row {number}: {where!r} leads out of the folder of the manifest.")
    return Entry(address, str(file), 0, file.stat().st_size if file.is_file() else 0, caption, licence)


def _manifest_files(path: Path) -> list[Path]:
    found = sorted(path.iterdir()) if path.is_dir() else [path]
    lists = [one for one in found if one.suffix in (".jsonl", ".parquet") and one.is_file()]
    if not lists:
        needs = "neither a .jsonl or .parquet file nor a folder of them"
        raise SourceError(f"source.path is {str(path)!r}, which is {needs}.")
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
                raise SourceError(f"{path}, line {number}, is not valid JSON ({error}).") from error
