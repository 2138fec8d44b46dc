"""A view of the scores: what stays, in which bucket, and the one reason why each other sample falls.

Nothing is decoded here, so that another threshold costs seconds. Paper: Lens report, data section.
Letters: N entries of the inventory.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lens.data.buckets import Fit, best_fit
from lens.data.duplicates import groups_of, kept_of_groups, pairs_by_hash
from lens.data.filters import KEPT, Scores, reasons
from lens.data.inventory import Inventory
from lens.data.measuring import FOLDER
from lens.data.recipe import BuildSettings
from lens.data.shards import json_bytes
from lens.data.tables import read_parts, write_bytes, write_table

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_SCHEMA = {
    "id": "string", "part": "int32", "row": "int32", "base": "int32", "ratio": "string",
    "shard": "string",
}  # fmt: skip
LEDGER_SCHEMA = {"id": "string", "reason": "string", "detail": "string"}
COPIES_SCHEMA = {"id": "string", "address": "string", "first_address": "string"}


class View(NamedTuple):
    """A complete view."""

    folder: Path
    counts: dict[str, int]
    """Samples by reason, `kept` among them, and `exact_copies`: entries whose bytes came before."""


def make_view(settings: BuildSettings, inventory: Inventory, scores_folder: Path) -> View:
    """Return the view that the settings ask for, making it from stored scores if it is not there."""
    folder = settings.out / "views" / settings.view_id
    committed = folder / "view.json"
    if not committed.is_file():
        _make(settings, inventory, scores_folder, folder)
    return View(folder, json.loads(committed.read_text())["counts"])


def _make(settings: BuildSettings, inventory: Inventory, scores_folder: Path, folder: Path) -> None:
    table = read_parts(scores_folder / FOLDER, inventory.num_parts)
    listed = read_parts(inventory.folder, inventory.num_parts)
    addresses = listed.column("address").to_pylist()
    ids = np.array(table.column("id").to_pylist())
    firsts, first_of = _first_of_each(ids)
    samples = table.take(firsts)
    details = samples.column("detail").to_pylist()
    found = _reasons(settings, samples, details)
    fits = _fitted(settings, samples, found)
    kept = np.flatnonzero(found == KEPT)
    fell = np.flatnonzero(found != KEPT)
    _write_kept(settings, ids[firsts], firsts, kept, fits, folder)
    write_table(
        folder / "ledger.parquet",
        {"id": ids[firsts][fell], "reason": found[fell], "detail": [details[index] or "" for index in fell]},
        LEDGER_SCHEMA,
    )
    copies = [(entry, first) for entry, first in enumerate(first_of) if entry != first]
    columns = {
        "id": [ids[entry] for entry, _ in copies],
        "address": [addresses[entry] for entry, _ in copies],
        "first_address": [addresses[first] for _, first in copies],
    }
    write_table(folder / "copies.parquet", columns, COPIES_SCHEMA)
    names, numbers = np.unique(found, return_counts=True)
    counts = {str(name) or "kept": int(number) for name, number in zip(names, numbers, strict=True)}
    counts |= {"kept": len(kept), "exact_copies": len(copies)}
    write_bytes(folder / "view.json", json_bytes({"counts": counts}))


def _first_of_each(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries that are the first with their bytes, and for every entry that first one."""
    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    return np.sort(first), first[group]


def _reasons(settings: BuildSettings, samples: "pa.Table", details: list[Any]) -> np.ndarray:
    """Return the first reason why each sample falls, in the paper's order; details are filled in place."""
    scores: Scores = {
        name: samples.column(name).to_numpy(zero_copy_only=False).astype(float)
        for name in ("area_px", "clarity", "entropy", "luminance")
    }
    found = np.array(samples.column("unreadable").to_pylist(), dtype="<U32")
    readable = np.flatnonzero(found == KEPT)
    found[readable] = reasons({name: values[readable] for name, values in scores.items()}, settings.filters)
    left = np.flatnonzero(found == KEPT)
    if settings.duplicates.max_hash_bits is not None and len(left):
        hashes = samples.column("perceptual_hash").take(left).to_numpy(zero_copy_only=False)
        pairs = pairs_by_hash(hashes.astype(np.uint64), settings.duplicates.max_hash_bits)
        # Of one size, the copy with more bytes was compressed less.
        num_bytes = samples.column("num_bytes").to_numpy()
        best = kept_of_groups(groups_of(len(left), pairs), scores["area_px"][left], num_bytes[left])
        ids = samples.column("id")
        for index in np.flatnonzero(best != np.arange(len(left))):
            found[left[index]] = "near_duplicate"
            details[left[index]] = f"of {ids[int(left[best[index]])].as_py()}"
    return found


def _fitted(settings: BuildSettings, samples: "pa.Table", found: np.ndarray) -> dict[int, Fit]:
    """Return the bucket of each sample that stays; what fits none falls as `no_bucket`, in place."""
    heights, widths = samples.column("height_px").to_pylist(), samples.column("width_px").to_pylist()
    fits = {}
    for index in np.flatnonzero(found == KEPT).tolist():
        fit = best_fit(heights[index], widths[index], settings.shards.bases)
        if fit is None:
            found[index] = "no_bucket"
        else:
            fits[index] = fit
    return fits


def _write_kept(
    settings: BuildSettings, ids: np.ndarray, entries: np.ndarray, kept: np.ndarray, fits: dict[int, Fit],
    folder: Path,
) -> None:  # fmt: skip
    """Write what stays in the order of buckets, then of ids, with the shard that each goes to."""
    order = sorted(kept.tolist(), key=lambda index: (fits[index].base, fits[index].ratio, ids[index]))
    shards, numbers = [], {}
    for index in order:
        bucket = f"{fits[index].base}_{fits[index].ratio.replace(':', 'x')}"
        number = numbers[bucket] = numbers.get(bucket, -1) + 1
        shards.append(f"{bucket}-{number // settings.shards.samples_a_shard:05d}")
    columns = {
        "id": [ids[index] for index in order],
        "part": [int(entries[index]) // settings.part_size for index in order],
        "row": [int(entries[index]) % settings.part_size for index in order],
        "base": [fits[index].base for index in order],
        "ratio": [fits[index].ratio for index in order],
        "shard": shards,
    }
    write_table(folder / "kept.parquet", columns, KEPT_SCHEMA)
