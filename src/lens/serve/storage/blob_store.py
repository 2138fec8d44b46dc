"""The blob store: image files by the hash of their content, in a folder or any storage of fsspec.

Equal contents are one file. Knows nothing of references: callers delete only files that nothing refers to.
"""

import hashlib
from pathlib import Path
from uuid import uuid4

from lens.errors import MissingExtraError, SettingError
from lens.files import write_bytes_atomic

PROBE_BYTES = 64 * 2**10


def blob_name(file: str) -> str:
    """Return the name of a blob whose file name is the hash of its content."""
    return f"{file[:2]}/{file}"


def check_writable_folder(folder: Path) -> None:
    """Raise OSError if no file of some size can be written into a folder."""
    path = write_bytes_atomic(folder / f".probe-{uuid4().hex}", bytes(PROBE_BYTES), mode=0o600)
    path.unlink(missing_ok=True)


class BlobStore:
    """A storage of files."""

    def __init__(self, url: str):
        """Open a storage by its URL or folder.

        Raises: SettingError for an unknown kind of URL; MissingExtraError.
        """
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtraError("Serving", "fsspec", "serve") from error
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            needs = "a folder or a URL that fsspec supports"
            raise SettingError("pictures_url", url, needs, f"{error}.") from error
        self._is_local = "file" in str(self._filesystem.protocol)

    def put(self, content: bytes, suffix: str) -> str:
        """Store a file, whole or not at all, and return its name. Raises: OSError."""
        name = blob_name(f"{hashlib.sha256(content).hexdigest()}{suffix}")
        path = self._path(name)
        if self._filesystem.exists(path) and self._filesystem.size(path) == len(content):
            return name
        if self._is_local:
            write_bytes_atomic(Path(path), content)
        else:
            self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._filesystem.pipe_file(path, content)
        return name

    def check_writable(self) -> None:
        """Raise OSError if a folder cannot be written; storage elsewhere is not asked."""
        if self._is_local:
            check_writable_folder(Path(self._root))

    def get(self, name: str) -> bytes:
        """Return a file's content. Raises: FileNotFoundError; OSError."""
        return self._filesystem.cat_file(self._path(name))

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        try:
            self._filesystem.rm_file(self._path(name))
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
