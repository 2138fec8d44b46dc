"""Jobs on their way: taken from the database a few at a time, drawn, stored; what was begun is never lost.

A job that a server was at when it ended is queued again; its pictures that were stored stay. Where state
cannot be written, a job waits with its picture in hand until it can. Knows nothing of HTTP.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lens.errors import Cancelled, DeadlineError, DrainingError, QueueFullError
from lens.serve.api.errors import answer_of
from lens.serve.api.generation import Made, Maker, Shown, Told
from lens.serve.api.schemas import Wanted
from lens.serve.engine.request import Drawing, Failed, Ticket, Waiting
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.database import storage_error
from lens.serve.storage.jobs import CANCELLED, DONE, FAILED, LEASE_S, Job
from lens.serve.storage.server_state import Store

log = logging.getLogger(__name__)
Result = TypeVar("Result")

KEEP_EVERY_S = LEASE_S / 4
LONGEST_WAIT_S = 15.0
TIDY_EVERY_S = 600.0
DAY_S = 86400.0


@dataclass
class Progress:
    """How far a job is that this server is at; the picture's number is the key."""

    version: int = 0
    waiting: dict[int, int] = field(default_factory=dict)
    """How many go before each."""
    drawing: dict[int, Drawing] = field(default_factory=dict)
    shown: dict[int, Shown] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    tickets: dict[int, Ticket] = field(default_factory=dict)
    is_cancelled: bool = False
    is_unstored: bool = False
    """Whether the server ended before a picture could be stored."""

    @property
    def position(self) -> int | None:
        """How many pictures go before the first of the job; None once one is drawn."""
        return None if self.drawing else min(list(self.waiting.values()), default=None)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all is drawn that is being drawn."""
        return max((one.seconds_left for one in list(self.drawing.values())), default=None)


class JobRunner:
    """Draws the jobs of a store."""

    def __init__(self, store: Store, maker: Maker, settings: ServerSettings):
        self._store, self._jobs, self._maker, self._settings = store, store.jobs, maker, settings
        self._progress: dict[str, Progress] = {}
        self._served: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._room = threading.Semaphore(settings.jobs_at_once)
        self._thread = threading.Thread(target=self._dispatch, name="lens-jobs", daemon=True)
        self._keeper = threading.Thread(target=self._keep_leases, name="lens-leases", daemon=True)

    def start(self) -> None:
        """Go on with what was left, begin what is queued."""
        left = self._store_soon(lambda: self._jobs.resume(self._settings.name))
        if left:
            log.info("%d jobs of the last run go on", left)
        self._thread.start()
        self._keeper.start()

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Begin no more; wait for those at hand. What is not over by then goes back into the queue."""
        self._stop.set()
        self._wake.set()
        deadline = time.monotonic() + timeout_s
        while self._progress and time.monotonic() < deadline:
            time.sleep(0.02)
        for progress in list(self._progress.values()):
            for ticket in list(progress.tickets.values()):
                ticket.cancel()
        deadline = time.monotonic() + 2
        while self._progress and time.monotonic() < deadline:
            time.sleep(0.02)

    def progress(self, job_id: str) -> Progress | None:
        """Return how far a job is; None where this server is not at it."""
        return self._progress.get(job_id)

    def cancel(self, job_id: str) -> None:
        """End a job: its pictures stop at their next step."""
        self._stop_drawing(job_id)
        self._jobs.finish(job_id, CANCELLED)

    def _stop_drawing(self, job_id: str) -> None:
        progress = self._progress.get(job_id)
        if progress is not None:
            progress.is_cancelled = True
            for ticket in list(progress.tickets.values()):
                ticket.cancel()

    def _dispatch(self) -> None:
        tidied_at = 0.0
        while not self._stop.is_set():
            if not self._room.acquire(timeout=0.5):
                continue
            job = None
            try:
                if time.monotonic() - tidied_at > TIDY_EVERY_S:
                    tidied_at = time.monotonic()
                    self._tidy()
                if not self._maker.is_draining:
                    job = self._jobs.take(self._settings.name, list(self._served))
            except Exception as error:
                self._report(error)
                self._stop.wait(1.0)
            if job is None:
                self._room.release()
                self._wake.wait(1.0)
                self._wake.clear()
                continue
            self._served[job.owner] = None
            self._served.move_to_end(job.owner)
            while len(self._served) > 10_000:
                self._served.popitem(last=False)
            self._progress[job.id] = Progress()
            threading.Thread(target=self._run, args=(job,), name=job.id, daemon=True).start()

    def _run(self, job: Job) -> None:
        progress = self._progress[job.id]
        try:
            wanted = Wanted.from_json(job.request)
            made = {picture.number for picture in self._jobs.pictures_of(job.id)}
            threads = [
                threading.Thread(target=self._draw, args=(job, wanted, number, progress), daemon=True)
                for number in range(job.count)
                if number not in made
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self._end(job, progress)
        except Exception as error:
            log.error("job %s cannot be drawn", job.id, exc_info=error)
            failed = answer_of(error).body["error"]
            self._store_soon(lambda: self._jobs.finish(job.id, FAILED, failed))
        finally:
            self._progress.pop(job.id, None)
            self._room.release()
            self._wake.set()

    def _end(self, job: Job, progress: Progress) -> None:
        errors = [error for _, error in sorted(progress.errors.items())]
        causes = [error for error in errors if not isinstance(error, Cancelled)] or errors
        is_ending = self._stop.is_set() or self._maker.is_draining
        if progress.is_cancelled:
            self._store_soon(lambda: self._jobs.finish(job.id, CANCELLED))
        elif progress.is_unstored:
            self._store_soon(lambda: self._jobs.put_back(job.id))
        elif not errors:
            self._store_soon(lambda: self._jobs.finish(job.id, DONE))
        elif isinstance(causes[0], DrainingError) or (is_ending and isinstance(causes[0], Cancelled)):
            self._store_soon(lambda: self._jobs.put_back(job.id))
        else:
            failed = answer_of(causes[0]).body["error"]
            self._store_soon(lambda: self._jobs.finish(job.id, FAILED, failed))

    def _draw(self, job: Job, wanted: Wanted, number: int, progress: Progress) -> None:
        """Draw one picture of a job and store it."""
        try:
            ticket = self._submitted(job, wanted, number, progress)
            progress.tickets[number] = ticket
            if progress.is_cancelled:
                ticket.cancel()
            self._maker.follow(ticket, wanted, lambda told: self._tell(job, wanted, number, progress, told))
        except Exception as error:
            self._fail(progress, number, error)
        progress.version += 1

    def _submitted(self, job: Job, wanted: Wanted, number: int, progress: Progress) -> Ticket:
        request = wanted.request(number)
        while True:
            if progress.is_cancelled or progress.errors:
                raise Cancelled("The job was stopped.")
            if self._stop.is_set():
                raise DrainingError("The server ends.")
            left_s = None
            if request.deadline_s is not None:
                left_s = job.created_at + request.deadline_s - time.time()
                if left_s <= 0:
                    raise DeadlineError(f"The picture was not begun within {request.deadline_s:g} s.")
            try:
                return self._maker.drawer.submit(replace(request, deadline_s=left_s))
            except QueueFullError as error:
                self._stop.wait(min(error.retry_after_s, 1.0))

    def _tell(self, job: Job, wanted: Wanted, number: int, progress: Progress, told: Told) -> None:
        if isinstance(told, Made):
            content, settings = told
            picture_format = wanted.output_format
            stored = self._store_soon(
                lambda: self._jobs.add_picture(job, number, content, picture_format, settings),
                lambda: progress.is_cancelled,
            )
            progress.is_unstored |= stored is None
        elif isinstance(told, Failed):
            self._fail(progress, number, told.error)
        elif isinstance(told, Waiting):
            progress.waiting[number] = told.position
        elif isinstance(told, Drawing):
            progress.drawing[number] = told
        else:
            progress.shown[number] = told
        if isinstance(told, Made | Failed):
            progress.drawing.pop(number, None)
            progress.waiting.pop(number, None)
        progress.version += 1

    def _fail(self, progress: Progress, number: int, error: Exception) -> None:
        progress.errors[number] = error
        for ticket in list(progress.tickets.values()):
            ticket.cancel()

    def _store_soon(
        self, write: Callable[[], Result], is_unwanted: Callable[[], bool] = lambda: False
    ) -> Result | None:
        """Write state as soon as it can be written; None where the server ends before that."""
        wait_s = 0.25
        while True:
            try:
                return write()
            except Exception as error:
                if storage_error(error) is None:
                    raise
                self._report(error)
            if self._stop.wait(wait_s) or is_unwanted():
                return None
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)

    def _report(self, error: Exception) -> None:
        log.error("state cannot be written, jobs wait: %s", storage_error(error) or error)

    def _keep_leases(self) -> None:
        """Say now and then that this server is at its jobs; notice those that another one cancelled."""
        while not self._stop.wait(KEEP_EVERY_S):
            try:
                if self._progress:
                    self._jobs.keep(self._settings.name)
                for job_id in list(self._progress):
                    job = self._jobs.get(job_id)
                    if job is None or job.status == CANCELLED:
                        self._stop_drawing(job_id)
                if self._jobs.take_over():
                    self._wake.set()
            except Exception as error:
                self._report(error)

    def _tidy(self) -> None:
        if self._settings.keep_jobs_days is not None:
            self._jobs.delete_old(self._settings.keep_jobs_days * DAY_S)
        used = self._jobs.uploads_in_use()
        self._store.uploads.delete_unused(used)
