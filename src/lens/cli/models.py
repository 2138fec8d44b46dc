"""`lens models`: the known models, their sources, and which of them are on this machine."""

import json
from typing import Any

from lens.cli.arguments import AsJson


def models(as_json: AsJson = False) -> None:
    """List the models that have a name, with their defaults and sources."""
    from lens.models.checkpoints.registry import KNOWN_MODELS

    rows = [_model_fields(name) for name in KNOWN_MODELS]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "steps", "guidance", "base", "local", "description", box=box.SIMPLE)
    for row in rows:
        numbers = (str(row["steps"]), f"{row['guidance']:g}", str(row["base_resolution"]))
        table.add_row(row["name"], *numbers, "yes" if row["folder"] else "no", row["about"])
    Console().print(table)
    hub_ids: dict[str, list[str]] = {}
    for source in (source for row in rows for source in row["sources"]):
        hub_ids.setdefault(source["provenance"], []).append(source["hub_id"])
    for provenance, names in hub_ids.items():
        print(f"{provenance.capitalize()}:\n  " + "\n  ".join(names))


def _model_fields(name: str) -> dict[str, Any]:
    from lens.models.checkpoints.registry import KNOWN_MODELS
    from lens.sampling.resolved_model import ResolvedModel

    model, local = KNOWN_MODELS[name], ResolvedModel.find_local(name)
    return {
        "name": model.name,
        "variant": model.variant,
        "about": model.about,
        "steps": model.num_inference_steps,
        "guidance": model.guidance_scale,
        "base_resolution": model.base_resolution,
        "folder": str(local.folder) if local else None,
        "sources": [
            {"hub_id": source.hub_id, "provenance": source.provenance, "is_withdrawn": source.is_withdrawn}
            for source in model.sources
        ],
    }
