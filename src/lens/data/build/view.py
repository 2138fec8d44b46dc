"""A view: the kept samples with their bucket and shard, and the reason for each dropped one.

A view is made from a selection (selection.py) and the results of captioning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens.data.build.filters import KEPT
from lens.data.build.selection import Selection
from lens.data.build.settings import BuildSettings
from lens.data.captions.requests import CaptionResult
from lens.data.io.parquet import write_table
from lens.data.io.webdataset import json_bytes
from lens.files import write_bytes_atomic

KEPT_SCHEMA = {
    "id": "string", "part": "int32", "row": "int32", "base": "int32", "ratio": "string",
    "shard": "string", "caption": "string", "brief": "string",
}  # fmt: skip
LEDGER_SCHEMA = {"id": "string", "address": "string", "reason": "string", "detail": "string"}
COPIES_SCHEMA = {"id": "string", "address": "string", "first_address": "string"}


class View(NamedTuple):
    """A complete view."""

    folder: Path
    counts: dict[str, int]
    """Samples by reason, with `kept`, and `exact_copies`: entries whose bytes an earlier entry has."""
    captions: dict[str, float]
    """Cost of captioning: tokens, and money where prices are known."""


def load_view(settings: BuildSettings, name: str) -> View | None:
    """Return the view of a name; None while it does not exist."""
    folder = settings.out / "views" / name
    committed = folder / "view.json"
    return View(folder, **json.loads(committed.read_text())) if committed.is_file() else None


def write_view(
    settings: BuildSettings,
    name: str,
    selection: Selection,
    captions: Mapping[str, CaptionResult],
    costs: dict[str, float],
) -> View:
    """Write the view of a selection; `captions` are the results by sample, `costs` their total cost.

    A sample without a usable caption is dropped for the error of its last one.
    """
    folder = settings.out / "views" / name
    sample_reasons, details = selection.reasons.copy(), list(selection.details)
    for index in np.flatnonzero(sample_reasons == KEPT).tolist():
        failure = captions.get(selection.ids[index].decode(), CaptionResult()).error if captions else ""
        if failure:
            sample_reasons[index], details[index] = f"caption_{failure}", ""
    kept, dropped = np.flatnonzero(sample_reasons == KEPT), np.flatnonzero(sample_reasons != KEPT)
    _write_kept(settings, selection, kept.tolist(), captions, folder)
    ledger = {
        "id": selection.ids[dropped],
        "address": selection.addresses.take(dropped).to_pylist(),
        "reason": sample_reasons[dropped],
        "detail": [details[i] or "" for i in dropped],
    }
    write_table(folder / "ledger.parquet", ledger, LEDGER_SCHEMA)
    copies = selection.copies
    columns = {name: [copy[place] for copy in copies] for place, name in enumerate(COPIES_SCHEMA)}
    write_table(folder / "copies.parquet", columns, COPIES_SCHEMA)
    names, numbers = np.unique(sample_reasons[dropped], return_counts=True)
    counts = {str(name): int(number) for name, number in zip(names, numbers, strict=True)}
    counts |= {"kept": len(kept), "exact_copies": len(copies)}
    write_bytes_atomic(folder / "view.json", json_bytes({"counts": counts, "captions": costs}))
    return View(folder, counts, costs)


def _write_kept(
    settings: BuildSettings, selection: Selection, kept: list[int], captions: Mapping[str, CaptionResult],
    folder: Path,
) -> None:  # fmt: skip
    """Write the kept samples in the order of buckets, then of ids, each with its shard."""
    ids, fits = selection.ids, selection.fits
    order = sorted(kept, key=lambda index: (fits[index].base, fits[index].ratio, ids[index]))
    shards, numbers = [], {}
    for index in order:
        bucket = f"{fits[index].base}_{fits[index].ratio.replace(':', 'x')}"
        number = numbers[bucket] = numbers.get(bucket, -1) + 1
        shards.append(f"{bucket}-{number // settings.shards.samples_per_shard:05d}")
    results = [captions.get(ids[index].decode(), CaptionResult()) for index in order]
    columns = {
        "id": ids[order],
        "part": [int(selection.entries[index]) // settings.part_size for index in order],
        "row": [int(selection.entries[index]) % settings.part_size for index in order],
        "base": [fits[index].base for index in order],
        "ratio": [fits[index].ratio for index in order],
        "shard": shards,
        "caption": [one.dense for one in results],
        "brief": [one.brief for one in results],
    }
    write_table(folder / "kept.parquet", columns, KEPT_SCHEMA)
