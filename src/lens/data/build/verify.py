"""Verification of a build: every sample is in exactly one shard or once in the ledger."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from lens.data.build.scoring import PIXEL_SCORES_FOLDER
from lens.data.io.parquet import import_pyarrow, read_parts, read_table
from lens.data.io.webdataset import ShardError, checksum, read_shard
from lens.errors import LensError, first_line
from lens.text_files import read_json

MAX_NAMED_FAULTS = 5
"""Faults of a kind that are listed by name."""


class VerifyResult(NamedTuple):
    """The counts of a build, and all faults that were found."""

    num_entries: int
    num_samples: int
    num_in_shards: int
    num_in_ledger: int
    faults: tuple[str, ...]


def verify_build(out: Path, view: str | None = None) -> VerifyResult:
    """Check one view of a build, by default the newest.

    Raises: LensError where there is no finished view.
    """
    folder = _view_folder(out, view)
    arrow_error = import_pyarrow()[0].ArrowException
    damaged = (OSError, LookupError, TypeError, ValueError, AttributeError, arrow_error)
    try:
        return _verify_view(out, folder)
    except damaged as error:
        if isinstance(error, LensError):
            raise
        what = f"{type(error).__name__}: {first_line(error)}"
        raise LensError(f"A file of {folder} is missing or damaged ({what}). Build it again.") from error


def _verify_view(out: Path, folder: Path) -> VerifyResult:
    manifest = read_json(folder / "manifest.json", "manifest")
    inventory = read_json(out / "inventory" / manifest["inventory"] / "inventory.json", "inventory")
    scores = out / "scores" / manifest["scores"] / PIXEL_SCORES_FOLDER
    ids = read_parts(scores, inventory["num_parts"]).column("id").to_pylist()
    faults: list[str] = []
    if len(ids) != inventory["num_entries"]:
        faults.append(f"{inventory['num_entries']} entries were listed, but {len(ids)} were scored")
    in_shards, shard_faults = _check_shards(folder, manifest["shards"])
    in_ledger = Counter(read_table(folder / "ledger.parquet").column("id").to_pylist())
    faults += shard_faults
    every = set(ids)
    faults += _fault_lines("are in no shard and not in the ledger", every - set(in_shards) - set(in_ledger))
    faults += _fault_lines("are in a shard and in the ledger", set(in_shards) & set(in_ledger))
    faults += _fault_lines("are in shards more than once", _repeated_ids(in_shards))
    faults += _fault_lines("are in the ledger more than once", _repeated_ids(in_ledger))
    faults += _fault_lines("were never scored", (set(in_shards) | set(in_ledger)) - every)
    return VerifyResult(len(ids), len(every), in_shards.total(), in_ledger.total(), tuple(faults))


def _view_folder(out: Path, view: str | None) -> Path:
    finished = sorted(out.glob("views/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in finished]
    if not names or view not in (None, *names):
        known = f"There are {', '.join(names)}." if names else "Run `lens data build` to its end first."
        raise LensError(f"{out} has no finished view{f' {view}' if view else ''}. {known}")
    return out / "views" / (view or names[-1])


def _check_shards(folder: Path, shards: list[dict]) -> tuple[Counter[str], list[str]]:
    """Return how often each sample is in a shard, and the faults of the shards themselves."""
    found: Counter[str] = Counter()
    faults = []
    for facts in shards:
        path = folder / "shards" / facts["shard"]
        try:
            if checksum(path) != facts["sha256"]:
                faults.append(f"{facts['shard']} does not match its checksum")
            found.update(key for key, _ in read_shard(path))
        except FileNotFoundError:
            faults.append(f"{facts['shard']} is missing")
        except ShardError as error:
            faults.append(str(error))
    listed = {facts["shard"] for facts in shards}
    tars = {path.name for path in folder.glob("shards/*.tar")}
    faults += _fault_lines("are .tar files that the manifest does not list", tars - listed)
    return found, faults


def _repeated_ids(counts: Counter[str]) -> set[str]:
    return {name for name, count in counts.items() if count > 1}


def _fault_lines(what: str, names: set[str]) -> list[str]:
    if not names:
        return []
    listed = ", ".join(sorted(names)[:MAX_NAMED_FAULTS])
    return [f"{len(names)} {what}: {listed}{', ...' if len(names) > MAX_NAMED_FAULTS else ''}"]
