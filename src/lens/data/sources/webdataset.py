"""WebDataset tars: the files of a sample share a key, and nothing is unpacked to disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lens.data.io.entry import Entry, PassedOver, SourceError, faulty_entry
from lens.data.io.sample import merge_sidecars
from lens.data.io.text_values import escape_surrogates
from lens.data.sources.base import DataSource
from lens.data.sources.folder_walk import FolderWalk, WalkedFile, WalkedFolder, kind_of_file
from lens.data.sources.tar_samples import TarBreak, TarImage, tar_contents

COMPRESSED_ENDINGS = (".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst")
COMPRESSED_MAGIC = (b"\x1f\x8b", b"\xfd7zXZ", b"BZh", b"\x28\xb5\x2f\xfd")
"""First bytes of gzip, xz, bzip2 and zstd."""


class WebDatasetSource(DataSource):
    """A folder of WebDataset tars, such as the shards of a build."""

    kind: Literal["tars"] = "tars"
    path: Path
    """Folder of `.tar` files, at any depth, or one such file."""
    licence: str = ""
    """Licence of every sample that comes without one."""
    allows_outside: bool = False
    """Whether links may lead out of it; they could expose other files of this machine."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draw where an image has several captions."""

    def entries(self) -> Iterator[Entry]:
        """Yield the images of all tars, in the order of the tars' names, then of their members.

        A tar that is broken gives the entries before the break, and one for the break.
        Raises: SourceError where there is no tar.
        """
        return (one for one in self.listing() if isinstance(one, Entry))

    def listing(self) -> Iterator[Entry | PassedOver]:
        """Yield the images of all tars, and all that is passed over.

        Raises: SourceError where there is no tar.
        """
        if self.path.is_file() and _is_tar(self.path.name):
            yield from self._tar_entries(WalkedFile(self.path.name, self.path, self.path.stat().st_size), "")
            return
        num_tars = 0
        if self.path.is_dir():
            walk = FolderWalk(self.path, self.allows_outside)
            for one in self._list_folder(walk, walk.root):
                num_tars += isinstance(one, Entry)
                yield one
        if not num_tars:
            raise SourceError(f"source.path is {str(self.path)!r}, which is not a folder of .tar files.")

    def _list_folder(self, walk: FolderWalk, folder: WalkedFolder) -> Iterator[Entry | PassedOver]:
        for child in walk.children(folder):
            if isinstance(child, WalkedFolder):
                yield from self._list_folder(walk, child)
            elif not isinstance(child, WalkedFile):
                yield child
            elif _is_tar(child.name):
                yield from self._tar_entries(child, folder.prefix)
            else:
                yield PassedOver(kind_of_file(child.name), escape_surrogates(folder.prefix + child.name))

    def _tar_entries(self, file: WalkedFile, prefix: str) -> Iterator[Entry | PassedOver]:
        name = escape_surrogates(prefix + file.name)
        if fault := _tar_fault(file):
            yield faulty_entry(name, *fault, path=str(file.path))
            return
        num_found = 0
        for one in tar_contents(file.path):
            num_found += 1
            if isinstance(one, TarImage):
                yield self._image_entry(file, f"{name}::{one.name}", one)
            elif isinstance(one, TarBreak):
                yield faulty_entry(name, "broken_tar", f"{name} {one.reason}", str(file.path))
            else:
                yield PassedOver(one.kind, f"{name}::{one.address}")
        if not num_found:
            yield faulty_entry(name, "empty_tar", f"{name} has no file in it", str(file.path))

    def _image_entry(self, file: WalkedFile, address: str, image: TarImage) -> Entry:
        found = merge_sidecars(image.texts, f"{self.seed}:{address}")
        if image.fault:
            return faulty_entry(address, "ambiguous_key", image.fault, str(file.path))
        if found.fault:
            return faulty_entry(address, "broken_caption", found.fault, str(file.path))
        licence = found.licence or self.licence
        return Entry(
            address, str(file.path), image.offset, image.num_bytes, found.caption, licence, found.brief
        )


def _is_tar(name: str) -> bool:
    return name.lower().endswith((".tar", *COMPRESSED_ENDINGS))


def _tar_fault(file: WalkedFile) -> tuple[str, str] | None:
    """Return why a file cannot be read as a tar at all, and the detail."""
    name = escape_surrogates(file.name)
    try:
        with file.path.open("rb") as opened:
            start = opened.read(6)
    except OSError as error:
        return "unreadable", f"{name} cannot be read: {error.strerror}"
    if not start:
        return "empty_tar", f"{name} has no bytes"
    if start.startswith(COMPRESSED_MAGIC):
        return "compressed_tar", f"{name} is compressed, so its members cannot be read alone. Decompress it"
    return None
