"""WebDataset tars: samples are files with one key; nothing is ever unpacked to disk."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lens.config import Settings
from lens.data.io.entry import Entry, SourceError, caption_in
from lens.data.sources.image_folder import EXTENSIONS

LONGEST_SIDECAR = 2**20
"""Bytes of a caption; longer members are not read."""


class TarSource(Settings):
    kind: Literal["tars"] = "tars"
    path: Path
    """Folder of `.tar` files."""
    licence: str = ""
    """Of everything inside, where a sample does not name another."""


def entries(source: TarSource) -> Iterator[Entry]:
    """Yield the pictures of all tars in the order of names, then of members.

    A tar that is broken gives what comes before the break. Raises: SourceError where there is no tar.
    """
    paths = sorted(source.path.glob("*.tar")) if source.path.is_dir() else []
    if not paths:
        raise SourceError(f"source.path is {str(source.path)!r}, which is no folder with .tar files in it.")
    for path in paths:
        yield from _entries_of(path, source.licence)


def _entries_of(path: Path, licence: str) -> Iterator[Entry]:
    key, pictures, caption, own = None, [], "", ""
    for member, text in _members(path):
        folder, slash, name = member.name.rpartition("/")
        base, _, extension = name.partition(".")
        stem = folder + slash + base
        if stem != key:
            yield from (one._replace(caption=caption, licence=own or licence) for one in pictures)
            key, pictures, caption, own = stem, [], "", ""
        if f".{extension.lower()}" in EXTENSIONS:
            address = f"{path.name}::{member.name}"
            pictures.append(Entry(address, str(path), member.offset_data, member.size, "", ""))
        elif text is not None and not caption:
            caption, own = caption_in(text, extension == "json")
    yield from (one._replace(caption=caption, licence=own or licence) for one in pictures)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Yield regular members, with the text of those that may be captions."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                is_text = member.name.endswith((".txt", ".json")) and member.size <= LONGEST_SIDECAR
                yield member, tar.extractfile(member).read().decode(errors="replace") if is_text else None  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError):
        return
