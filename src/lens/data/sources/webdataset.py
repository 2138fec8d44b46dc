"""WebDataset tars: samples are files with one key; nothing is ever unpacked to disk."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lens.config import Settings
from lens.data.io.entry import Entry, SourceError, parse_sidecar
from lens.data.sources.image_folder import IMAGE_EXTENSIONS

MAX_SIDECAR_BYTES = 2**20
"""Bytes of a caption; longer members are not read."""


class WebDatasetSource(Settings):
    kind: Literal["tars"] = "tars"
    path: Path
    """Folder of `.tar` files."""
    licence: str = ""
    """Of everything inside, where a sample does not name another."""


def webdataset_entries(source: WebDatasetSource) -> Iterator[Entry]:
    """Yield the pictures of all tars in the order of names, then of members.

    A tar that is broken gives what comes before the break. Raises: SourceError where there is no tar.
    """
    paths = sorted(source.path.glob("*.tar")) if source.path.is_dir() else []
    if not paths:
        raise SourceError(f"source.path is {str(source.path)!r}, which is no folder with .tar files in it.")
    for path in paths:
        yield from _tar_entries(path, source.licence)


def _tar_entries(path: Path, licence: str) -> Iterator[Entry]:
    key, images, caption, own_licence = None, [], "", ""
    for member, text in _members(path):
        folder, slash, name = member.name.rpartition("/")
        base, _, extension = name.partition(".")
        stem = folder + slash + base
        if stem != key:
            yield from (one._replace(caption=caption, licence=own_licence or licence) for one in images)
            key, images, caption, own_licence = stem, [], "", ""
        if f".{extension.lower()}" in IMAGE_EXTENSIONS:
            address = f"{path.name}::{member.name}"
            images.append(Entry(address, str(path), member.offset_data, member.size, "", ""))
        elif text is not None and not caption:
            caption, own_licence = parse_sidecar(text, extension == "json")
    yield from (one._replace(caption=caption, licence=own_licence or licence) for one in images)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Yield regular members, with the text of those that may be captions."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                is_text = member.name.endswith((".txt", ".json")) and member.size <= MAX_SIDECAR_BYTES
                yield member, tar.extractfile(member).read().decode(errors="replace") if is_text else None  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, EOFError):
        return
