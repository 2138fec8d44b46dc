"""One picture of a source before anybody looked at its bytes."""

from pathlib import Path
from typing import NamedTuple

from lens.errors import LensError

UNKNOWN_SIZE = -1
"""Of an entry that is still to be fetched."""


class SourceError(LensError):
    """A source that cannot be listed or read; a single broken entry is not one."""


class Entry(NamedTuple):
    """Where a picture's bytes are, and what came with it."""

    address: str
    """Unique in its source, and the same on every machine: a path below the source's root, or tar::member."""
    path: str
    """The file that holds the bytes, or the address that they are fetched from."""
    offset: int
    """Of the first byte in the file."""
    num_bytes: int
    caption: str
    """What came beside the picture; empty for none."""
    licence: str


def read_entry(entry: Entry) -> bytes:
    """Return an entry's bytes; fewer where the file has become shorter, none where it is gone."""
    try:
        with Path(entry.path).open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.num_bytes)
    except OSError:
        return b""


def parse_sidecar(text: str, is_json: bool) -> tuple[str, str]:
    """Return the caption and the licence that a sidecar holds; empty where it has none."""
    if not is_json:
        return text.strip(), ""
    import json

    try:
        facts = json.loads(text)
    except ValueError:
        return "", ""
    if not isinstance(facts, dict):
        return "", ""
    names = ("caption", "text", "description", "title")
    caption = next((facts[name] for name in names if facts.get(name)), "")
    return str(caption).strip(), str(facts.get("licence") or facts.get("license") or "")
