"""A server of the API and the studio: assembles its parts, listens, and shuts down in order.

Everything that a server consists of is made here from its settings; the command only reads options. Heavy and
optional packages are imported by the functions that need them.
"""

import asyncio
import logging
import threading
from socket import SOCK_STREAM, create_server, getaddrinfo, socket
from typing import TYPE_CHECKING, Any

from lens.errors import LensError, MissingExtraError, SettingError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lens.serve.api.generation import GenerationHooks
    from lens.serve.engine.client import EngineClient
    from lens.serve.safety.provenance import Signer
    from lens.serve.settings.server import ServerSettings
    from lens.serve.storage.server_state import ServerState

logger = logging.getLogger(__name__)
LAST_EVENTS_S = 0.5
"""Time in which pages and callers hear of the images that were finished last, before their streams end."""


def run(settings: "ServerSettings", has_studio: bool = True) -> None:
    """Serve until a signal arrives, then finish the accepted requests.

    Raises: LensError for a setting or a missing package that prevents the start.
    """
    from lens.serve.storage.server_state import open_server_state

    try:
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Serving", "uvicorn", "serve") from error
    check_start(settings)
    with _bind_socket(settings) as server_socket:
        state = open_server_state(settings)
        try:
            settings.check_exposure(has_key=bool(state.api_keys.list_keys()))
            signer = create_signer(settings)
            hooks, engine = create_hooks(settings, signer), create_engine(settings)
            try:
                app = create_server_app(engine, settings, state, hooks, has_studio)
                _run_server(app, engine, settings, server_socket, signer)
            finally:
                engine.drain(timeout_s=0)
        finally:
            state.close()


def check_start(settings: "ServerSettings") -> None:
    """Check what can be checked before a state folder is created: keys, LoRAs, models, policy, reasoner.

    Raises: SettingError or CheckpointError.
    """
    from lens.reasoner.system_prompts import read_system_prompt
    from lens.serve.engine.model_registry import ModelRegistry
    from lens.serve.safety.moderation import ModerationPolicy

    if not settings.has_state:
        settings.check_exposure(has_key=False)
    for name, path in settings.loras.items():
        if not path.exists():
            raise SettingError(f"loras.{name}", str(path), "a LoRA file that exists", "Check the path.")
    ModelRegistry.from_names(settings.models, settings.served_loras)
    ModerationPolicy.from_file(settings.policy)
    if settings.enhance is not None:
        read_system_prompt(settings.enhance.system_prompt, "enhance.system_prompt")


def create_engine(settings: "ServerSettings") -> "EngineClient":
    """Return the engine, in this process or on Ray; its models load in the background.

    Raises: SettingError or CheckpointError for a model or LoRA file that does not exist.
    """
    from lens.serve.engine.model_registry import ModelRegistry

    if settings.ray is not None:
        from lens.serve.ray.router import RayEngineClient

        return RayEngineClient(settings)
    from lens.serve.engine.engine import Engine

    return Engine(ModelRegistry.from_names(settings.models, settings.served_loras), settings.engine)


def create_signer(settings: "ServerSettings") -> "Signer | None":
    """Return what signs the images, or None if they are not signed.

    Raises: LensError for a certificate or a key that cannot be used.
    """
    from lens.serve.safety.provenance import Signer

    folder = settings.state.absolute()
    return Signer.from_settings(settings.signing, folder) if settings.is_signing else None


def create_hooks(settings: "ServerSettings", signer: "Signer | None" = None) -> "GenerationHooks":
    """Return the operator's functions: moderation, provenance, reasoners, token counting.

    Images are signed by the signer of the settings unless another one is given.
    """
    from lens.serve.api.generation import GenerationHooks
    from lens.serve.api.reasoning import ModelReasoners
    from lens.serve.api.token_counter import TokenCounter
    from lens.serve.engine.model_registry import ModelRegistry
    from lens.serve.safety.moderation import ModerationPolicy
    from lens.serve.safety.provenance import embed_provenance

    registry = ModelRegistry.from_names(settings.models, settings.served_loras)
    folder = settings.state.absolute()
    policy = ModerationPolicy.from_file(settings.policy, folder / "refusals.jsonl")
    signer = signer or create_signer(settings)
    tokenizers = {name: entry.model.component_path("tokenizer") for name, entry in registry.models.items()}
    prompt_dates = {name: entry.model.prompt_date for name, entry in registry.models.items()}
    count_tokens = TokenCounter(tokenizers, prompt_dates)
    return GenerationHooks(
        embed_provenance=lambda image, metadata, image_format, quality: embed_provenance(
            image, metadata, image_format, quality, signer
        ),
        check_prompt=policy.check_prompt,
        check_image=policy.check_image if policy.checks_images else None,
        find_reasoner=ModelReasoners(settings, policy.settings.reasoner, count_tokens, tokenizers),
        record_refusal=policy.record_refusal,
        count_tokens=count_tokens,
    )


