"""Commands `lens serve`, which starts a server, and `lens keys`, which manages its API keys."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.cli.arguments import Overrides
from lens.errors import SettingError

if TYPE_CHECKING:
    from lens.serve.settings.server import ServerSettings
    from lens.serve.storage.api_keys import ApiKeyStore

Config = Annotated[
    Path | None, typer.Option(help="YAML file of settings; options override it.", show_default=False)
]
State = Annotated[
    Path | None, typer.Option(help="Folder of jobs, images and API keys (lens-state).", show_default=False)
]

keys = typer.Typer(no_args_is_help=True, help="Create, list and delete API keys.")


def serve(
    port: Annotated[int | None, typer.Option(help="Port to listen on (8000).", show_default=False)] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (127.0.0.1).", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model to serve: a name, folder or file; repeatable, the first is the default.",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="LoRA to serve; repeatable.", show_default=False),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device of the models (cpu).", show_default=False)
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="YAML file of the moderation policy.", show_default=False)
    ] = None,
    studio: Annotated[bool, typer.Option(help="Serve the studio, a web page, at /.")] = True,
    ray: Annotated[bool, typer.Option("--ray", help="Run the engines on Ray Serve.")] = False,
    replicas: Annotated[
        int | None, typer.Option(help="Number of engines on Ray Serve (1).", show_default=False)
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Ray cluster; starts Ray here if omitted.", show_default=False
        ),
    ] = None,
    state: State = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Serve image generation over HTTP: OpenAI's images API, a job queue and a studio."""
    from lens.cli.process import prepare_libraries
    from lens.serve.server import run

    options = {"port": port, "host": host, "models": model, "state": state, "policy": policy}
    ray_options = {"replicas": replicas, "address": ray_address} if ray else None
    if not ray and (replicas is not None or ray_address is not None):
        raise SettingError("--ray", False, "to be set for --replicas and --ray-address", "Add --ray.")
    settings = _read_settings(config, overrides, options, device, lora, ray_options)
    prepare_libraries(needed={"peft", "gguf"})
    run(settings, has_studio=studio)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Name of the key.", show_default=False)],
    requests_per_minute: Annotated[int | None, typer.Option(help="Rate limit of this key.")] = None,
    state: State = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Create a key and print it. Only its hash is stored, so it cannot be shown again."""
    from lens.serve.storage.api_keys import check_key

    check_key(name, requests_per_minute)  # before a state is created for it
    with ExitStack() as stack:
        store = _open_keys(stack, config, overrides, state, is_new=True)
        print(store.add(name, requests_per_minute))


@keys.command("list")
def list_keys(state: State = None, config: Config = None, overrides: Overrides = None) -> None:
    """List the keys with their rate limits and creation times."""
    from datetime import datetime

    with ExitStack() as stack:
        for key in _open_keys(stack, config, overrides, state).list_keys():
            per_minute = key.requests_per_minute
            limit = f"{per_minute} requests per minute" if per_minute else "server's rate limit"
            print(f"{key.name}\t{limit}\t{datetime.fromtimestamp(key.created_at):%Y-%m-%d %H:%M}")


@keys.command("remove")
def remove_key(
    name: Annotated[str, typer.Argument(help="Name of the key.", show_default=False)],
    state: State = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Delete a key. The server rejects it within seconds."""
    with ExitStack() as stack:
        _open_keys(stack, config, overrides, state).remove(name)


def _read_settings(
    config: Path | None,
    overrides: list[str] | None,
    options: dict[str, Any],
    device: str | None = None,
    loras: list[str] | None = None,
    ray_options: dict[str, Any] | None = None,
) -> "ServerSettings":
    from lens.config import parse_overrides, read_recipe
    from lens.serve.settings.server import ServerSettings

    if config is None:
        values = parse_overrides(overrides or [])
    else:
        values = read_recipe(config, overrides, setting="--config")
    for name, value in options.items():
        if value is not None and value != []:
            shown = " ".join(value) if isinstance(value, list) else value
            values.set(name, value, f"--{name.removesuffix('s')} {shown}")
    if device is not None:
        values.set("engine.device", device, f"--device {device}")
    if ray_options is not None:
        values.set("ray", values.get("ray") or {}, "--ray")
        for name, value in ray_options.items():
            if value is not None:
                option = "--ray-address" if name == "address" else f"--{name}"
                values.set(f"ray.{name}", value, f"{option} {value}")
    for text in loras or []:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise SettingError("--lora", text, "the form NAME=FILE", "Such as --lora ink=ink.safetensors.")
        if not isinstance(values.setdefault("loras", {}), dict):
            break  # as the configuration has no mapping there, which is told below
        values["loras"][name] = path
        values.origins[f"loras.{name}"] = f"--lora {text}"
    return ServerSettings.of(values, source="the settings of the server")


def _open_keys(
    stack: ExitStack,
    config: Path | None,
    overrides: list[str] | None,
    state: Path | None,
    is_new: bool = False,
) -> "ApiKeyStore":
    """Return the keys of a server's state; only where one `is_new` is a state created for them."""
    from lens.serve.storage.server_state import open_server_state

    settings = _read_settings(config, overrides, {"state": state})
    if not is_new and not settings.has_state:
        fix = "`lens keys add NAME` or `lens serve` creates it."
        raise SettingError("--state", str(settings.state), "the state folder of a server", fix)
    store = open_server_state(settings, is_shared=True)
    stack.callback(store.close)
    return store.api_keys
