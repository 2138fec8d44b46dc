"""Image folders, at any depth, with captions and licences in the forms that trainers use."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import Field

from lens.data.io.entry import Entry, PassedOver, SourceError, faulty_entry
from lens.data.io.image_decoding import IMAGE_EXTENSIONS
from lens.data.io.image_types import PREFIX_BYTES, image_type
from lens.data.io.sample import (
    BRIEF_CAPTION,
    FULL_CAPTION,
    MAX_SIDECAR_BYTES,
    SIDECAR_EXTENSIONS,
    Sidecar,
    merge_sidecars,
)
from lens.data.io.text_values import escape_surrogates
from lens.data.sources.base import DataSource
from lens.data.sources.folder_metadata import (
    CAPTION_WITHOUT_IMAGE,
    FolderMetadata,
    is_metadata,
    normalize_name,
    read_metadata,
)
from lens.data.sources.folder_walk import FolderWalk, WalkedFile, WalkedFolder, kind_of_file
from lens.data.sources.passed_over import UNPACK, is_archive

COMPANION_SUFFIXES = ("-masklabel", "-condlabel")
"""What OneTrainer puts after the name of an image for its mask and its condition."""
COMPANION = "masks and conditions of other images"
REPEATS_NAME = re.compile(r"([2-9]|[1-9][0-9]{1,2})_.+")
"""Name of a folder for kohya's trainer: how often an epoch shows its images, and what they are."""
REPEATS = "repeats in names of folders, as each image counts once"
CAPTION_FILE_EXTENSIONS = tuple(f".{one}" for one in SIDECAR_EXTENSIONS if "." not in one)


class ImageFolderSource(DataSource):
    """A folder of image files."""

    kind: Literal["folder"] = "folder"
    path: Path
    """Root folder of the images."""
    licence: str = ""
    """Licence of every image that comes without one."""
    allows_outside: bool = False
    """Whether links may lead out of it; they could expose other files of this machine."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the draw where an image has several captions."""

    def entries(self) -> Iterator[Entry]:
        """Yield the images below the root, in the byte order of their paths.

        Raises: SourceError for a root that is not a folder.
        """
        return (one for one in self.listing() if isinstance(one, Entry))

    def listing(self) -> Iterator[Entry | PassedOver]:
        """Yield the images below the root, and all that is passed over.

        Raises: SourceError for a root that is not a folder.
        """
        if not self.path.is_dir():
            fix = UNPACK if is_archive(self.path) else "Set it to the root folder of the images."
            raise SourceError(f"source.path is {str(self.path)!r}, which is not a folder. {fix}")
        walk = FolderWalk(self.path, self.allows_outside)
        yield from self._list_folder(walk, walk.root, ())

    def _list_folder(
        self, walk: FolderWalk, folder: WalkedFolder, above: tuple[FolderMetadata, ...]
    ) -> Iterator[Entry | PassedOver]:
        children = walk.children(folder)
        files = _FolderFiles([one for one in children if isinstance(one, WalkedFile)])
        read = [read_metadata(folder.prefix, one.name, one.path) for one in files.metadata]
        own = [one for one in read if one is not None]
        metadata = (*reversed(own), *above)  # kohya's later steps have later names
        names_used = {one.name for one in own}
        if files.images and REPEATS_NAME.fullmatch(PurePath(folder.prefix or folder.path.absolute()).name):
            yield PassedOver(REPEATS, escape_surrogates(folder.prefix or folder.path.name))
        for child in children:
            if isinstance(child, WalkedFolder):
                yield from self._list_folder(walk, child, metadata)
            elif not isinstance(child, WalkedFile):
                yield child
            elif child.name in files.images:
                yield self._entry(folder, child, files, metadata)
            elif child.name in files.companions:
                yield PassedOver(COMPANION, escape_surrogates(folder.prefix + child.name))
            elif child.name not in files.sidecars_used and child.name not in names_used:
                yield PassedOver(_kind_of_other(child.name), escape_surrogates(folder.prefix + child.name))
        for one in own:
            yield from one.faults
            yield from one.unused()

    def _entry(
        self,
        folder: WalkedFolder,
        file: WalkedFile,
        files: "_FolderFiles",
        metadata: tuple[FolderMetadata, ...],
    ) -> Entry:
        address = escape_surrogates(folder.prefix + file.name)
        draw_key = f"{self.seed}:{address}"
        found = files.sidecar(file, draw_key)
        for one in metadata:
            below = one.sidecar(folder.prefix + file.name, draw_key)
            both = zip(found, below, strict=True)
            found = Sidecar(*(beside or listed for beside, listed in both))
        if found.fault:
            return faulty_entry(address, "broken_caption", found.fault, str(file.path))
        licence = found.licence or self.licence
        return Entry(address, str(file.path), 0, file.num_bytes, found.caption, licence, found.brief)


