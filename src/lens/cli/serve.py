"""`lens serve` starts the server; `lens keys` makes, lists and takes away its callers' keys."""

import asyncio
import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from socket import SOCK_STREAM, create_server, getaddrinfo, socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.errors import LensError, MissingExtraError, SettingError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lens.serve.api.generation import GenerationHooks
    from lens.serve.engine.request import EngineClient
    from lens.serve.settings.server import ServerSettings
    from lens.serve.storage.server_state import ServerState

logger = logging.getLogger(__name__)

Config = Annotated[
    Path | None, typer.Option(help="YAML file of settings; options win.", show_default=False)
]
State = Annotated[
    Path | None, typer.Option(help="Folder of jobs, pictures and keys (lens-state).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting; repeat.", show_default=False),
]

keys = typer.Typer(no_args_is_help=True, help="Make, list and take away the keys of a server's callers.")


def serve(
    port: Annotated[int | None, typer.Option(help="Port to listen at (8000).", show_default=False)] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen at (127.0.0.1).", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to offer; repeat for more, the first is the default.", show_default=False),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="LoRA to offer; repeat for more.", show_default=False),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where torch computes (cpu).", show_default=False)
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Moderation policy, a YAML file.", show_default=False)
    ] = None,
    studio: Annotated[bool, typer.Option(help="Whether the page for drawing is at /.")] = True,
    ray: Annotated[bool, typer.Option("--ray", help="Draw by engines on Ray Serve.")] = False,
    replicas: Annotated[
        int | None, typer.Option(help="Engines on Ray Serve (1).", show_default=False)
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster that is there; else Ray starts here.", show_default=False)
    ] = None,
    state: State = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Serve pictures over HTTP, as OpenAI's images API and as jobs, with a page for drawing."""
    from lens.cli.process import prepare_libraries

    options = {"port": port, "host": host, "models": model, "state": state, "policy": policy}
    ray_options = {"replicas": replicas, "address": ray_address} if ray else None
    if not ray and (replicas is not None or ray_address is not None):
        raise SettingError("--ray", False, "to be given with --replicas and --ray-address", "Add --ray.")
    settings = _read_settings(config, overrides, options, device, lora, ray_options)
    prepare_libraries(needed={"peft"})
    run(settings, has_studio=studio)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)],
    requests_per_minute: Annotated[int | None, typer.Option(help="Limit of its own.")] = None,
    state: State = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Make a key and print it; it is kept as a hash, so it cannot be shown again."""
    with ExitStack() as stack:
        print(_open_server_state(stack, config, overrides, state).api_keys.add(name, requests_per_minute))


@keys.command("list")
def list_keys(state: State = None, config: Config = None, overrides: Overrides = None) -> None:
    """List the names of the keys, their limits and when they were made."""
    from datetime import datetime

    with ExitStack() as stack:
        for key in _open_server_state(stack, config, overrides, state).api_keys.list_keys():
            per_minute = key.requests_per_minute
            limit = f"{per_minute} requests a minute" if per_minute else "no limit of its own"
            print(f"{key.name}\t{limit}\t{datetime.fromtimestamp(key.created_at):%Y-%m-%d %H:%M}")


@keys.command("remove")
def remove_key(
    name: Annotated[str, typer.Argument(help="Whose key it was.", show_default=False)],
    state: State = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Take a key away; the server turns it down within seconds."""
    with ExitStack() as stack:
        _open_server_state(stack, config, overrides, state).api_keys.remove(name)


def run(settings: "ServerSettings", has_studio: bool = True) -> None:
    """Serve until a signal ends it; what was taken on is finished first."""
    from lens.serve.storage.server_state import open_server_state

    try:
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Serving", "uvicorn", "serve") from error
    store = open_server_state(settings)
    try:
        settings.check_exposure(has_key=bool(store.api_keys.list_keys()))
        with _bind_socket(settings) as server_socket:
            hooks, engine = create_hooks(settings), create_engine(settings)
            try:
                _run_server(
                    create_server_app(engine, settings, store, hooks, has_studio),
                    engine,
                    settings,
                    server_socket,
                )
            finally:
                engine.drain(timeout_s=0)
    finally:
        store.close()


def create_engine(settings: "ServerSettings") -> "EngineClient":
    """Return the engine, or engines on Ray, loading; the models are checked to be there."""
    from lens.serve.engine.model_registry import ModelRegistry

    for name, path in settings.loras.items():
        if not path.exists():
            raise SettingError(f"loras.{name}", str(path), "a LoRA file that exists", "Check the path.")
    if settings.ray is not None:
        from lens.serve.ray.router import RayEngineClient

        return RayEngineClient(settings)
    from lens.serve.engine.engine import Engine

    return Engine(ModelRegistry.from_names(settings.models, settings.loras), settings.engine)


