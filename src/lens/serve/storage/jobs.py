"""The job store: queued requests and their images in the database, durable across restarts.

Owners take turns: the next job to be claimed is the oldest one of the owner who was served longest ago. Knows
nothing of HTTP or of engines. All calls block; all are safe in any thread.
"""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from lens.errors import LensError, QueueFullError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.storage.blob_store import BlobStore

if TYPE_CHECKING:
    from lens.serve.storage.database import Database

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
OPEN_STATUSES = (QUEUED, RUNNING)
LEASE_S = 20.0
"""A running job returns to the queue if its server does not renew the lease for this long."""


class Job(NamedTuple):
    """A request for one or several images, and its status."""

    id: str
    owner: str
    status: str
    request: dict[str, Any]
    """JSON of `lens.serve.api.schemas.GenerationSpec`."""
    count: int
    error: dict[str, Any] | None
    created_at: float
    started_at: float | None
    finished_at: float | None


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


class IdempotencyError(LensError):
    """An idempotency key that was used before, for another request."""


class JobStore:
    """The jobs of a server and their images."""

    def __init__(self, database: "Database", blobs: BlobStore):
        self._engine = database.engine
        self._jobs_table = database.tables["jobs"]
        self._images_table = database.tables["pictures"]
        self.blobs = blobs
        self._blobs_lock = threading.RLock()
        """Keeps a file from being deleted between its reuse and the row that refers to it."""

    def add(
        self,
        owner: str,
        request: dict[str, Any],
        num_images: int,
        idempotency_key: str | None = None,
        body: Any = None,
        status: str = QUEUED,
        max_unfinished: int | None = None,
    ) -> Job:
        """Add a job, or return the job that has the same idempotency key.

        `body` is the body of the request; it is compared if the key is used again.
        Raises: IdempotencyError for a known key with another body; QueueFullError past `max_unfinished`.
        """
        from sqlalchemy.exc import IntegrityError

        if idempotency_key is not None and (
            existing := self.find_by_idempotency_key(owner, idempotency_key, body)
        ):
            return existing
        if max_unfinished is not None and self.num_unfinished(owner) >= max_unfinished:
            raise QueueFullError(f"This caller has {max_unfinished} unfinished jobs, which is the limit.", 30)
        now = time.time()
        row = {"id": f"job_{uuid4().hex}", "owner": owner, "status": status, "request": request}
        row |= {"count": num_images, "idempotency_key": idempotency_key, "created_at": now}
        row |= {"body_sha256": _digest(body)}
        row |= {"finished_at": now} if status == DONE else {}
        try:
            with self._engine.begin() as connection:
                connection.execute(self._jobs_table.insert().values(**row))
        except IntegrityError:  # the same key at the same moment
            existing = self.find_by_idempotency_key(owner, str(idempotency_key), body)
            if existing is None:
                raise
            return existing
        return self.get(row["id"])  # type: ignore[return-value]

    def find_by_idempotency_key(self, owner: str, idempotency_key: str, body: Any) -> Job | None:
        """Return the job with an idempotency key. Raises: IdempotencyError for another body."""
        table = self._jobs_table
        where = (table.c.owner == owner) & (table.c.idempotency_key == idempotency_key)
        with self._engine.connect() as connection:
            row = connection.execute(table.select().where(where)).mappings().first()
        if row is None:
            return None
        if row["body_sha256"] != _digest(body):
            raise IdempotencyError("This idempotency key was used for another request. Use a new one.")
        return _job_from_row(row)

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """Return a job; None if it does not exist or belongs to another owner."""
        if "\0" in job_id:  # PostgreSQL rejects NUL, and no id has one
            return None
        query = self._jobs_table.select().where(self._jobs_table.c.id == job_id)
        if owner is not None:
            query = query.where(self._jobs_table.c.owner == owner)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _job_from_row(row)

    def list_jobs(
        self,
        owner: str | None = None,
        statuses: Sequence[str] = (),
        limit: int = 20,
        after: str | None = None,
    ) -> list[Job]:
        """Return jobs, newest first; with `after`, those that follow that job in this order."""
        import sqlalchemy as sa

        table = self._jobs_table
        query = table.select().order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(table.c.owner == owner)
        if statuses:
            query = query.where(table.c.status.in_(statuses))
        if after is not None and (last := self.get(after, owner)):
            here = sa.tuple_(last.created_at, last.id)
            query = query.where(sa.tuple_(table.c.created_at, table.c.id) < here)
        with self._engine.connect() as connection:
            return [_job_from_row(row) for row in connection.execute(query).mappings()]

    def num_unfinished(self, owner: str | None = None, status: str | None = None) -> int:
        """Return the number of jobs that are queued or running."""
        import sqlalchemy as sa

        table = self._jobs_table
        statuses = OPEN_STATUSES if status is None else (status,)
        query = sa.select(sa.func.count()).select_from(table).where(table.c.status.in_(statuses))
        if owner is not None:
            query = query.where(table.c.owner == owner)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def num_ahead(self, job: Job, recent_owners: Sequence[str] = ()) -> int:
        """Return how many queued jobs `claim` returns before this one, given the same `recent_owners`.

        Owners take turns, so before a job with r older ones of its owner, every owner has r turns, and the
        owners whose turn comes earlier have one more.
        """
        import sqlalchemy as sa

        table = self._jobs_table
        is_older = sa.tuple_(table.c.created_at, table.c.id) < sa.tuple_(job.created_at, job.id)
        where = (table.c.status == QUEUED) & (table.c.owner == job.owner) & is_older
        with self._engine.connect() as connection:
            num_older = connection.execute(
                sa.select(sa.func.count()).select_from(table).where(where)
            ).scalar_one()
        counts = self._queued_by_owner(recent_owners)
        earlier_owners = list(counts)[: list(counts).index(job.owner)] if job.owner in counts else []
        num_extra = sum(counts[owner] > num_older for owner in earlier_owners)
        return sum(min(count, num_older) for count in counts.values()) + num_extra

    def _queued_by_owner(self, recent_owners: Sequence[str]) -> dict[str, int]:
        """Return the number of queued jobs of each owner, in the order of the owners' turns."""
        import sqlalchemy as sa

        table = self._jobs_table
        columns = table.c.owner, sa.func.count(), sa.func.min(table.c.created_at)
        query = sa.select(*columns).where(table.c.status == QUEUED).group_by(table.c.owner)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        last_turn = {owner: number for number, owner in enumerate(recent_owners)}
        rows = sorted(rows, key=lambda row: (last_turn.get(row[0], -1), row[2], row[0]))
        return {owner: count for owner, count, _ in rows}

    def requeue_unfinished(self, runner: str) -> int:
        """Queue the jobs that this server left running, and those with an expired lease; return how many."""
        table, now = self._jobs_table, time.time()
        is_left = (table.c.runner == runner) | (table.c.lease_until < now)
        return self._requeue((table.c.status == RUNNING) & is_left)

    def requeue_expired(self) -> int:
        """Queue the running jobs with an expired lease; return how many."""
        table = self._jobs_table
        return self._requeue((table.c.status == RUNNING) & (table.c.lease_until < time.time()))

    def requeue(self, job_id: str) -> None:
        """Queue a running job again."""
        self._requeue((self._jobs_table.c.id == job_id) & (self._jobs_table.c.status == RUNNING))

    def _requeue(self, where: Any) -> int:
        values = {"status": QUEUED, "runner": None, "lease_until": None}
        with self._engine.begin() as connection:
            return connection.execute(self._jobs_table.update().where(where).values(**values)).rowcount

    def claim(self, runner: str, recent_owners: Sequence[str] = ()) -> Job | None:
        """Mark the next queued job as running on this server and return it; None if none is queued.

        It is the oldest job of the owner who was served longest ago. `recent_owners` are the owners that were
        served, the latest last.
        """
        table = self._jobs_table
        for owner in self._queued_by_owner(recent_owners):
            queued = table.select().where((table.c.owner == owner) & (table.c.status == QUEUED))
            oldest = queued.order_by(table.c.created_at, table.c.id).limit(1)
            with self._engine.begin() as connection:
                row = connection.execute(oldest).mappings().first()
                if row is None:
                    continue
                values = {"status": RUNNING, "runner": runner, "lease_until": time.time() + LEASE_S}
                values |= {"started_at": row["started_at"] or time.time()}
                is_still = (table.c.id == row["id"]) & (table.c.status == QUEUED)
                if connection.execute(table.update().where(is_still).values(**values)).rowcount:
                    return _job_from_row(dict(row) | values)
        return None

    def renew_lease(self, runner: str) -> None:
        """Extend the leases of this server's running jobs."""
        table = self._jobs_table
        where = (table.c.status == RUNNING) & (table.c.runner == runner)
        with self._engine.begin() as connection:
            connection.execute(table.update().where(where).values(lease_until=time.time() + LEASE_S))

    def finish(self, job_id: str, status: str, error: dict[str, Any] | None = None) -> bool:
        """Set the final status of an unfinished job; return whether this call set it."""
        table = self._jobs_table
        values = {"status": status, "error": error, "finished_at": time.time(), "lease_until": None}
        where = (table.c.id == job_id) & table.c.status.in_(OPEN_STATUSES)
        with self._engine.begin() as connection:
            return bool(connection.execute(table.update().where(where).values(**values)).rowcount)

    def delete(self, job_id: str) -> None:
        """Delete a job, its images and their files."""
        with self._engine.begin() as connection:
            mine = self._images_table.c.job_id == job_id
            query = self._images_table.select().with_only_columns(self._images_table.c.file).where(mine)
            files = set(connection.execute(query).scalars())
            connection.execute(self._images_table.delete().where(mine))
            connection.execute(self._jobs_table.delete().where(self._jobs_table.c.id == job_id))
        self._delete_unreferenced(files)

    def add_image(
        self, job: Job, number: int, content: bytes, image_format: str, metadata: ImageMetadata
    ) -> StoredImage:
        """Store a finished image. Raises: OSError; errors of the database."""
        with self._blobs_lock:
            return self._add_image(job, number, content, image_format, metadata)

    def _add_image(
        self, job: Job, number: int, content: bytes, image_format: str, metadata: ImageMetadata
    ) -> StoredImage:
        file = self.blobs.put(content, f".{image_format}")
        row = StoredImage(
            id=uuid4().hex, job_id=job.id, owner=job.owner, number=number, file=file,
            sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content), format=image_format,
            width=metadata.width, height=metadata.height, prompt=metadata.prompt,
            settings=metadata.model_dump(mode="json", exclude_none=True), created_at=time.time(),
        )  # fmt: skip
        table = self._images_table
        try:
            with self._engine.begin() as connection:
                again = (table.c.job_id == job.id) & (table.c.number == number)  # generated by two servers
                before = table.select().with_only_columns(table.c.file).where(again)
                replaced = set(connection.execute(before).scalars())
                connection.execute(table.delete().where(again))
                connection.execute(table.insert().values(**row._asdict()))
            self._delete_unreferenced(replaced)
        except Exception:  # the job has been deleted, or the database rejects the row
            with suppress(Exception):
                self._delete_unreferenced({file})
            raise
        return row

    def images_of(self, job_id: str) -> list[StoredImage]:
        """Return the images of a job, by number."""
        table = self._images_table
        with self._engine.connect() as connection:
            query = table.select().where(table.c.job_id == job_id).order_by(table.c.number)
            return [StoredImage(**row) for row in connection.execute(query).mappings()]

    def get_image(self, image_id: str) -> StoredImage | None:
        """Return an image by its id."""
        if "\0" in image_id:
            return None
        query = self._images_table.select().where(self._images_table.c.id == image_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else StoredImage(**row)

    def read_image(self, image: StoredImage) -> bytes:
        """Return the content of an image's file. Raises: FileNotFoundError; OSError."""
        return self.blobs.get(image.file)

    def delete_older_than(self, older_than_s: float) -> int:
        """Delete the jobs that finished longer ago than this; return how many."""
        import sqlalchemy as sa

        table, limit = self._jobs_table, time.time() - older_than_s
        query = sa.select(table.c.id).where(
            table.c.status.not_in(OPEN_STATUSES) & (table.c.finished_at < limit)
        )
        with self._engine.connect() as connection:
            old = list(connection.execute(query).scalars())
        for job_id in old:
            self.delete(job_id)
        return len(old)

    def uploads_in_use(self) -> set[str]:
        """Return the paths of the source images and masks that jobs refer to."""
        with self._engine.connect() as connection:
            requests = connection.execute(
                self._jobs_table.select().with_only_columns(self._jobs_table.c.request)
            )
            draws = [request.get("draw", {}) for request in requests.scalars()]
        return {draw[name] for draw in draws for name in ("image", "mask") if draw.get(name)}

    def _delete_unreferenced(self, files: set[str]) -> None:
        if not files:
            return
        table = self._images_table
        with self._blobs_lock:
            with self._engine.connect() as connection:
                query = table.select().with_only_columns(table.c.file).where(table.c.file.in_(files))
                used = set(connection.execute(query).scalars())
            for file in files - used:
                self.blobs.delete(file)


def _job_from_row(row: Any) -> Job:
    return Job(**{name: row[name] for name in Job._fields})


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
