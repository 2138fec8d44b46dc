"""The protocol of data sources: settings that list the entries of a source and read any one of them."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from lens.config import Settings
from lens.data.io.entry import Entry, PassedOver, read_entry


class DataSource(Settings):
    """Base of the settings of all sources; a source is a subclass and a line in registry.py.

    A subclass gives `kind` a literal type and implements `entries`. `cache` is the folder of the build for
    files that a source downloads. Entries are read in any order and in any process.
    """

    kind: str
    """Name of the source in recipes."""

    may_download: ClassVar[bool] = False
    """Whether entries are downloaded, so that a cost estimate counts their transfer."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield all entries, in an order that depends on the source alone.

        Raises: SourceError, or SettingError, for a source that cannot be listed.
        """

    def listing(self) -> Iterator[Entry | PassedOver]:
        """Yield all entries, and what the source passes over: together, all that it holds.

        Raises: as `entries`.
        """
        return self.entries()

    def read(self, entry: Entry, cache: Path) -> bytes:
        """Return the bytes of an entry. Raises: EntryReadError where it has none."""
        return read_entry(entry)

    def prefetch(self, entries: Sequence[Entry], cache: Path) -> dict[str, str]:
        """Make entries ready to be read; return the reason of each failure by the path of its entry."""
        return {}
