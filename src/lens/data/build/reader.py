"""The bytes of entries, wherever their sources keep them: in files, in tars, on the web, or only in rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lens.data.io.download import cache_path, download_all
from lens.data.io.entry import Entry, read_entry
from lens.data.sources.image_folder import ImageFolderSource
from lens.data.sources.manifest import ManifestSource, is_url
from lens.data.sources.synthetic_text import SyntheticTextSource, index_from_path, is_rendered, render_png
from lens.data.sources.webdataset import WebDatasetSource

AnySource = Annotated[
    ImageFolderSource | WebDatasetSource | ManifestSource | SyntheticTextSource, Field(discriminator="kind")
]
NumberedEntry = tuple[int, Entry]
"""An entry, and before it the number of its source."""


class EntryReader:
    """Reads entries of some sources; cheap to make and to send to a worker."""

    def __init__(self, sources: Sequence[AnySource], downloads: Path):
        self.sources, self.downloads = tuple(sources), downloads

    def prefetch(self, entries: Sequence[NumberedEntry]) -> dict[str, str]:
        """Fetch what is still on the web; return why each address that gives nothing does not."""
        failures: dict[str, str] = {}
        for number, source in enumerate(self.sources):
            urls = [entry.path for of, entry in entries if of == number and is_url(entry.path)]
            if urls and isinstance(source, ManifestSource):
                found = zip(urls, download_all(urls, self.downloads, source.fetching), strict=True)
                failures |= {url: one.reason for url, one in found if one.reason}
        return failures

    def read(self, numbered: NumberedEntry) -> bytes:
        """Return an entry's bytes; none where they are gone, or an address gave nothing."""
        number, entry = numbered
        source = self.sources[number]
        if isinstance(source, SyntheticTextSource) and is_rendered(entry.path):
            return render_png(source, index_from_path(entry.path))
        if not is_url(entry.path):
            return read_entry(entry)
        path = cache_path(entry.path, self.downloads)
        return path.read_bytes() if path.is_file() else b""
