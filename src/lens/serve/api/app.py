"""The server's app: every route, and what stands around all of them.

Nothing here waits for the engine in the loop that answers requests. Knows nothing of how the engine draws.
"""

import asyncio
import time
from collections.abc import AsyncIterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lens.serve.api.errors import ERRORS, answer_errors
from lens.serve.api.generation import NO_HOOKS, Hooks, Maker
from lens.serve.api.images import Serving, images_router
from lens.serve.api.job_worker import JobRunner
from lens.serve.api.jobs import jobs_router
from lens.serve.api.metrics import Metrics
from lens.serve.api.middleware import App, Guard, KeyCheck, Receive, Scope, Send
from lens.serve.engine.request import Drawer
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.database import MissingExtraError
from lens.serve.storage.server_state import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

NUM_THREADS = 64
"""For what blocks: the database, files, moderation, handing over to the engine."""
ABOUT = (
    "Pictures from words by Lens, a research model: for controlled settings with human oversight, not for "
    "unattended production."
)


def create_app(
    drawer: Drawer, settings: ServerSettings, store: Store, hooks: Hooks = NO_HOOKS
) -> "FastAPI":
    """Return the app, which draws the store's jobs as long as it runs; `drain` ends it well.

    Raises: MissingExtraError.
    """
    try:
        import python_multipart  # noqa: F401
        from fastapi import FastAPI
        from fastapi.middleware.cors import CORSMiddleware
        from fastapi.responses import JSONResponse, Response

        metrics = Metrics(drawer, store.jobs)
    except ImportError as error:
        raise MissingExtraError(str(error.name)) from error
    maker = Maker(drawer, hooks)
    runner = JobRunner(store, maker, settings)
    serving = Serving(drawer, store, settings, maker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(NUM_THREADS, "lens-http"))
        await asyncio.to_thread(runner.start)
        yield
        await asyncio.to_thread(runner.stop, settings.drain_s)

    app = FastAPI(
        title="Lens", version=version("lens-t2i"), description=ABOUT, responses=ERRORS, lifespan=lifespan
    )
    app.state.maker, app.state.runner, app.state.serving = maker, runner, serving
    answer_errors(app)
    app.include_router(images_router(serving))
    app.include_router(jobs_router(serving, runner))

    @app.get("/healthz", tags=["server"])
    async def healthz() -> dict[str, str]:
        """Say that the server answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["server"], responses={503: {"description": "Not now."}})
    async def readyz() -> JSONResponse:
        """Say whether the server takes requests on."""
        obstacles = await asyncio.to_thread(_obstacles, serving)
        status = {"status": "not ready", "reasons": obstacles} if obstacles else {"status": "ready"}
        return JSONResponse(status, 503 if obstacles else 200)

    @app.get("/metrics", tags=["server"], response_class=Response,
             responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
    async def numbers() -> Response:
        """Return the server's numbers for Prometheus."""
        return Response(await asyncio.to_thread(metrics.text), media_type="text/plain; version=0.0.4")

    app.add_middleware(Guard, keys=KeyCheck(store, settings), body_bytes=settings.limits.body_bytes)
    app.add_middleware(_Counted, metrics=metrics)
    # Also for no origins: where nothing stands here, Gradio lets every site's pages use a person's login.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
    )
    return app


def drain(app: "FastAPI", timeout_s: float) -> None:
    """Take nothing more on, finish what was taken on; what waits in the database waits for the next start."""
    app.state.maker.is_draining = True
    app.state.serving.drawer.drain(timeout_s)


def _obstacles(serving: Serving) -> list[str]:
    found = []
    if serving.maker.is_draining:
        found.append("The server is about to end.")
    elif not getattr(serving.drawer, "is_ready", True):
        found.append("The models are not loaded yet.")
    try:
        serving.store.jobs.num_open()
    except Exception:
        found.append("The database cannot be read.")
    return found


class _Counted:
    """Middleware that counts requests by route and status."""

    def __init__(self, app: App, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, began_at = 500, time.monotonic()

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - began_at)
