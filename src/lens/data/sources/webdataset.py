"""WebDataset tars: the files of a sample share a key, and nothing is unpacked to disk."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

from lens.data.io.entry import Entry, SourceError
from lens.data.io.sample import is_image, is_sidecar, merge_sidecars
from lens.data.io.webdataset import split_member_name
from lens.data.sources.base import DataSource

MAX_SIDECAR_BYTES = 2**20
"""Longer side files are not read."""


class WebDatasetSource(DataSource):
    """A folder of WebDataset tars, such as the shards of a build."""

    kind: Literal["tars"] = "tars"
    path: Path
    """Folder of `.tar` files."""
    licence: str = ""
    """Licence of every sample whose JSON file names none."""

    def entries(self) -> Iterator[Entry]:
        """Yield the images of all tars, in the order of the tars' names, then of their members.

        A tar that is broken gives the entries before the break. Raises: SourceError where there is no tar.
        """
        paths = sorted(self.path.glob("*.tar")) if self.path.is_dir() else []
        if not paths:
            raise SourceError(f"source.path is {str(self.path)!r}, which is not a folder of .tar files.")
        for path in paths:
            for _, members in groupby(_members(path), key=lambda member: member.key):
                yield from _sample_entries(path, list(members), self.licence)


class _Member(NamedTuple):
    name: str
    key: str
    extension: str
    """In lower case, after the first dot: `jpg`, `brief.txt`."""
    offset: int
    size: int
    text: str | None
    """Of side files alone."""


def _sample_entries(path: Path, members: list[_Member], default_licence: str) -> Iterator[Entry]:
    texts = {one.extension: one.text for one in reversed(members) if one.text is not None}
    caption, licence = merge_sidecars(texts)
    for one in members:
        if is_image(one.extension):
            address = f"{path.name}::{one.name}"
            yield Entry(address, str(path), one.offset, one.size, caption, licence or default_licence)


def _members(path: Path) -> Iterator[_Member]:
    """Yield the regular members of a tar up to the end, or to the first break."""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, extension = split_member_name(member.name)
                is_text = is_sidecar(extension) and member.size <= MAX_SIDECAR_BYTES
                text = tar.extractfile(member).read().decode(errors="replace") if is_text else None  # type: ignore[union-attr]
                yield _Member(member.name, key, extension, member.offset_data, member.size, text)
    except (tarfile.TarError, OSError, EOFError):
        return
