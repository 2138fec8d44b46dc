"""The state of a server, opened as a whole: jobs with their images, API keys, uploads.

Only one server at a time opens a state folder. Knows nothing of HTTP or of engines.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.api_keys import ApiKeyStore
from lens.serve.storage.blob_store import BlobStore, blob_name, check_writable_folder
from lens.serve.storage.database import Database, storage_error
from lens.serve.storage.jobs import JobStore
from lens.serve.storage.name_lease import NameLease

logger = logging.getLogger(__name__)
UPLOAD_GRACE_S = 60.0
"""Maximum time between the storage of an upload and the job that refers to it."""
PRIVATE_FOLDERS = ("uploads", "pictures", "gallery")
"""Folders of the state that only the server's account may read."""
CHECK_INTERVAL_S = 2.0
"""Minimum time between two checks that storage can be written."""
UNUSED_UPLOAD_TTL_S = 3600.0
"""How long an upload without a job is kept: a synchronous request may need it."""


class UploadStore:
    """Uploaded images, by the hash of their content; `shared` holds copies for the other servers' turns."""

    def __init__(self, folder: Path, shared: BlobStore | None = None):
        self._folder, self._shared = folder, shared

    def put(self, content: bytes, suffix: str = ".png") -> Path:
        """Store an upload and return its path."""
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}{suffix}"
        if self._shared is not None:
            self._shared.put(content, suffix)
        if path.is_file():
            os.utime(path)
            return path
        return write_bytes_atomic(path, content, mode=0o600)

    def fetch(self, path: Path) -> None:
        """Copy an upload of another server into the folder of this one, if it is not there.

        Raises: SettingError if nobody has it; OSError.
        """
        if path.is_file():
            return
        try:
            if self._shared is None:
                raise FileNotFoundError(path)
            write_bytes_atomic(path, self._shared.get(blob_name(path.name)), mode=0o600)
        except FileNotFoundError as error:
            needs = "an upload that is still stored"
            raise SettingError("image", path.name, needs, "Send it again.") from error

    def check_writable(self) -> None:
        """Raise OSError if nothing can be stored."""
        check_writable_folder(self._folder)

    def delete_unused(
        self,
        used: set[str],
        candidates: Iterable[Path] | None = None,
        older_than_s: float = UNUSED_UPLOAD_TTL_S,
    ) -> None:
        """Delete uploads that no job refers to; recent ones stay, as a job may be about to refer to them."""
        now = time.time()
        for path in self._folder.glob("*.*") if candidates is None else candidates:
            if path.name not in used and path.is_file() and path.stat().st_mtime < now - older_than_s:
                path.unlink(missing_ok=True)
                if self._shared is not None:
                    self._shared.delete(blob_name(path.name))


@dataclass
class ServerState:
    """The state of a server."""

    database: Database
    jobs: JobStore
    api_keys: ApiKeyStore
    uploads: UploadStore
    lock: BinaryIO | None
    lease: NameLease | None
    """The name of this server; None beside a running server."""
    _problems: list[str] = field(default_factory=list)
    _checked_at: float = float("-inf")

    def problems(self) -> list[str]:
        """Return what keeps the server from storing jobs and images; checked at most every two seconds."""
        if time.monotonic() - self._checked_at > CHECK_INTERVAL_S:
            self._problems, self._checked_at = self._find_problems(), time.monotonic()
        return self._problems

    def _find_problems(self) -> list[str]:
        assert self.lease is not None, "only a server's own state is checked"
        checks = {
            "The database cannot be written.": self.lease.acquire,
            "The folder of uploads cannot be written.": self.uploads.check_writable,
            "The store of images cannot be written.": self.jobs.images.blobs.check_writable,
        }
        problems = []
        for problem, check in checks.items():
            try:
                check()
            except Exception as error:
                logger.error("%s (%s)", problem, error)
                problems.append(problem)
        return problems

    def close(self) -> None:
        """Give up the name, close the database and release the folder."""
        if self.lease is not None:
            with suppress(Exception):  # a database that is out of reach: the lease ends by itself
                self.lease.release()
        self.database.close()
        if self.lock is not None:
            self.lock.close()


def open_server_state(settings: ServerSettings, is_shared: bool = False) -> ServerState:
    """Open the state of a server, and create it if needed; `is_shared` opens it beside a running server.

    Raises: SettingError if another server uses the folder or the name, or a URL cannot be used; StorageError.
    """
    try:
        _create_private_folders(settings.state)
        lock = None if is_shared else _acquire_lock(settings.state)
    except OSError as error:
        raise storage_error(error) or error from error
    database = Database(settings.effective_database_url)
    blobs = BlobStore(settings.effective_images_url)
    jobs = JobStore(database, blobs)
    uploads = UploadStore(settings.uploads_folder, blobs if settings.database_url is not None else None)
    lease = None if is_shared else NameLease(database, settings.state, settings.name)
    state = ServerState(database, jobs, ApiKeyStore(database), uploads, lock, lease)
    try:
        if lease is not None:
            lease.acquire()
    except Exception as error:
        failure = storage_error(error)
        if failure is None:
            state.close()
            raise
        logger.error("%s", failure)  # the job worker tries again until it succeeds
    return state


def _create_private_folders(state: Path) -> None:
    """Create the folders of a state; those inside and the database are for the server's account alone."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in PRIVATE_FOLDERS:
        (state / name).mkdir(mode=0o700, exist_ok=True)
    # Older versions left them to the umask; another owner's files cannot be changed.
    with suppress(OSError):
        for name in PRIVATE_FOLDERS:
            (state / name).chmod(0o700)
        for file in state.glob("lens.sqlite*"):
            file.chmod(0o600)


def _acquire_lock(folder: Path) -> BinaryIO:
    import fcntl

    file = open(folder / "lock", "wb")  # noqa: SIM115 (open as long as the server runs)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        fix = "Stop the other server, or set another folder with --state."
        raise SettingError("state", str(folder), "a folder that no other server uses", fix) from error
    return file
