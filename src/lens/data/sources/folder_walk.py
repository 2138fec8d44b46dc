"""The walk through a folder: every file below it once, in the byte order of paths, and what is passed over.

Links to files are followed, out of the root only where that is allowed: a link could expose other files.
Hidden files and those that programs derive from images are passed over. Knows nothing of captions.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from lens.data.io.entry import Entry, PassedOver, faulty_entry
from lens.data.io.text_values import escape_surrogates

DERIVED_NAMES = {
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "__macosx",
    "__pycache__", "lost+found", "system volume information", "thumbs.db", "ehthumbs.db",
    "ehthumbs_vista.db", "desktop.ini", "_latent_cache", "_t_e_cache", "_controls",
}  # fmt: skip
"""Names, in lower case, of what cameras, systems, viewers and trainers put beside images."""
MAX_EXTENSION_CHARACTERS = 16
HIDDEN = "hidden or derived files"
LINK_OUT = "links out of the source"
BROKEN_LINK = "broken links"
LINK_LOOP = "links in a loop"
FOLDER_LINK = "links to folders of the source"
SPECIAL = "special files"
BUILD_FOLDER = "folders of a build"


MAX_DEPTH = 100
"""Folders inside each other."""


class WalkedFile(NamedTuple):
    """A file of a folder."""

    name: str
    path: Path
    """Where its bytes are: the end of the link for a link."""
    num_bytes: int


class WalkedFolder(NamedTuple):
    """A folder that is to be read."""

    prefix: str
    """Its path below the root, with a slash at its end; empty for the root."""
    path: Path
    depth: int = 0


WalkedChild = WalkedFile | WalkedFolder | PassedOver | Entry
"""What a folder holds; an entry is one with a fault, for what cannot be read."""


class FolderWalk:
    """One walk through a root folder, a folder at a time."""

    def __init__(self, root: Path, allows_outside: bool):
        self.root = WalkedFolder("", root)
        """Where the walk begins."""
        self._allows_outside = allows_outside
        self._real_root = root.resolve()
        self._followed: set[Path] = set()

    def children(self, folder: WalkedFolder) -> list[WalkedChild]:
        """Return the children of a folder in the byte order of their names."""
        try:
            if folder.depth > MAX_DEPTH:
                raise OSError(0, f"it is more than {MAX_DEPTH} folders deep")
            with os.scandir(folder.path) as scanned:
                children = sorted(scanned, key=lambda child: os.fsencode(child.name))
        except OSError as error:
            detail = f"{escape_surrogates(str(folder.path))} cannot be read: {error.strerror}"
            return [faulty_entry(escape_surrogates(folder.prefix), "unreadable_folder", detail)]
        if folder.depth and {"inventory", "recipe.yaml"} <= {child.name for child in children}:
            return [PassedOver(BUILD_FOLDER, escape_surrogates(folder.prefix))]
        return [self._child(folder, child) for child in children]

    def _child(self, folder: WalkedFolder, child: os.DirEntry[str]) -> WalkedChild:
        address = escape_surrogates(folder.prefix + child.name)
        if is_derived(child.name):
            return PassedOver(HIDDEN, address)
        path = Path(child.path)
        try:
            if child.is_symlink():
                path = Path(os.path.realpath(path, strict=True))
                if reason := self._refusal(folder, path):
                    return PassedOver(reason, address)
            status = path.stat()
        except FileNotFoundError:
            return PassedOver(BROKEN_LINK, address)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return PassedOver(LINK_LOOP, address)
            return faulty_entry(address, "unreadable", f"{address} cannot be read: {error.strerror}")
        if stat.S_ISDIR(status.st_mode):
            return WalkedFolder(f"{folder.prefix}{child.name}/", path, folder.depth + 1)
        is_file = stat.S_ISREG(status.st_mode)
        return WalkedFile(child.name, path, status.st_size) if is_file else PassedOver(SPECIAL, address)

    def _refusal(self, folder: WalkedFolder, target: Path) -> str:
        """Return why a link is not followed; empty where it is."""
        is_inside = target.is_relative_to(self._real_root)
        if target.is_dir():
            if folder.path.resolve().is_relative_to(target):
                return LINK_LOOP
            if is_inside or target in self._followed:
                return FOLDER_LINK  # its files are listed where they are
        if is_inside or self._allows_outside or is_blob(self._real_root, target):
            self._followed.add(target)
            return ""
        return LINK_OUT


def is_derived(name: str) -> bool:
    """Return whether a file or folder with this name is hidden, or derived from others by a program."""
    is_hidden = name.startswith(".") and name not in (".", "..")
    return is_hidden or name.lower() in DERIVED_NAMES or name.upper().startswith("SYNOPHOTO_")


def kind_of_file(name: str) -> str:
    """Return what a file that nothing reads is called, by its extension."""
    extension = escape_surrogates(name).rpartition(".")[2].lower() if "." in name else ""
    has_one = 0 < len(extension) <= MAX_EXTENSION_CHARACTERS
    return f".{extension} files" if has_one else "files without an extension"


def is_blob(root: Path, target: Path) -> bool:
    """Return whether a root is in a snapshot of the Hugging Face Hub's cache and a target is a file of it."""
    snapshots = next((folder for folder in root.parents if folder.name == "snapshots"), None)
    return snapshots is not None and target.is_relative_to(snapshots.parent / "blobs")
