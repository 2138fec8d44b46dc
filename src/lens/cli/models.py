"""`lens models`: the known models, their sources, and which of them are on this machine."""

import json
import shutil
from collections.abc import Sequence
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
    numbers = [
        (row["name"], str(row["steps"]), f"{row['guidance']:g}", str(row["base_resolution"]),
         "yes" if row["folder"] else "no")
        for row in rows
    ]  # fmt: skip
    print_columns(("name", "steps", "guidance", "base", "local"), numbers, [row["about"] for row in rows])
    hub_ids: dict[str, list[str]] = {}
    for source in (source for row in rows for source in row["sources"]):
        hub_ids.setdefault(source["provenance"], []).append(source["hub_id"])
    for provenance, names in hub_ids.items():
        print(f"\n{provenance[0].upper()}{provenance[1:]}:\n  " + "\n  ".join(names))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print rows in columns, each with its note behind it.

    On a narrow terminal a note has a line of its own, and on a very narrow one every value has.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    total = sum(widths) + 2 * (len(widths) - 1)
    room = shutil.get_terminal_size((200, 24)).columns - total
    notes = notes or [""] * len(rows)
    if room < 0:
        for row, note in zip(rows, notes, strict=True):
            values = (f"  {name}: {value}" for name, value in zip(header[1:], row[1:], strict=True) if value)
            print("\n".join([row[0], *values, *([f"  {note}"] if note else [])]))
        return
    gap = "  " if room >= max(map(len, notes)) + 2 else "\n    "
    is_number = [all(value[:1].isdigit() or not value for value in column[1:]) for column in columns]
    for line, note in zip((header, *rows), ("", *notes), strict=True):
        cells = zip(line, widths, is_number, strict=True)
        text = "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells)
        print(f"{text}{gap if note else ''}{note}".rstrip())


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
