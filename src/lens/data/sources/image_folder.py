"""A folder of pictures, at any depth; a caption is in the `.txt` or `.json` file of the same name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lens.config import Settings
from lens.data.io.entry import Entry, SourceError, parse_sidecar

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class ImageFolderSource(Settings):
    kind: Literal["folder"] = "folder"
    path: Path
    """Root of the pictures."""
    licence: str = ""
    """Of everything below, where a sidecar does not name another."""


def image_folder_entries(source: ImageFolderSource) -> Iterator[Entry]:
    """Yield the pictures below the root, in the order of their paths' bytes.

    Links are not followed: one that leads out of the root would read what nobody meant to share.
    Raises: SourceError for a root that is not a folder.
    """
    root = source.path
    if not root.is_dir():
        raise SourceError(f"source.path is {str(root)!r}, which is no folder. Name the root of the pictures.")
    for path in _walk_files(root):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in IMAGE_EXTENSIONS:
            caption, licence = _read_sidecar(path)
            size = path.stat().st_size
            yield Entry(name, str(path), 0, size, caption, licence or source.licence)


def _walk_files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        inside = sorted(found, key=lambda one: os.fsencode(one.name))
    for one in inside:
        if one.is_dir(follow_symlinks=False):
            yield from _walk_files(Path(one.path))
        elif one.is_file(follow_symlinks=False):
            yield Path(one.path)


def _read_sidecar(path: Path) -> tuple[str, str]:
    for suffix in (".txt", ".json"):
        sidecar = path.with_suffix(suffix)
        if sidecar.is_file() and not sidecar.is_symlink():
            caption, licence = parse_sidecar(sidecar.read_text(errors="replace"), suffix == ".json")
            if caption:
                return caption, licence
    return "", ""
