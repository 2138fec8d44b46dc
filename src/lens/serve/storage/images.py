"""The image store: finished images, a row in the database and a file in the blob store for each.

Equal files are stored once and deleted with the last image that refers to them. Knows nothing of HTTP or of
queues. All calls block; all are safe in any thread.
"""

import hashlib
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from lens.sampling.image_metadata import ImageMetadata
from lens.serve.storage.blob_store import BlobStore

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from lens.serve.storage.database import Database


class StoredImage(NamedTuple):
    """A finished image; its id is random, so that only its owner knows it."""

    id: str
    job_id: str
    owner: str
    number: int
    """Counted from 0, within its job."""
    file: str
    sha256: str
    num_bytes: int
    format: str
    width: int
    height: int
    prompt: str
    settings: dict[str, Any]
    created_at: float


class ImageStore:
    """The images of a server's jobs."""

    def __init__(self, database: "Database", blobs: BlobStore):
        self._engine, self._table, self.blobs = database.engine, database.tables["pictures"], blobs
        self._blobs_lock = threading.RLock()
        """Keeps a file from being deleted between its reuse and the row that refers to it."""

    def add(
        self, job_id: str, owner: str, number: int, content: bytes, image_format: str, metadata: ImageMetadata
    ) -> StoredImage:
        """Store a finished image and return it; where the job has one of this number, return that one.

        Raises: OSError; IntegrityError of SQLAlchemy if the job was deleted; other errors of the database.
        """
        with self._blobs_lock:
            file = self.blobs.put(content, f".{image_format}")
            row = StoredImage(
                id=uuid4().hex, job_id=job_id, owner=owner, number=number, file=file,
                sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content), format=image_format,
                width=metadata.width, height=metadata.height, prompt=metadata.prompt,
                settings=metadata.model_dump(mode="json", exclude_none=True), created_at=time.time(),
            )  # fmt: skip
            try:
                with self._engine.begin() as connection:
                    connection.execute(self._table.insert().values(**row._asdict()))
            except Exception as error:
                with suppress(Exception):
                    self.delete_unreferenced({file})
                # Two servers may draw one image; callers know the address of the first.
                existing = self._find_by_number(job_id, number, error)
                if existing is None:
                    raise
                return existing
        return row

    def _find_by_number(self, job_id: str, number: int, error: Exception) -> StoredImage | None:
        from sqlalchemy.exc import IntegrityError

        if not isinstance(error, IntegrityError):
            return None
        return next((image for image in self.of_job(job_id) if image.number == number), None)

    def of_job(self, job_id: str) -> list[StoredImage]:
        """Return the images of a job, by number."""
        query = self._table.select().where(self._table.c.job_id == job_id).order_by(self._table.c.number)
        with self._engine.connect() as connection:
            return [StoredImage(**row) for row in connection.execute(query).mappings()]

    def get(self, image_id: str) -> StoredImage | None:
        """Return an image by its id."""
        if "\0" in image_id:  # PostgreSQL rejects NUL, and no id has one
            return None
        query = self._table.select().where(self._table.c.id == image_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else StoredImage(**row)

    def read(self, image: StoredImage) -> bytes:
        """Return the content of an image's file. Raises: FileNotFoundError; OSError."""
        return self.blobs.get(image.file)

    def delete_rows(self, job_id: str, connection: "Connection") -> set[str]:
        """Delete the rows of a job's images; return their files, for `delete_unreferenced` afterwards."""
        # One statement: an image stored between a look and the deletion would leave its file for ever.
        statement = self._table.delete().where(self._table.c.job_id == job_id).returning(self._table.c.file)
        return set(connection.execute(statement).scalars())

    def delete_unreferenced(self, files: set[str], without_job: str | None = None) -> None:
        """Delete those of some files that no image refers to, or none of another job than `without_job`."""
        if not files:
            return
        is_used = self._table.c.file.in_(files)
        if without_job is not None:
            is_used &= self._table.c.job_id != without_job
        with self._blobs_lock:
            with self._engine.connect() as connection:
                query = self._table.select().with_only_columns(self._table.c.file).where(is_used)
                used = set(connection.execute(query).scalars())
            for file in files - used:
                self.blobs.delete(file)
