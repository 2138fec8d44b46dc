"""The job store: queued requests and their images in the database, durable across restarts.

Owners take turns: the next job to be claimed is the oldest one of the owner who was served longest ago. A job
under which a server stopped comes after its owner's others, runs alone, and fails after three attempts. Knows
nothing of HTTP or of engines. All calls block; all are safe in any thread.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from lens.errors import LensError, QueueFullError
from lens.sampling.image_metadata import ImageMetadata
from lens.serve.retry_after import RetryPlaces
from lens.serve.storage.blob_store import BlobStore
from lens.serve.storage.database import storage_error
from lens.serve.storage.images import ImageStore, StoredImage
from lens.serve.storage.name_lease import LEASE_S

if TYPE_CHECKING:
    from lens.serve.storage.database import Database

logger = logging.getLogger(__name__)
QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
OPEN_STATUSES = (QUEUED, RUNNING)
MAX_FREE_IN_S = 600.0
"""Nobody is told that the next place is free later: a server may have been off meanwhile."""
MAX_RETRY_PLACES = 1000
"""Callers whose places are remembered."""
MAX_ATTEMPTS = 3
"""A job under which this many servers stopped is not tried again: it may be what stops them."""
ATTEMPTS_ERROR = {
    "message": f"The server stopped {MAX_ATTEMPTS} times while it ran this job, so it is not tried again. "
    "Send another request, such as one for fewer or smaller images.",
    "type": "server_error",
    "param": None,
    "code": "server_stopped",
}


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
    attempts: int
    """How often it was claimed without an end: a server stopped under each attempt but the current one."""


class IdempotencyError(LensError):
    """An idempotency key that was used before, for another request."""


class JobStore:
    """The jobs of a server and their images."""

    def __init__(self, database: "Database", blobs: BlobStore):
        self._engine = database.engine
        self._jobs_table = database.tables["jobs"]
        self._retry_places: dict[str, RetryPlaces] = {}
        self.images = ImageStore(database, blobs)

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
            message = f"This caller has {max_unfinished} unfinished jobs, which is the limit."
            raise QueueFullError(message, self._retry_after_s(owner, max_unfinished))
        now = time.time()
        row = {"id": f"job_{uuid4().hex}", "owner": owner, "status": status, "request": request}
        row |= {"count": num_images, "idempotency_key": idempotency_key, "created_at": now}
        row |= {"body_sha256": _digest(body), "attempts": 0}
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

    def _retry_after_s(self, owner: str, num_open: int) -> float:
        """Return when an owner has a place for another job, by the pace since the oldest open one came."""
        import sqlalchemy as sa

        table, now = self._jobs_table, time.time()
        own = sa.select(sa.func.min(table.c.created_at)).where(table.c.owner == owner)
        with self._engine.connect() as connection:
            since = connection.execute(own.where(table.c.status.in_(OPEN_STATUSES))).scalar_one() or now
            query = sa.select(sa.func.count(), sa.func.max(table.c.finished_at)).where(
                (table.c.owner == owner) & (table.c.finished_at >= since)
            )
            num_finished, last_finished_at = connection.execute(query).one()
        if num_finished:
            pace_s = (last_finished_at - since) / num_finished
            free_in_s = max(0.0, last_finished_at + pace_s - now)
        else:
            pace_s = free_in_s = now - since  # as long again
        free_in_s = min(MAX_FREE_IN_S, free_in_s)
        while len(self._retry_places) >= MAX_RETRY_PLACES:
            self._retry_places.pop(next(iter(self._retry_places)), None)
        places = self._retry_places.setdefault(owner, RetryPlaces())
        return places.next_s(free_in_s, pace_s, pace_s * num_open)

    def num_ahead(self, job: Job, recent_owners: Sequence[str] = ()) -> int:
        """Return how many queued jobs `claim` returns before this one, given the same `recent_owners`.

        Owners take turns, so before a job with r earlier ones of its owner, every owner has r turns, and the
        owners whose turn comes earlier have one more.
        """
        import sqlalchemy as sa

        table = self._jobs_table
        place = sa.tuple_(job.attempts, job.created_at, job.id)
        is_earlier = sa.tuple_(table.c.attempts, table.c.created_at, table.c.id) < place
        where = (table.c.status == QUEUED) & (table.c.owner == job.owner) & is_earlier
        with self._engine.connect() as connection:
            num_earlier = connection.execute(
                sa.select(sa.func.count()).select_from(table).where(where)
            ).scalar_one()
        counts = self._queued_by_owner(recent_owners)
        earlier_owners = list(counts)[: list(counts).index(job.owner)] if job.owner in counts else []
        num_extra = sum(counts[owner] > num_earlier for owner in earlier_owners)
        return sum(min(count, num_earlier) for count in counts.values()) + num_extra

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
        return self._requeue_left((table.c.runner == runner) | (table.c.lease_until < now))

    def requeue_expired(self) -> int:
        """Queue the running jobs with an expired lease; return how many."""
        return self._requeue_left(self._jobs_table.c.lease_until < time.time())

    def requeue(self, job_id: str) -> None:
        """Queue a running job again; the attempt does not count, as its server has not failed."""
        table = self._jobs_table
        self._requeue((table.c.id == job_id) & (table.c.status == RUNNING), attempts=table.c.attempts - 1)

    def _requeue_left(self, where: Any) -> int:
        """Queue the running jobs whose server stopped; those that had all their attempts fail."""
        table = self._jobs_table
        where &= table.c.status == RUNNING
        ended = {"status": FAILED, "error": ATTEMPTS_ERROR, "finished_at": time.time(), "lease_until": None}
        with self._engine.begin() as connection:
            is_spent = where & (table.c.attempts >= MAX_ATTEMPTS)
            query = table.select().with_only_columns(table.c.id).where(is_spent)
            spent = list(connection.execute(query).scalars())
            connection.execute(table.update().where(is_spent).values(**ended))
        for job_id in spent:
            logger.error("job %s failed: servers stopped %d times while they ran it", job_id, MAX_ATTEMPTS)
        return self._requeue(where)

    def _requeue(self, where: Any, **more: Any) -> int:
        values = {"status": QUEUED, "runner": None, "lease_until": None} | more
        with self._engine.begin() as connection:
            return connection.execute(self._jobs_table.update().where(where).values(**values)).rowcount

    def claim(self, runner: str, recent_owners: Sequence[str] = (), is_idle: bool = True) -> Job | None:
        """Mark the next queued job as running on this server and return it; None if none is queued.

        It is the oldest job of the owner who was served longest ago. `recent_owners` are the owners that were
        served, the latest last. A job under which a server stopped is claimed by an idle server alone: until
        then nothing is.
        """
        table = self._jobs_table
        for owner in self._queued_by_owner(recent_owners):
            queued = table.select().where((table.c.owner == owner) & (table.c.status == QUEUED))
            first = queued.order_by(table.c.attempts, table.c.created_at, table.c.id).limit(1)
            with self._engine.begin() as connection:
                row = connection.execute(first).mappings().first()
                if row is None:
                    continue
                if row["attempts"] and not is_idle:
                    return None
                values = {"status": RUNNING, "runner": runner, "lease_until": time.time() + LEASE_S}
                values |= {"started_at": row["started_at"] or time.time(), "attempts": row["attempts"] + 1}
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

    def add_image(
        self, job: Job, number: int, content: bytes, image_format: str, metadata: ImageMetadata
    ) -> StoredImage:
        """Store a finished image of a job; raises what `ImageStore.add` raises."""
        image = self.images.add(job.id, job.owner, number, content, image_format, metadata)
        if job.attempts > 1:  # a job that gets on is not what stops servers
            table = self._jobs_table
            with self._engine.begin() as connection:
                connection.execute(table.update().where(table.c.id == job.id).values(attempts=1))
        return image

    def delete(self, job_id: str) -> None:
        """Delete a job, its images and their files.

        On a full disk the files go first: they make the room that the database needs to delete the rows.
        """
        try:
            self._delete_rows(job_id)
        except Exception as error:
            failure = storage_error(error)
            if failure is None or not failure.is_full:
                raise
            files = {image.file for image in self.images.of_job(job_id)}
            self.images.delete_unreferenced(files, without_job=job_id)
            self._delete_rows(job_id)

    def _delete_rows(self, job_id: str) -> None:
        table = self._jobs_table
        with self._engine.begin() as connection:
            # PostgreSQL stores no image of a job whose row is locked; SQLite has one writer at a time.
            connection.execute(table.select().where(table.c.id == job_id).with_for_update())
            files = self.images.delete_rows(job_id, connection)
            connection.execute(table.delete().where(table.c.id == job_id))
        self.images.delete_unreferenced(files)

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
        """Return the names of the uploads that jobs refer to."""
        with self._engine.connect() as connection:
            requests = connection.execute(
                self._jobs_table.select().with_only_columns(self._jobs_table.c.request)
            )
            draws = [request.get("draw", {}) for request in requests.scalars()]
        return {Path(draw[name]).name for draw in draws for name in ("image", "mask") if draw.get(name)}

def _job_from_row(row: Any) -> Job:
    return Job(**{name: row[name] for name in Job._fields})


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()
