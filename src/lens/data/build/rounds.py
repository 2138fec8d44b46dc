"""Rounds of scoring: downloads that failed for a while are tried again, and their parts are scored anew.

A round has a folder of scores of its own, and views of its own: what an earlier round made stays as it is.
The parts that nothing changed are shared by hard links.
"""

import os
import shutil
from pathlib import Path

from lens.data.build.inventory import Inventory
from lens.data.build.reader import EntryReader
from lens.data.build.scoring import PIXEL_SCORES_FOLDER
from lens.data.io.download import TRANSIENT_REASONS
from lens.data.io.parquet import part_path, read_table


def latest_round(folder: Path, inventory_id: str) -> Path:
    """Return the folder of the newest round of an inventory's scores; it need not exist yet."""
    rounds = [path for path in folder.glob(f"{inventory_id}-*") if path.name.rpartition("-")[2].isdigit()]
    return max(rounds, key=round_number, default=folder / inventory_id)


def round_number(scores: Path) -> int:
    """Return the number of the round of a folder of scores; the first one is 0."""
    return int(scores.name.partition("-")[2] or 0)


def parts_to_retry(scores: Path, num_parts: int) -> list[int]:
    """Return the parts with an entry whose download failed for a reason that may have passed."""
    return [number for number in range(num_parts) if _stale_rows(scores, number)]


def retry_downloads(inventory: Inventory, number: int, scores: Path, reader: EntryReader) -> bool:
    """Try the failed downloads of a part again; return whether some of them are there now."""
    rows, entries = _stale_rows(scores, number), inventory.part(number)
    stale = [entries[row] for row in rows]
    failures = reader.prefetch(stale)
    return any(entry.path not in failures for _, entry in stale)


def begin_round(scores: Path, stale_parts: set[int]) -> Path:
    """Make the folder of the next round, with all tables but those of some parts, and return it."""
    inventory_id = scores.name.partition("-")[0]
    following = scores.with_name(f"{inventory_id}-{round_number(scores) + 1}")
    unfinished = scores.with_name(f".{following.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    stale = {part_path(scores, number).name for number in stale_parts}
    for table in scores.glob("*/*.parquet"):
        if table.name not in stale:
            target = unfinished / table.parent.name / table.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(table, target)
            except OSError:  # a file system without hard links
                shutil.copy2(table, target)
    unfinished.mkdir(parents=True, exist_ok=True)
    return unfinished.rename(following)


def _stale_rows(scores: Path, number: int) -> list[int]:
    path = part_path(scores / PIXEL_SCORES_FOLDER, number)
    if not path.is_file():
        return []
    reasons = read_table(path).column("unreadable").to_pylist()
    return [row for row, reason in enumerate(reasons) if reason in TRANSIENT_REASONS]
