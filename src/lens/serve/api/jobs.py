"""Routes of /v1/jobs: queued requests, their progress as server-sent events, their images."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lens.errors import SettingError
from lens.serve.api.bodies import json_route_class
from lens.serve.api.context import ApiContext, request_caller
from lens.serve.api.errors import ApiError
from lens.serve.api.http_conventions import strict_query
from lens.serve.api.images import enhanced_fields
from lens.serve.api.job_worker import JobProgress, JobWorker
from lens.serve.api.reasoning import ShouldStop, never
from lens.serve.api.schemas import CreateJobRequest, decisive_fields
from lens.serve.api.sse import KEEP_ALIVE, KEEP_ALIVE_INTERVAL_S, sse_event
from lens.serve.api.uploads import SourceFiles, decode_base64
from lens.serve.storage.jobs import OPEN_STATUSES, Job
from lens.serve.storage.server_state import UPLOAD_GRACE_S

if TYPE_CHECKING:
    from fastapi import APIRouter, Request

PROGRESS_POLL_S = 0.1
DATABASE_POLL_S = 1.0
"""Interval of reading a job that runs on another server."""
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]


def jobs_router(context: ApiContext, runner: JobWorker) -> "APIRouter":
    """Return the routes of /v1/jobs."""
    from fastapi import APIRouter, Header, Query, Request
    from fastapi.responses import Response, StreamingResponse

    json_route = json_route_class(context.settings.limits.json_bytes)
    checks = [strict_query()]
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=json_route, dependencies=checks)
    jobs = context.store.jobs

    async def owned_job(request: Request, job_id: str) -> Job:
        job = await asyncio.to_thread(jobs.get, job_id, request_caller(request).owner)
        if job is None:
            raise ApiError(404, f"You have no job {job_id!r}.", "job_not_found")
        return job

    @router.post("", status_code=201)
    async def add(
        body: CreateJobRequest,
        request: Request,
        response: Response,
        idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
    ) -> dict[str, Any]:
        """Create a job. With an Idempotency-Key, repeating a request returns the same job."""
        context.service.check_draining()
        caller = request_caller(request)
        uploads = await context.store_uploads(body.model, await asyncio.to_thread(_source_files, body))

        def create_job(should_stop: ShouldStop = never) -> Job:
            body_fields = decisive_fields(body)
            if idempotency_key is not None and (
                existing := jobs.find_by_idempotency_key(caller.owner, idempotency_key, body_fields)
            ):
                return existing  # before its prompt is refined again
            spec = context.resolve_request(body, caller, uploads)
            spec = context.service.prepare(spec, bool(body.enhance), should_stop)
            limit = context.settings.limits.waiting_jobs
            return jobs.add(
                caller.owner, spec.to_json(), spec.count, idempotency_key, body_fields, max_unfinished=limit
            )

        if body.enhance:
            job = await context.reason(request, create_job)
        else:
            job = await asyncio.to_thread(create_job)
        runner.wake()
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return await asyncio.to_thread(job_object, context, runner, request, job)

    @router.get("")
    async def list_jobs(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[
            str | None, Query(max_length=64, description="Id of the last job of the previous page.")
        ] = None,
        status: JobStatus | None = None,
    ) -> dict[str, Any]:
        """List your jobs, newest first."""

        def job_page() -> dict[str, Any]:
            statuses = () if status is None else (status,)
            if after is not None and jobs.get(after, request_caller(request).owner) is None:
                fix = "It may have been deleted: start again without after."
                raise SettingError("after", after, "the id of one of your jobs", fix)
            page = jobs.list_jobs(request_caller(request).owner, statuses, limit + 1, after)
            data = [job_object(context, runner, request, job) for job in page[:limit]]
            return {"object": "list", "data": data, "has_more": len(page) > limit}

        return await asyncio.to_thread(job_page)

    @router.get("/{job_id}")
    async def get_job(job_id: str, request: Request) -> dict[str, Any]:
        """Return the status of a job and the addresses of its images."""
        job = await owned_job(request, job_id)
        return await asyncio.to_thread(job_object, context, runner, request, job)

    @router.delete("/{job_id}")
    async def delete(job_id: str, request: Request) -> dict[str, Any]:
        """Cancel a job and delete it with its images."""
        job = await owned_job(request, job_id)

        def delete_job() -> None:
            runner.stop_images(job.id)  # nothing is written before the deletion, which may make room
            jobs.delete(job.id)
            runner.stop_images(job.id)  # it may have been claimed in between
            generation = context.stored_spec(job.request).draw
            upload_paths = [path for path in (generation.image, generation.mask) if path is not None]
            if upload_paths:
                context.store.uploads.delete_unused(jobs.uploads_in_use(), upload_paths, UPLOAD_GRACE_S)

        await asyncio.to_thread(delete_job)
        return {"id": job.id, "object": "job", "deleted": True}

    @router.post("/{job_id}/cancel")
    async def cancel(job_id: str, request: Request) -> dict[str, Any]:
        """Cancel a job; its finished images stay."""
        job = await owned_job(request, job_id)
        if job.status in OPEN_STATUSES:
            await asyncio.to_thread(runner.cancel, job.id)
        job = await owned_job(request, job_id)
        return await asyncio.to_thread(job_object, context, runner, request, job)

    @router.get("/{job_id}/events", response_class=StreamingResponse,
                responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip
    async def events(job_id: str, request: Request) -> StreamingResponse:
        """Stream the events job.queued, job.step, job.preview, then job.done, job.failed or job.cancelled."""
        job = await owned_job(request, job_id)
        stream = _job_event_stream(context, runner, request, job)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return router


def job_object(context: ApiContext, runner: JobWorker, request: "Request", job: Job) -> dict[str, Any]:
    """Return a job in the form of the API. Reads the database."""
    spec, progress = context.stored_spec(job.request), runner.progress(job.id)
    images = [
        {
            "id": record.id,
            "number": record.number,
            "url": context.image_url(request, record.id, record.format),
            "sha256": record.sha256,
            "output_format": record.format,
            "size": f"{record.width}x{record.height}",
            "seed": record.settings.get("seed"),
        }
        for record in context.store.jobs.images.of_job(job.id)
    ]
    generation = spec.draw
    request_fields = {
        "model": generation.model,
        "prompt": generation.prompt,
        "n": spec.count,
        "size": spec.size,
    }
    request_fields |= {
        "seed": generation.seed,
        "steps": generation.steps,
        "guidance": generation.guidance,
        "quality": spec.quality,
    }
    fields = {"id": job.id, "object": "job", "status": job.status, "created_at": job.created_at}
    fields |= {"started_at": job.started_at, "finished_at": job.finished_at, "error": job.error}
    fields |= {"request": request_fields, "pictures": images, "warnings": spec.warnings}
    return fields | enhanced_fields(spec) | _progress_fields(runner, job, progress)


def _progress_fields(runner: JobWorker, job: Job, progress: JobProgress | None) -> dict[str, Any]:
    if job.status not in OPEN_STATUSES:
        return {}
    if progress is None:  # queued, or running on another server
        return {"position": runner.position(job)}
    steps = [
        {"picture": number, "step": state.step, "steps": state.num_steps, "seconds_left": state.remaining_s}
        for number, state in sorted(dict(progress.step_progress).items())
    ]
    return {"position": progress.position, "progress": steps, "seconds_left": progress.remaining_s}


async def _job_event_stream(
    context: ApiContext, runner: JobWorker, request: "Request", job: Job
) -> AsyncIterator[bytes]:
    jobs, last_version, last_fields, sent_previews = context.store.jobs, -1, None, {}
    unread_s, silent_s = DATABASE_POLL_S, 0.0
    output_format = context.stored_spec(job.request).output_format
    while not await request.is_disconnected():
        progress = runner.progress(job.id)
        version = -1 if progress is None else progress.version
        if version != last_version or unread_s >= DATABASE_POLL_S:
            last_version, unread_s = version, 0.0
            current = await asyncio.to_thread(jobs.get, job.id)
            if current is None:
                yield sse_event("job.deleted", {"type": "job.deleted", "id": job.id})
                return
            for event in _preview_events(output_format, job.id, progress, sent_previews):
                silent_s = 0.0
                yield event
            if current.status not in OPEN_STATUSES:
                fields = await asyncio.to_thread(job_object, context, runner, request, current)
                name = f"job.{current.status}"
                yield sse_event(name, {"type": name, "job": fields})
                return
            progress_fields = await asyncio.to_thread(_progress_fields, runner, current, progress)
            if progress_fields != last_fields:
                last_fields, silent_s = progress_fields, 0.0
                name = "job.step" if progress_fields.get("progress") else "job.queued"
                yield sse_event(name, {"type": name, "id": job.id, **progress_fields})
        if silent_s >= KEEP_ALIVE_INTERVAL_S:
            silent_s = 0.0
            yield KEEP_ALIVE
        await asyncio.sleep(PROGRESS_POLL_S)
        unread_s, silent_s = unread_s + PROGRESS_POLL_S, silent_s + PROGRESS_POLL_S


def _preview_events(
    output_format: str, job_id: str, progress: JobProgress | None, sent: dict[int, int]
) -> list[bytes]:
    """Return previews that were not sent yet, as events; `sent` remembers them."""
    if progress is None:
        return []
    events = []
    for number, preview in sorted(dict(progress.previews).items()):
        if sent.get(number) == preview.preview_index:
            continue
        sent[number] = preview.preview_index
        fields = {"picture": number, "partial_image_index": preview.preview_index}
        fields |= {"output_format": output_format}
        image_fields = {"b64_json": base64.b64encode(preview.content).decode()}
        events.append(sse_event("job.preview", {"type": "job.preview", "id": job_id} | fields | image_fields))
    return events


def _source_files(body: CreateJobRequest) -> SourceFiles:
    image = None if body.image is None else decode_base64(body.image, "image")
    mask = None if body.mask is None else decode_base64(body.mask, "mask")
    return SourceFiles(image, mask)
