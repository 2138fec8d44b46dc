"""State that all routes share: the engine, the database, the settings, and the caller of a request."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lens.serve.api.generation import GenerationService
from lens.serve.api.middleware import ANONYMOUS_OWNER, Caller
from lens.serve.api.reasoning import MAX_OPEN_REQUESTS, ShouldStop
from lens.serve.api.schemas import NO_UPLOADS, BaseImageRequest, UploadedImages
from lens.serve.api.uploads import NO_FILES, SourceFiles, store_source_images
from lens.serve.engine.client import EngineClient
from lens.serve.engine.generation_spec import GenerationSpec
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.server_state import ServerState

if TYPE_CHECKING:
    from fastapi import Request

Result = TypeVar("Result")

NUM_IMAGE_THREADS = 2
DISCONNECT_POLL_S = 0.5
"""Interval of checks whether the caller has disconnected."""


@dataclass
class ApiContext:
    """The parts of a server that its routes use."""

    engine: EngineClient
    store: ServerState
    settings: ServerSettings
    service: GenerationService
    image_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(NUM_IMAGE_THREADS, "lens-images")
    )
    """Decode uploads: a small file may take hundreds of megabytes while it is decoded."""
    reasoning_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(MAX_OPEN_REQUESTS, "lens-reasoning")
    )
    """Wait for reasoners, which may take minutes: other requests have threads of their own."""

    def resolve_request(
        self, body: BaseImageRequest, caller: Caller, uploads: UploadedImages = NO_UPLOADS
    ) -> GenerationSpec:
        """Return the images that a body asks for, with every default filled in."""
        caller_name = caller.fair_queue_key(body.safety_identifier or body.user)
        return self.service.resolve_request(body, caller_name, uploads)

    async def prepare(self, request: "Request", spec: GenerationSpec, should_enhance: bool) -> GenerationSpec:
        """Return the images of a request after moderation, and after its reasoner if it asks for one."""
        if not should_enhance:
            return await asyncio.to_thread(self.service.prepare, spec)
        return await self.reason(request, lambda should_stop: self.service.prepare(spec, True, should_stop))

    async def reason(self, request: "Request", work: Callable[[ShouldStop], Result]) -> Result:
        """Return what `work` returns in a thread; it is told to stop when the caller of the request is gone.

        Raises: whatever `work` raises.
        """
        stop = threading.Event()
        running = asyncio.get_running_loop().run_in_executor(self.reasoning_threads, work, stop.is_set)
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting
        try:
            while not running.done():
                await asyncio.wait([running], timeout=DISCONNECT_POLL_S)
                if not running.done() and await request.is_disconnected():
                    stop.set()
            return await running
        finally:
            stop.set()

    def stored_spec(self, request: dict[str, Any]) -> GenerationSpec:
        """Return the images of a stored job."""
        return GenerationSpec.from_json(request, self.settings.uploads_folder)

    async def store_uploads(self, model: str | None, files: SourceFiles) -> UploadedImages:
        """Check and store the source image and the mask of a request; a few requests at a time.

        Raises: SettingError for bytes that cannot be used; LensError if they cannot be stored.
        """
        if files == NO_FILES:
            return NO_UPLOADS
        store = partial(self._store_files, model, files)
        return await asyncio.get_running_loop().run_in_executor(self.image_threads, store)

    def _store_files(self, model: str | None, files: SourceFiles) -> UploadedImages:
        models, model = self.engine.models(), self.settings.served_model(model)
        base_resolution = next(
            (one.base_resolution for one in models if one.name == model), models[0].base_resolution
        )
        return store_source_images(
            self.store.uploads, *files, self.settings.limits.upload_px, base_resolution
        )

    def image_url(self, request: "Request", image_id: str, image_format: str) -> str:
        """Return the address of a stored image."""
        base = (self.settings.public_url or str(request.base_url)).rstrip("/")
        return f"{base}/v1/pictures/{image_id}.{image_format}"


def request_caller(request: "Request") -> Caller:
    """Return the caller that the security middleware identified."""
    return getattr(request.state, "caller", Caller(ANONYMOUS_OWNER))
