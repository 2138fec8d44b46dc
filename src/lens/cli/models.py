"""`lens models`: the table of known models, what is known of where they come from, and which are here."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a model.")]


def models(as_json: AsJson = False) -> None:
    """List the models that can be asked for by name."""
    from lens.models.checkpoints.registry import KNOWN_MODELS

    rows = [_model_fields(name) for name in KNOWN_MODELS]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "steps", "guidance", "base", "here", "what it is", box=box.SIMPLE)
    for row in rows:
        numbers = (str(row["steps"]), f"{row['guidance']:g}", str(row["base_resolution"]))
        table.add_row(row["name"], *numbers, "yes" if row["folder"] else "no", row["about"])
    Console().print(table)
    hub_ids: dict[str, list[str]] = {}
    for source in (source for row in rows for source in row["sources"]):
        hub_ids.setdefault(source["provenance"], []).append(source["hub_id"])
    for provenance, names in hub_ids.items():
        print(f"{provenance.capitalize()}:\n  " + "\n  ".join(names))


def find_local_folder(name: str) -> Path | None:
    """Return the folder of a model that is on this machine; None where it would have to be fetched."""
    import logging

    from lens.errors import CheckpointError
    from lens.models.checkpoints.registry import resolve_model

    logger = logging.getLogger("lens")
    level = logger.level
    logger.setLevel(logging.ERROR)  # each source that is not on disk would be warned of
    try:
        return resolve_model(name, offline=True)
    except CheckpointError:
        return None
    finally:
        logger.setLevel(level)


def _model_fields(name: str) -> dict[str, Any]:
    from lens.models.checkpoints.registry import KNOWN_MODELS

    model, folder = KNOWN_MODELS[name], find_local_folder(name)
    return {
        "name": model.name,
        "variant": model.variant,
        "about": model.about,
        "steps": model.num_inference_steps,
        "guidance": model.guidance_scale,
        "base_resolution": model.base_resolution,
        "folder": str(folder) if folder else None,
        "sources": [
            {"hub_id": source.hub_id, "provenance": source.provenance, "is_withdrawn": source.is_withdrawn}
            for source in model.sources
        ],
    }
