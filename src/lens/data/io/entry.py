"""An entry: one image of a source, before its bytes are decoded, and what a source passes over."""

from pathlib import Path
from typing import NamedTuple

from lens.data.io.image_decoding import ImageError
from lens.errors import LensError

UNKNOWN_SIZE = -1
"""Size in bytes of an entry that is downloaded or rendered later."""


class SourceError(LensError):
    """A source that cannot be listed or read; one broken entry does not raise it."""


class EntryReadError(ImageError, LensError):
    """An entry whose bytes cannot be read: one word for the ledger, and a detail for people."""


class Entry(NamedTuple):
    """Where the bytes of an image are, and the captions and licence that came with it."""

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
    brief: str = ""
    """The brief caption that came with the image, beside the full one; empty for none."""
    fault: str = ""
    """Why the entry cannot be used, one word for the ledger; empty for a sound entry."""
    detail: str = ""
    """The fault, for people."""


class PassedOver(NamedTuple):
    """A file or folder of a source that is no entry, and why."""

    kind: str
    """What it is, in a few words; the same for all of a kind."""
    address: str


def faulty_entry(address: str, fault: str, detail: str, path: str = "") -> Entry:
    """Return an entry that goes to the ledger for its fault."""
    return Entry(address, path, 0, UNKNOWN_SIZE, "", "", "", fault, detail)


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry: fewer where the file has become shorter.

    Raises: EntryReadError with the reason missing or unreadable, or the fault of the entry.
    """
    if entry.fault:
        raise EntryReadError(entry.fault, entry.detail)
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.num_bytes)
    except FileNotFoundError as error:
        raise EntryReadError("missing", f"{entry.path} does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EntryReadError("unreadable", f"{entry.path} cannot be read: {reason}") from error
