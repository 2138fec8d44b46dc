"""/v1/jobs: pictures that are asked for now and fetched later, with what happens on the way as a stream."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lens.serve.api.errors import ApiError
from lens.serve.api.images import Serving, caller_of, sources_of
from lens.serve.api.job_worker import JobRunner, Progress
from lens.serve.api.schemas import JobBody, Sources, Wanted
from lens.serve.api.sse import KEEP_ALIVE, SAY_SOMETHING_EVERY_S, server_sent
from lens.serve.api.uploads import from_base64
from lens.serve.storage.jobs import OPEN, Job
from lens.serve.storage.server_state import ON_THE_WAY_S

if TYPE_CHECKING:
    from fastapi import APIRouter, Request

LOOK_EVERY_S = 0.1
READ_EVERY_S = 1.0
"""How often a job that another server draws is read again."""
Status = Literal["queued", "running", "done", "failed", "cancelled"]


def jobs_router(serving: Serving, runner: JobRunner) -> "APIRouter":
    """Return the routes of this module."""
    from fastapi import APIRouter, Header, Query, Request
    from fastapi.responses import Response, StreamingResponse

    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    jobs = serving.store.jobs

    async def mine(request: Request, job_id: str) -> Job:
        job = await asyncio.to_thread(jobs.get, job_id, caller_of(request).owner)
        if job is None:
            raise ApiError(404, f"There is no job {job_id!r} of yours.", "job_not_found")
        return job

    @router.post("", status_code=201)
    async def add(
        body: JobBody,
        request: Request,
        response: Response,
        idempotency_key: Annotated[str | None, Header(max_length=255, min_length=1)] = None,
    ) -> dict[str, Any]:
        """Take a job on. With an Idempotency-Key, the same request again returns the same job."""
        serving.maker.check_draining()
        caller = caller_of(request)

        def taken_on() -> Job:
            sent = body.model_dump(exclude_none=True)
            if idempotency_key is not None and (known := jobs.known(caller.owner, idempotency_key, sent)):
                return known  # before its prompt is written out again
            wanted = serving.wanted(body, caller, _sources(serving, body))
            wanted = serving.maker.prepared(wanted, bool(body.enhance))
            limit = serving.settings.limits.waiting_jobs
            return jobs.add(
                caller.owner, wanted.to_json(), wanted.count, idempotency_key, sent, waiting_limit=limit
            )

        job = await asyncio.to_thread(taken_on)
        runner.wake()
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return await asyncio.to_thread(job_facts, serving, runner, request, job)

    @router.get("")
    async def listed(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=64, description="The last job seen.")] = None,
        status: Status | None = None,
    ) -> dict[str, Any]:
        """List your jobs, the newest first."""

        def found() -> dict[str, Any]:
            statuses = () if status is None else (status,)
            page = jobs.list(caller_of(request).owner, statuses, limit + 1, after)
            data = [job_facts(serving, runner, request, job) for job in page[:limit]]
            return {"object": "list", "data": data, "has_more": len(page) > limit}

        return await asyncio.to_thread(found)

    @router.get("/{job_id}")
    async def one(job_id: str, request: Request) -> dict[str, Any]:
        """Say how far a job is, and where its pictures are."""
        job = await mine(request, job_id)
        return await asyncio.to_thread(job_facts, serving, runner, request, job)

    @router.delete("/{job_id}")
    async def delete(job_id: str, request: Request) -> dict[str, Any]:
        """Stop a job and forget it with its pictures."""
        job = await mine(request, job_id)

        def forget() -> None:
            if job.status in OPEN:
                runner.cancel(job.id)
            jobs.delete(job.id)
            draw = Wanted.from_json(job.request).draw
            sent = [path for path in (draw.image, draw.mask) if path is not None]
            if sent:
                serving.store.uploads.delete_unused(jobs.uploads_in_use(), sent, ON_THE_WAY_S)

        await asyncio.to_thread(forget)
        return {"id": job.id, "object": "job", "deleted": True}

    @router.post("/{job_id}/cancel")
    async def cancel(job_id: str, request: Request) -> dict[str, Any]:
        """Stop a job; what is drawn of it already stays."""
        job = await mine(request, job_id)
        if job.status in OPEN:
            await asyncio.to_thread(runner.cancel, job.id)
        job = await mine(request, job_id)
        return await asyncio.to_thread(job_facts, serving, runner, request, job)

    @router.get("/{job_id}/events", response_class=StreamingResponse,
                responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip
    async def events(job_id: str, request: Request) -> StreamingResponse:
        """Stream what happens: job.queued, job.step, job.preview; at last job.done, .failed or .cancelled."""
        job = await mine(request, job_id)
        stream = _events(serving, runner, request, job)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return router


def job_facts(serving: Serving, runner: JobRunner, request: "Request", job: Job) -> dict[str, Any]:
    """Return a job as callers see it. Reads the database."""
    wanted, progress = Wanted.from_json(job.request), runner.progress(job.id)
    pictures = [
        {
            "id": picture.id,
            "number": picture.number,
            "url": serving.picture_url(request, picture.id, picture.format),
            "sha256": picture.sha256,
            "output_format": picture.format,
            "size": f"{picture.width}x{picture.height}",
            "seed": picture.settings.get("seed"),
        }
        for picture in serving.store.jobs.pictures_of(job.id)
    ]
    draw = wanted.draw
    asked = {"model": draw.model, "prompt": draw.prompt, "n": wanted.count, "size": wanted.size}
    asked |= {"seed": draw.seed, "steps": draw.steps, "guidance": draw.guidance, "quality": wanted.quality}
    facts = {"id": job.id, "object": "job", "status": job.status, "created_at": job.created_at}
    facts |= {"started_at": job.started_at, "finished_at": job.finished_at, "error": job.error}
    facts |= {"request": asked, "pictures": pictures}
    return facts | _how_far(serving, job, progress)


def _how_far(serving: Serving, job: Job, progress: Progress | None) -> dict[str, Any]:
    if job.status not in OPEN:
        return {}
    if progress is None:
        return {"position": serving.store.jobs.num_before(job)}
    steps = [
        {"picture": number, "step": one.step, "steps": one.steps, "seconds_left": one.seconds_left}
        for number, one in sorted(dict(progress.drawing).items())
    ]
    return {"position": progress.position, "progress": steps, "seconds_left": progress.seconds_left}


async def _events(
    serving: Serving, runner: JobRunner, request: "Request", job: Job
) -> AsyncIterator[bytes]:
    jobs, last_version, last, shown = serving.store.jobs, -1, None, {}
    unread_s, silent_s = READ_EVERY_S, 0.0
    while not await request.is_disconnected():
        progress = runner.progress(job.id)
        version = -1 if progress is None else progress.version
        if version != last_version or unread_s >= READ_EVERY_S:
            last_version, unread_s = version, 0.0
            found = await asyncio.to_thread(jobs.get, job.id)
            if found is None:
                yield server_sent("job.deleted", {"type": "job.deleted", "id": job.id})
                return
            for event in _previews(found, progress, shown):
                silent_s = 0.0
                yield event
            if found.status not in OPEN:
                facts = await asyncio.to_thread(job_facts, serving, runner, request, found)
                name = f"job.{found.status}"
                yield server_sent(name, {"type": name, "job": facts})
                return
            far = await asyncio.to_thread(_how_far, serving, found, progress)
            if far != last:
                last, silent_s = far, 0.0
                name = "job.step" if far.get("progress") else "job.queued"
                yield server_sent(name, {"type": name, "id": job.id, **far})
        if silent_s >= SAY_SOMETHING_EVERY_S:
            silent_s = 0.0
            yield KEEP_ALIVE
        await asyncio.sleep(LOOK_EVERY_S)
        unread_s, silent_s = unread_s + LOOK_EVERY_S, silent_s + LOOK_EVERY_S


def _previews(job: Job, progress: Progress | None, seen: dict[int, int]) -> list[bytes]:
    """Return the previews that were not sent yet, as events; `seen` remembers them."""
    if progress is None:
        return []
    events, wanted = [], Wanted.from_json(job.request)
    for number, shown in sorted(dict(progress.shown).items()):
        if seen.get(number) == shown.number:
            continue
        seen[number] = shown.number
        facts = {"picture": number, "partial_image_index": shown.number}
        facts |= {"output_format": wanted.output_format}
        picture = {"b64_json": base64.b64encode(shown.content).decode()}
        events.append(server_sent("job.preview", {"type": "job.preview", "id": job.id} | facts | picture))
    return events


def _sources(serving: Serving, body: JobBody) -> Sources:
    image = None if body.image is None else from_base64(body.image, "image")
    mask = None if body.mask is None else from_base64(body.mask, "mask")
    return sources_of(serving, body.model, image, mask)
