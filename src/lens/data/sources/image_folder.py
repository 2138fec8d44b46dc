"""Image folders, at any depth; captions and licences are in `.txt` and `.json` files of the same name."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lens.data.io.entry import Entry, SourceError
from lens.data.io.image_decoding import IMAGE_EXTENSIONS
from lens.data.io.sample import BRIEF_CAPTION, FULL_CAPTION, Sidecar, merge_sidecars
from lens.data.sources.base import DataSource

SIDECARS = (FULL_CAPTION, "json", BRIEF_CAPTION)
"""Extensions of the files beside an image that are read."""


class ImageFolderSource(DataSource):
    """A folder of image files."""

    kind: Literal["folder"] = "folder"
    path: Path
    """Root folder of the images."""
    licence: str = ""
    """Licence of every image whose JSON file names none."""

    def entries(self) -> Iterator[Entry]:
        """Yield the images below the root, in the byte order of their paths.

        Symbolic links are not followed: a link that leads out of the root could expose other files.
        Raises: SourceError for a root that is not a folder.
        """
        root = self.path
        if not root.is_dir():
            fix = "Set it to the root folder of the images."
            raise SourceError(f"source.path is {str(root)!r}, which is not a folder. {fix}")
        for path in _walk_files(root):
            if path.suffix.lower() in IMAGE_EXTENSIONS:
                name, size = path.relative_to(root).as_posix(), path.stat().st_size
                caption, licence = _read_sidecars(path)
                yield Entry(name, str(path), 0, size, caption, licence or self.licence)


def _walk_files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as scanned:
        children = sorted(scanned, key=lambda child: os.fsencode(child.name))
    for child in children:
        if child.is_dir(follow_symlinks=False):
            yield from _walk_files(Path(child.path))
        elif child.is_file(follow_symlinks=False):
            yield Path(child.path)


def _read_sidecars(path: Path) -> Sidecar:
    paths = {extension: path.with_suffix(f".{extension}") for extension in SIDECARS}
    texts = {
        extension: sidecar.read_text(errors="replace")
        for extension, sidecar in paths.items()
        if sidecar.is_file() and not sidecar.is_symlink()
    }
    return merge_sidecars(texts)
