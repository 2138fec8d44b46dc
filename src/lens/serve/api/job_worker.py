"""The job worker: claims jobs, generates their images and stores them; no accepted job is lost.

A job that is running when its server stops returns to the queue and keeps its stored images. If the database
or the disk rejects writes, the worker retries until they succeed. Knows nothing of HTTP.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from lens.errors import DeadlineError, DrainingError, GenerationCancelledError, SettingError
from lens.serve.api.errors import REQUEST_ID, error_response
from lens.serve.api.generation import EncodedImage, EncodedPreview, GenerationEvent, GenerationService
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.engine.request import Failed, GenerationRequest, Queued, StepProgress
from lens.serve.engine.request_handle import RequestHandle
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.database import storage_error
from lens.serve.storage.jobs import CANCELLED, DONE, FAILED, QUEUED, Job
from lens.serve.storage.name_lease import LEASE_S
from lens.serve.storage.server_state import ServerState

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

LEASE_RENEWAL_INTERVAL_S = LEASE_S / 4
MAX_RETRY_WAIT_S = 15.0
CLEANUP_INTERVAL_S = 600.0
DAY_S = 86400.0
MAX_RECENT_OWNERS = 10_000


@dataclass
class JobProgress:
    """Progress of a job that runs on this server; keys are image numbers."""

    version: int = 0
    positions: dict[int, int] = field(default_factory=dict)
    """Queue positions in the engine."""
    step_progress: dict[int, StepProgress] = field(default_factory=dict)
    previews: dict[int, EncodedPreview] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    handles: dict[int, RequestHandle] = field(default_factory=dict)
    runs_alone: bool = False
    """Whether no other job may run beside it, as a server stopped under it before."""
    is_cancelled: bool = False
    has_unsaved_image: bool = False
    """Whether the server stopped before an image could be stored."""

    @property
    def position(self) -> int | None:
        """Images ahead of the job's first one; None once one is being generated."""
        return None if self.step_progress else min(list(self.positions.values()), default=None)

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until all running images are finished."""
        return max((one.remaining_s for one in list(self.step_progress.values())), default=None)


class JobWorker:
    """Processes the jobs of a store."""

    def __init__(self, state: ServerState, service: GenerationService, settings: ServerSettings):
        self._state, self._jobs, self._service, self._settings = state, state.jobs, service, settings
        self._progress: dict[str, JobProgress] = {}
        self._recent_owners: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._capacity = threading.Semaphore(settings.jobs_at_once)
        self._thread = threading.Thread(target=self._dispatch, name="lens-jobs", daemon=True)
        self._lease_thread = threading.Thread(target=self._renew_leases, name="lens-leases", daemon=True)
        assert state.lease is not None, "a state that is opened beside a running server processes no jobs"
        self._lease, self._has_name = state.lease, True

    def start(self) -> None:
        """Requeue the jobs of the last run and start to process the queue.

        Raises: SettingError if another running server has taken the name of this one.
        """
        self._with_retries(self._lease.acquire)
        left = self._with_retries(lambda: self._jobs.requeue_unfinished(self._lease.name))
        if left:
            logger.info("%d jobs of the last run are queued again", left)
        self._thread.start()
        self._lease_thread.start()

    def wake(self) -> None:
        """Check for queued jobs now."""
        self._wake.set()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Claim no more jobs and wait for the running ones; requeue those that are not finished in time."""
        self._stop.set()
        self._wake.set()
        deadline = time.monotonic() + timeout_s
        while self._progress and time.monotonic() < deadline:
            time.sleep(0.02)
        for progress in list(self._progress.values()):
            for handle in list(progress.handles.values()):
                handle.cancel()
        deadline = time.monotonic() + 2
        while self._progress and time.monotonic() < deadline:
            time.sleep(0.02)

    def progress(self, job_id: str) -> JobProgress | None:
        """Return the progress of a job; None if it does not run on this server."""
        return self._progress.get(job_id)

    def position(self, job: Job) -> int | None:
        """Return how many queued jobs this server claims before a job; None if the job is not queued."""
        return self._jobs.num_ahead(job, self._owners_by_turn()) if job.status == QUEUED else None

    @property
    def _runs_alone(self) -> bool:
        return any(progress.runs_alone for progress in list(self._progress.values()))

    def cancel(self, job_id: str) -> None:
        """Cancel a job: its images stop before their next step."""
        self.stop_images(job_id)
        self._jobs.finish(job_id, CANCELLED)

    def _owners_by_turn(self) -> list[str]:
        """Return the owners that were served, the latest last."""
        with self._lock:
            return list(self._recent_owners)

    def stop_images(self, job_id: str) -> None:
        """Stop the images of a job if it runs here, before their next step."""
        progress = self._progress.get(job_id)
        if progress is not None:
            progress.is_cancelled = True
            for handle in list(progress.handles.values()):
                handle.cancel()

    def _dispatch(self) -> None:
        tidied_at = 0.0
        while not self._stop.is_set():
            if not self._capacity.acquire(timeout=0.5):
                continue
            job = None
            try:
                if time.monotonic() - tidied_at > CLEANUP_INTERVAL_S:
                    tidied_at = time.monotonic()
                    self._clean_up()
                if not self._service.is_draining and self._has_name and not self._runs_alone:
                    job = self._jobs.claim(self._lease.name, self._owners_by_turn(), not self._progress)
            except Exception as error:
                self._report(error)
                self._stop.wait(1.0)
            if job is None:
                self._capacity.release()
                self._wake.wait(1.0)
                self._wake.clear()
                continue
            with self._lock:
                self._recent_owners[job.owner] = None
                self._recent_owners.move_to_end(job.owner)
                while len(self._recent_owners) > MAX_RECENT_OWNERS:
                    self._recent_owners.popitem(last=False)
            self._progress[job.id] = JobProgress(runs_alone=job.attempts > 1)
            threading.Thread(target=self._run, args=(job,), name=job.id, daemon=True).start()

    def _run(self, job: Job) -> None:
        REQUEST_ID.set(job.id)  # of this thread: its errors name the job
        progress = self._progress[job.id]
        try:
            spec = GenerationSpec.from_json(job.request, self._settings.uploads_folder)
            finished_numbers = self._with_retries(lambda: self._prepare(job, spec))
            if finished_numbers is None:  # the server stops
                self._jobs.requeue(job.id)
                return
            threads = [
                threading.Thread(target=self._generate, args=(job, spec, number, progress), daemon=True)
                for number in range(job.count)
                if number not in finished_numbers
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self._finish(job, progress)
        except Exception as error:
            logger.error("job %s failed", job.id, exc_info=error)
            error_body = error_response(error).body["error"]
            self._with_retries(lambda: self._jobs.finish(job.id, FAILED, error_body))
        finally:
            self._progress.pop(job.id, None)
            self._capacity.release()
            self._wake.set()

    def _prepare(self, job: Job, spec: GenerationSpec) -> set[int]:
        """Fetch the source images of a job; return the numbers of the images that are finished already."""
        for path in (spec.draw.image, spec.draw.mask):
            if path is not None:
                self._state.uploads.fetch(path)
        return {image.number for image in self._jobs.images.of_job(job.id)}

    def _finish(self, job: Job, progress: JobProgress) -> None:
        errors = [error for _, error in sorted(progress.errors.items())]
        causes = [error for error in errors if not isinstance(error, GenerationCancelledError)] or errors
        is_ending = self._stop.is_set() or self._service.is_draining
        if progress.is_cancelled:
            self._with_retries(lambda: self._jobs.finish(job.id, CANCELLED))
        elif progress.has_unsaved_image:
            self._with_retries(lambda: self._jobs.requeue(job.id))
        elif not errors:
            self._with_retries(lambda: self._jobs.finish(job.id, DONE))
        elif isinstance(causes[0], DrainingError) or (
            is_ending and isinstance(causes[0], GenerationCancelledError)
        ):
            self._with_retries(lambda: self._jobs.requeue(job.id))
        else:
            error_body = error_response(causes[0]).body["error"]
            self._with_retries(lambda: self._jobs.finish(job.id, FAILED, error_body))

    def _generate(self, job: Job, spec: GenerationSpec, number: int, progress: JobProgress) -> None:
        """Generate one image of a job and store it."""
        try:
            handle = self._submit(job, spec, number, progress)
            progress.handles[number] = handle
            if progress.is_cancelled:
                handle.cancel()
            self._service.follow(
                handle, spec, lambda event: self._handle_event(job, spec, number, progress, event)
            )
        except Exception as error:
            self._fail(progress, number, error)
        progress.version += 1

    def _submit(self, job: Job, spec: GenerationSpec, number: int, progress: JobProgress) -> RequestHandle:
        request = spec.request(number)

        def next_request() -> GenerationRequest:
            if progress.is_cancelled or progress.errors:
                raise GenerationCancelledError("The job was cancelled.")
            if self._stop.is_set():
                raise DrainingError()
            remaining_s = None
            if request.deadline_s is not None:
                remaining_s = job.created_at + request.deadline_s - time.time()
                if remaining_s <= 0:
                    limit = f"its deadline of {request.deadline_s:g} s"
                    raise DeadlineError(f"The image could not begin within {limit}.")
            return replace(request, deadline_s=remaining_s)

        return self._service.submit_when_room(
            next_request, lambda error: self._stop.wait(min(error.retry_after_s, 1.0))
        )

    def _handle_event(
        self, job: Job, spec: GenerationSpec, number: int, progress: JobProgress, event: GenerationEvent
    ) -> None:
        if isinstance(event, EncodedImage):
            content, metadata = event
            image_format = spec.output_format
            saved_image = self._with_retries(
                lambda: self._jobs.add_image(job, number, content, image_format, metadata),
                lambda: progress.is_cancelled,
            )
            progress.has_unsaved_image |= saved_image is None
        elif isinstance(event, Failed):
            self._fail(progress, number, event.error)
        elif isinstance(event, Queued):
            progress.positions[number] = event.position
        elif isinstance(event, StepProgress):
            progress.step_progress[number] = event
        else:
            progress.previews[number] = event
        if isinstance(event, EncodedImage | Failed):
            progress.step_progress.pop(number, None)
            progress.positions.pop(number, None)
        progress.version += 1

    def _fail(self, progress: JobProgress, number: int, error: Exception) -> None:
        progress.errors[number] = error
        for handle in list(progress.handles.values()):
            handle.cancel()

    def _with_retries(
        self, access: Callable[[], Result], is_cancelled: Callable[[], bool] = lambda: False
    ) -> Result | None:
        """Read or write state, and retry while storage fails; None if the server stops before that."""
        wait_s = 0.25
        while True:
            try:
                return access()
            except Exception as error:
                if storage_error(error) is None:
                    raise
                self._report(error)
            if self._stop.wait(wait_s) or is_cancelled():
                return None
            wait_s = min(MAX_RETRY_WAIT_S, wait_s * 2)

    def _report(self, error: Exception) -> None:
        logger.error("storage is not available, jobs wait: %s", storage_error(error) or error)

    def _renew_leases(self) -> None:
        """Renew leases; stop jobs that another server cancelled; requeue jobs with an expired lease."""
        while not self._stop.wait(LEASE_RENEWAL_INTERVAL_S):
            try:
                self._renew_name()
                if self._progress and self._has_name:
                    self._jobs.renew_lease(self._lease.name)
                for job_id in list(self._progress):
                    job = self._jobs.get(job_id)
                    if job is None or job.status == CANCELLED:
                        self.stop_images(job_id)
                if self._jobs.requeue_expired():
                    self._wake.set()
            except Exception as error:
                self._report(error)

    def _renew_name(self) -> None:
        """Keep the name; without it no job is claimed, as two servers would take each other's jobs."""
        had_name = self._has_name
        try:
            self._lease.acquire()
            self._has_name = True
        except SettingError as error:
            self._has_name = False
            if had_name:
                logger.error("no more jobs are claimed: %s", error)

    def _clean_up(self) -> None:
        if self._settings.keep_jobs_days is not None:
            self._jobs.delete_older_than(self._settings.keep_jobs_days * DAY_S)
        used = self._jobs.uploads_in_use()
        self._state.uploads.delete_unused(used)
