"""Proof that a build is complete and disjoint: every sample is in exactly one shard or once in the ledger."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lens.data.build.scoring import FOLDER
from lens.data.io.parquet import read_parts, read_table
from lens.data.io.webdataset import ShardError, checksum, read_shard
from lens.errors import LensError

NAMED = 5
"""Faults of a kind that are listed by name."""


class Verdict(NamedTuple):
    """What a build holds, and everything that is wrong with it."""

    num_entries: int
    num_samples: int
    num_in_shards: int
    num_in_ledger: int
    faults: tuple[str, ...]


def verify(out: Path, view: str | None = None) -> Verdict:
    """Check one view of a build, the newest unless another is named.

    Raises: LensError where there is no finished build.
    """
    folder = _view_folder(out, view)
    manifest = json.loads((folder / "manifest.json").read_text())
    inventory = json.loads((out / "inventory" / manifest["inventory"] / "inventory.json").read_text())
    scores = out / "scores" / manifest["inventory"] / FOLDER
    ids = read_parts(scores, inventory["num_parts"]).column("id").to_pylist()
    faults: list[str] = []
    if len(ids) != inventory["num_entries"]:
        faults.append(f"{inventory['num_entries']} entries were listed, but {len(ids)} were measured")
    in_shards, shard_faults = _packed(folder, manifest["shards"])
    in_ledger = Counter(read_table(folder / "ledger.parquet").column("id").to_pylist())
    faults += shard_faults
    every = set(ids)
    faults += _told("are in no shard and not in the ledger", every - set(in_shards) - set(in_ledger))
    faults += _told("are in a shard and in the ledger", set(in_shards) & set(in_ledger))
    faults += _told("are in shards more than once", _repeated(in_shards))
    faults += _told("are in the ledger more than once", _repeated(in_ledger))
    faults += _told("were never measured", (set(in_shards) | set(in_ledger)) - every)
    return Verdict(len(ids), len(every), in_shards.total(), in_ledger.total(), tuple(faults))


def _view_folder(out: Path, view: str | None) -> Path:
    finished = sorted(out.glob("views/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in finished]
    if not names or view not in (None, *names):
        known = f"There are {', '.join(names)}." if names else "Run lens data build first, to its end."
        raise LensError(f"{out} has no finished view{f' {view}' if view else ''}. {known}")
    return out / "views" / (view or names[-1])


def _packed(folder: Path, shards: list[dict]) -> tuple[Counter[str], list[str]]:
    """Return how often each sample is in a shard, and what is wrong with the shards themselves."""
    found: Counter[str] = Counter()
    faults = []
    for facts in shards:
        path = folder / "shards" / facts["shard"]
        try:
            if checksum(path) != facts["sha256"]:
                faults.append(f"{facts['shard']} is not what its checksum says")
            found.update(key for key, _ in read_shard(path))
        except FileNotFoundError:
            faults.append(f"{facts['shard']} is missing")
        except ShardError as error:
            faults.append(str(error))
    listed = {facts["shard"] for facts in shards}
    faults += _told("are tars that no manifest lists", {p.name for p in folder.glob("shards/*.tar")} - listed)
    return found, faults


def _repeated(counts: Counter[str]) -> set[str]:
    return {name for name, count in counts.items() if count > 1}


def _told(what: str, names: set[str]) -> list[str]:
    if not names:
        return []
    listed = ", ".join(sorted(names)[:NAMED])
    return [f"{len(names)} {what}: {listed}{', ...' if len(names) > NAMED else ''}"]