def create_server_app(
    engine: "EngineClient",
    settings: "ServerSettings",
    state: "ServerState",
    hooks: "GenerationHooks",
    has_studio: bool,
) -> "FastAPI":
    """Return the app: the API, and at `/` the studio, or links to the API if there is no studio."""
    from lens.serve.api.app import create_app

    app = create_app(engine, settings, state, hooks)
    app.state.has_studio = has_studio
    if has_studio:
        try:
            return _add_studio(app, settings, state)
        except (ImportError, LensError) as error:
            app.state.has_studio = False
            logger.warning("the studio is not available: %s", error)

    @app.get("/", include_in_schema=False)
    async def front() -> dict[str, str]:
        return {"name": "lens", "api": "/v1", "documentation": "/docs"}

    return app


def _add_studio(app: "FastAPI", settings: "ServerSettings", state: "ServerState") -> "FastAPI":
    from lens.serve.api.http_conventions import ApiFirst
    from lens.serve.studio.app import mount_studio
    from lens.serve.studio.gallery import Gallery

    async def is_valid_key(_: str, password: str) -> bool:
        return await asyncio.to_thread(state.api_keys.find, password) is not None

    gallery = Gallery(settings.state.absolute() / "gallery")
    auth = is_valid_key if settings.needs_key(bool(state.api_keys.list_keys())) else None
    app = mount_studio(app, app.state.service, gallery, auth)
    mount: Any = app.router.routes[-1]
    mount.app = ApiFirst(mount.app, app.router.routes[:-1])
    return app


def _bind_socket(settings: "ServerSettings") -> socket:
    """Return a socket bound to the address: a port in use is an error before any model loads."""
    try:
        family = getaddrinfo(settings.host, settings.port, type=SOCK_STREAM)[0][0]
        return create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        fix = f"({error.strerror or error}) Choose another with --port or --host."
        raise SettingError("port", address, "a free address of this machine", fix) from error


def _where_to_open(app: "FastAPI", settings: "ServerSettings", server_socket: socket) -> str:
    """Return the first line of a server: the addresses of the studio and of the API."""
    host, port = server_socket.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, str(host))  # all addresses: one that can be opened
    base = settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    base = base.rstrip("/")
    studio = f"open {base}/ in a browser for the studio; " if app.state.has_studio else "without the studio; "
    return f"{studio}the API is at {base}/v1"


def _run_server(
    app: "FastAPI",
    engine: "EngineClient",
    settings: "ServerSettings",
    server_socket: socket,
    signer: "Signer | None",
) -> None:
    import uvicorn

    from lens.serve.api.app import drain
    from lens.serve.connections import EndableStreams, uvicorn_config

    streams = EndableStreams(app)

    class Server(uvicorn.Server):
        """Finishes the accepted requests on the first signal, and exits at once on the second."""

        is_shutting_down = False
        failure: Exception | None = None

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            logger.info(_where_to_open(app, settings, server_socket))
            if signer is not None and signer.is_test:
                logger.warning(
                    "images are signed with a self-signed test certificate, which proves no origin"
                )
            threading.Thread(target=self._watch_loading, daemon=True).start()

        async def shutdown(self, sockets: Any = None) -> None:
            await asyncio.sleep(LAST_EVENTS_S)
            streams.end()
            await super().shutdown(sockets)

        def _watch_loading(self) -> None:
            try:
                getattr(engine, "wait_until_ready", lambda: None)()
                logger.info("ready")
            except Exception as error:
                self.failure, self.should_exit = error, True

        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.is_shutting_down:
                super().handle_exit(sig, frame)
                return
            self.is_shutting_down = True
            logger.info("shutting down after the accepted requests; a second signal exits at once")
            threading.Thread(target=self._drain, daemon=True).start()

        def _drain(self) -> None:
            try:
                drain(app, settings.drain_s)
            finally:
                self.should_exit = True

    config = uvicorn_config(streams, settings.limits, log_level="warning", timeout_graceful_shutdown=10)
    server = Server(config)
    server.run(sockets=[server_socket])
    if server.failure is not None:
        raise server.failure