class _FolderFiles:
    """The files of one folder: which are images, and which side file belongs to which."""

    def __init__(self, files: list[WalkedFile]):
        self._sidecars: dict[str, dict[str, WalkedFile]] = {}
        """By the name that they share with their image, then by extension in lower case."""
        others = []
        self.images = {one.name for one in files if one.name.lower().endswith(IMAGE_EXTENSIONS)}
        for one in files:
            stem, dot, extension = one.name.rpartition(".")
            if dot and extension.lower() in SIDECAR_EXTENSIONS:
                self._sidecars.setdefault(normalize_name(stem), {})[extension.lower()] = one
            elif one.name not in self.images:
                others.append(one)
        self.images |= {one.name for one in others if _is_image_by_content(one)}
        stems = {_stem(name) for name in self.images}
        self.companions = {name for name in self.images if _companion_of(name) in stems}
        """Images that are no examples: they belong to another one."""
        self.images -= self.companions
        self.sidecars_used: set[str] = set()
        """Names of the side files that belong to an image."""
        for name in self.images:
            self.sidecars_used |= {one.name for one in self._sidecars_of(name).values()}
        self.metadata = [one for one in files if is_metadata(one.name) and one.name not in self.sidecars_used]

    def sidecar(self, image: WalkedFile, draw_key: str) -> Sidecar:
        """Return what the side files of an image say; those at the end of a link count where it has none."""
        files = self._sidecars_of(image.name)
        paths = {extension: one.path for extension, one in files.items()}
        if not paths and image.path.name != image.name:
            linked = {one: image.path.with_suffix(f".{one}") for one in SIDECAR_EXTENSIONS}
            paths = {extension: path for extension, path in linked.items() if path.is_file()}
        texts = {}
        for extension, path in paths.items():
            try:
                with path.open("rb") as file:
                    texts[extension] = file.read(MAX_SIDECAR_BYTES + 1)
            except OSError as error:
                return Sidecar(fault=f".{extension} cannot be read: {error.strerror}")
        return merge_sidecars(texts, draw_key)

    def _sidecars_of(self, name: str) -> dict[str, WalkedFile]:
        """Return the side files of `a.jpg` by extension: `a.txt`, `a.brief.txt` or `a.jpg.txt`."""
        whole, stem = normalize_name(name), normalize_name(_stem(name))
        brief = self._sidecars.get(f"{stem}.{BRIEF_CAPTION.partition('.')[0]}", {})
        found = self._sidecars.get(whole, {}) | self._sidecars.get(stem, {})
        return found | ({BRIEF_CAPTION: brief[FULL_CAPTION]} if FULL_CAPTION in brief else {})


def _stem(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem else name


def _companion_of(name: str) -> str:
    """Return the stem of the image that one is the mask or the condition of; empty for any other."""
    stem = _stem(name)
    return next((stem.removesuffix(one) for one in COMPANION_SUFFIXES if stem.endswith(one)), "")


def _is_image_by_content(file: WalkedFile) -> bool:
    try:
        with file.path.open("rb") as opened:
            return bool(image_type(opened.read(PREFIX_BYTES)))
    except OSError:
        return False


def _kind_of_other(name: str) -> str:
    is_caption = name.lower().endswith(CAPTION_FILE_EXTENSIONS)
    return CAPTION_WITHOUT_IMAGE if is_caption else kind_of_file(name)
