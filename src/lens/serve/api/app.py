"""The FastAPI app of a server: routes, middleware, health checks, startup and shutdown.

Blocking calls run in threads, never in the event loop. Knows nothing of how the engine works.
"""

import asyncio
import time
from collections.abc import AsyncIterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lens.errors import MissingExtraError
from lens.serve.api.context import ApiContext
from lens.serve.api.errors import ERROR_RESPONSES, add_error_handlers
from lens.serve.api.generation import NO_HOOKS, GenerationHooks, GenerationService
from lens.serve.api.http_conventions import EXPOSED_HEADERS, ConventionsMiddleware
from lens.serve.api.images import images_router
from lens.serve.api.job_worker import JobWorker
from lens.serve.api.jobs import jobs_router
from lens.serve.api.metrics import ServerMetrics
from lens.serve.api.middleware import AsgiApp, Authenticator, Receive, Scope, SecurityMiddleware, Send
from lens.serve.engine.client import EngineClient
from lens.serve.settings.server import ServerSettings
from lens.serve.storage.server_state import ServerState

if TYPE_CHECKING:
    from fastapi import FastAPI

NUM_HTTP_THREADS = 64
"""Threads for blocking calls: the database, files, moderation, submission to the engine."""
API_DESCRIPTION = (
    "Text-to-image generation by Lens, a research model. Use it in controlled settings with human oversight, "
    "not in unattended production."
)


def create_app(
    engine: EngineClient, settings: ServerSettings, store: ServerState, hooks: GenerationHooks = NO_HOOKS
) -> "FastAPI":
    """Return the app. While it runs, it processes the jobs of the store; `drain` shuts it down.

    Raises: MissingExtraError.
    """
    try:
        import python_multipart  # noqa: F401
        from fastapi import FastAPI
        from fastapi.middleware.cors import CORSMiddleware
        from fastapi.responses import JSONResponse, Response
        from fastapi_offline import FastAPIOffline

        service = GenerationService(engine, settings, hooks)
        metrics = ServerMetrics(engine, store.jobs, service.reasoning)
    except ImportError as error:
        raise MissingExtraError("Serving", str(error.name), "serve") from error
    runner = JobWorker(store, service, settings)
    context = ApiContext(engine, store, settings, service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(NUM_HTTP_THREADS, "lens-http"))
        await asyncio.to_thread(runner.start)
        yield
        await asyncio.to_thread(runner.stop, settings.drain_s)

    app = FastAPIOffline(  # the page at /docs loads nothing from other hosts
        redoc_url=None,
        title="Lens",
        version=version("lens-t2i"),
        description=API_DESCRIPTION,
        responses=ERROR_RESPONSES,
        lifespan=lifespan,
    )
    app.state.service, app.state.job_worker, app.state.context = service, runner, context
    add_error_handlers(app)
    app.include_router(images_router(context))
    app.include_router(jobs_router(context, runner))

    @app.get("/healthz", tags=["server"])
    async def healthz() -> dict[str, str]:
        """Liveness probe: return 200 while the process answers."""
        return {"status": "ok"}

    @app.get(
        "/readyz", tags=["server"], responses={503: {"description": "The server does not accept requests."}}
    )
    async def readyz() -> JSONResponse:
        """Readiness probe: return 200 once the server accepts requests, else 503 with the reasons."""
        problems = await asyncio.to_thread(_readiness_problems, context)
        status = {"status": "not ready", "reasons": problems} if problems else {"status": "ready"}
        return JSONResponse(status, 503 if problems else 200)

    @app.get("/metrics", tags=["server"], response_class=Response,
             responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
    async def prometheus_metrics() -> Response:
        """Return metrics in the Prometheus text format."""
        return Response(await asyncio.to_thread(metrics.render), media_type="text/plain; version=0.0.4")

    app.add_middleware(SecurityMiddleware, keys=Authenticator(store, settings), settings=settings)
    app.add_middleware(_MetricsMiddleware, metrics=metrics)
    # Also without origins: otherwise Gradio would let the pages of any site use a visitor's login.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id"],
        expose_headers=EXPOSED_HEADERS if settings.cors_origins else (),
    )
    app.add_middleware(ConventionsMiddleware)
    return app


def drain(app: "FastAPI", timeout_s: float) -> None:
    """Accept no more requests and finish the accepted ones; queued jobs stay for the next start."""
    app.state.service.is_draining = True
    app.state.context.engine.drain(timeout_s)


def _readiness_problems(context: ApiContext) -> list[str]:
    problems = []
    if context.service.is_draining:
        problems.append("The server is shutting down.")
    elif not getattr(context.engine, "is_ready", True):
        problems.append("The models are still loading.")
    return [*problems, *context.store.problems()]


class _MetricsMiddleware:
    """Counts requests by route and status."""

    def __init__(self, app: AsgiApp, metrics: ServerMetrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status, started_at = 500, time.monotonic()

        async def send_with_status(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_with_status)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - started_at)
