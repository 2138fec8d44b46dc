"""All state of a server, opened together: jobs with their pictures, keys, what callers sent.

One server holds a state folder at a time. Knows nothing of HTTP or of engines.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.api_keys import ApiKeyStore
from lens.serve.storage.blob_store import BlobStore
from lens.serve.storage.database import Database, storage_error
from lens.serve.storage.jobs import JobStore

UPLOAD_GRACE_S = 60.0
"""How long an upload may take from being stored to being named by a job."""
UNUSED_UPLOAD_TTL_S = 3600.0
"""How long an upload stays that no job names: a request that is answered at once may need it."""


class UploadStore:
    """Pictures that callers sent, by the hash of their content."""

    def __init__(self, folder: Path):
        self._folder = folder

    def put(self, content: bytes, suffix: str = ".png") -> Path:
        """Store what was sent and return where it lies."""
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}{suffix}"
        if path.is_file():
            os.utime(path)
            return path
        return write_bytes_atomic(path, content)

    def delete_unused(
        self,
        used: set[str],
        candidates: Iterable[Path] | None = None,
        older_than_s: float = UNUSED_UPLOAD_TTL_S,
    ) -> None:
        """Delete what no job names any more and nobody sent lately: that may be on its way to a job."""
        now = time.time()
        for path in self._folder.glob("*.*") if candidates is None else candidates:
            if str(path) not in used and path.is_file() and path.stat().st_mtime < now - older_than_s:
                path.unlink(missing_ok=True)


class ServerState(NamedTuple):
    """The state of a server."""

    database: Database
    jobs: JobStore
    api_keys: ApiKeyStore
    uploads: UploadStore
    lock: BinaryIO | None

    def close(self) -> None:
        """Give the state back."""
        self.database.close()
        if self.lock is not None:
            self.lock.close()


def open_server_state(settings: ServerSettings, is_shared: bool = False) -> ServerState:
    """Open a server's state, made where there is none; `is_shared` looks at it beside a server.

    Raises: SettingError where another server holds the folder, or a URL cannot be used; StorageError.
    """
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
        lock = None if is_shared else _acquire_lock(settings.state)
    except OSError as error:
        raise storage_error(error) or error from error
    database = Database(settings.effective_database_url)
    jobs = JobStore(database, BlobStore(settings.effective_images_url))
    return ServerState(database, jobs, ApiKeyStore(database), UploadStore(settings.uploads_folder), lock)


def _acquire_lock(folder: Path) -> BinaryIO:
    import fcntl

    file = open(folder / "lock", "wb")  # noqa: SIM115 (held as long as the server runs)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        fix = "Stop that one, or give this one its own folder."
        raise SettingError("state", str(folder), "a folder that no other server uses", fix) from error
    return file