def create_hooks(settings: "ServerSettings") -> "GenerationHooks":
    """Return what stands between requests and pictures: policy, marks, a language model, a tokenizer."""
    from lens.serve.api.generation import GenerationHooks
    from lens.serve.api.prompt_enhancer import PromptEnhancer
    from lens.serve.api.token_counter import TokenCounter
    from lens.serve.engine.model_registry import ModelRegistry
    from lens.serve.safety.moderation import ModerationPolicy
    from lens.serve.safety.provenance import Signer, embed_provenance

    registry = ModelRegistry.from_names(settings.models, settings.loras)
    policy = ModerationPolicy.from_file(settings.policy, settings.state.absolute() / "refusals.jsonl")
    signer = (
        Signer.from_settings(settings.signing, settings.state.absolute()) if settings.is_signing else None
    )
    if signer is not None and signer.is_test:
        logger.warning("pictures are signed with a self-made test certificate: it proves nothing")
    return GenerationHooks(
        embed_provenance=lambda image, facts, kind, quality: embed_provenance(
            image, facts, kind, quality, signer
        ),
        check_prompt=policy.check_prompt,
        check_image=policy.check_image if policy.checks_images else None,
        enhance_prompt=PromptEnhancer(settings.enhance) if settings.enhance else None,
        count_tokens=TokenCounter({name: offer.folder for name, offer in registry.models.items()}),
    )


def create_server_app(
    engine: "EngineClient",
    settings: "ServerSettings",
    store: "ServerState",
    hooks: "GenerationHooks",
    has_studio: bool,
) -> "FastAPI":
    """Return the whole app: the API, and at `/` the studio, or a few facts where there is none."""
    from lens.serve.api.app import create_app

    app = create_app(engine, settings, store, hooks)
    if has_studio:
        try:
            return _add_studio(app, engine, settings, store, hooks)
        except (ImportError, LensError) as error:
            logger.warning("there is no studio: %s", error)

    @app.get("/", include_in_schema=False)
    async def front() -> dict[str, str]:
        return {"name": "lens", "api": "/v1", "documentation": "/docs"}

    return app


def _add_studio(
    app: "FastAPI",
    engine: "EngineClient",
    settings: "ServerSettings",
    store: "ServerState",
    hooks: "GenerationHooks",
) -> "FastAPI":
    from lens.serve.studio.app import mount_studio
    from lens.serve.studio.gallery import Gallery

    async def is_valid_key(_: str, password: str) -> bool:
        return await asyncio.to_thread(store.api_keys.find, password) is not None

    gallery = Gallery(settings.state.absolute() / "gallery", hooks.embed_provenance)
    auth = is_valid_key if settings.needs_key(bool(store.api_keys.list_keys())) else None
    return mount_studio(app, engine, gallery, hooks, auth)


def _bind_socket(settings: "ServerSettings") -> socket:
    """Return a socket at the address, taken before anything that takes long."""
    try:
        family = getaddrinfo(settings.host, settings.port, type=SOCK_STREAM)[0][0]
        return create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        fix = f"({error.strerror or error}) Choose another with --port or --host."
        raise SettingError("port", address, "an address that can be listened at", fix) from error


def _run_server(
    app: "FastAPI", engine: "EngineClient", settings: "ServerSettings", server_socket: socket
) -> None:
    import uvicorn

    from lens.serve.api.app import drain

    class Server(uvicorn.Server):
        """On the first signal finishes what was taken on; on the second ends at once."""

        is_shutting_down = False
        failure: Exception | None = None

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            host, port = server_socket.getsockname()[:2]
            logger.info("serving at http://%s:%d", f"[{host}]" if ":" in host else host, port)
            threading.Thread(target=self._watch_loading, daemon=True).start()

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
            logger.info("finishing what was taken on; another signal ends at once")
            threading.Thread(target=self._drain, daemon=True).start()

        def _drain(self) -> None:
            try:
                drain(app, settings.drain_s)
            finally:
                self.should_exit = True

    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    server = Server(config)
    server.run(sockets=[server_socket])
    if server.failure is not None:
        raise server.failure


def _read_settings(
    config: Path | None,
    overrides: list[str] | None,
    options: dict[str, Any],
    device: str | None = None,
    loras: list[str] | None = None,
    ray_options: dict[str, Any] | None = None,
) -> "ServerSettings":
    from lens.config import read_recipe
    from lens.serve.settings.server import ServerSettings

    values = _read_overrides(overrides) if config is None else read_recipe(config, overrides)
    values |= {name: value for name, value in options.items() if value is not None and value != []}
    if device is not None:
        values["engine"] = {**values.get("engine", {}), "device": device}
    if ray_options is not None:
        set_options = {name: value for name, value in ray_options.items() if value is not None}
        values["ray"] = {**(values.get("ray") or {}), **set_options}
    for text in loras or []:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise SettingError("--lora", text, "the form NAME=FILE", "Such as --lora ink=ink.safetensors.")
        values["loras"] = {**values.get("loras", {}), name: path}
    return ServerSettings.of(values, source="the settings of the server")


def _read_overrides(overrides: list[str] | None) -> dict[str, Any]:
    """Return the values of `--set` alone: those of a recipe without a file."""
    from tempfile import TemporaryDirectory

    from lens.config import read_recipe

    with TemporaryDirectory() as folder:
        empty = Path(folder) / "settings.yaml"
        empty.touch()
        return read_recipe(empty, overrides)


def _open_server_state(
    stack: ExitStack, config: Path | None, overrides: list[str] | None, state: Path | None
) -> "ServerState":
    from lens.serve.storage.server_state import open_server_state

    store = open_server_state(_read_settings(config, overrides, {"state": state}), is_shared=True)
    stack.callback(store.close)
    return store
