"""The entry reader: the bytes of any entry of a build, through the source that the entry belongs to."""

from collections.abc import Sequence
from pathlib import Path

from lens.data.io.entry import EntryReadError
from lens.data.sources.registry import AnySource, NumberedEntry


class EntryReader:
    """Reads entries of several sources; cheap to make and to send to a worker."""

    def __init__(self, sources: Sequence[AnySource], downloads: Path):
        self.sources, self.downloads = tuple(sources), downloads

    def prefetch(self, entries: Sequence[NumberedEntry]) -> dict[str, str]:
        """Download entries that are on the web; return the reason of each failure by the entry's path."""
        failures: dict[str, str] = {}
        for number, source in enumerate(self.sources):
            own = [entry for of, entry in entries if of == number and not entry.fault]
            failures |= source.prefetch(own, self.downloads) if own else {}
        return failures

    def read(self, numbered: NumberedEntry) -> bytes:
        """Return the bytes of an entry. Raises: EntryReadError where it has none."""
        number, entry = numbered
        if entry.fault:
            raise EntryReadError(entry.fault, entry.detail)
        return self.sources[number].read(entry, self.downloads)
