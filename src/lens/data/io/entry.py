"""An entry: one image of a source, before its bytes are decoded."""

from pathlib import Path
from typing import NamedTuple

from lens.errors import LensError

UNKNOWN_SIZE = -1
"""Size in bytes of an entry that is downloaded or rendered later."""


class SourceError(LensError):
    """A source that cannot be listed or read; one broken entry does not raise it."""


class Entry(NamedTuple):
    """Where the bytes of an image are, and the caption and licence that came with it."""

    address: str
    """Unique in its source and the same on every machine: a path below the root, or tar::member."""
    path: str
    """The file that holds the bytes, or the URL that they are downloaded from."""
    offset: int
    """Position of the first byte in the file."""
    num_bytes: int
    caption: str
    """The caption that came with the image; empty for none."""
    licence: str


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry: fewer where the file has become shorter, none where it is gone."""
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.num_bytes)
    except OSError:
        return b""
