"""Report statistics, read from a finished build: scores, sizes, captions, samples, timings.

Knows nothing of HTML. Letters: N entries, S samples (entries with bytes of their own).
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lens.data.build.filters import RULES
from lens.data.build.inventory import entry_of_row
from lens.data.build.scoring import PIXEL_SCORES_FOLDER
from lens.data.io.image_decoding import ImageError, decode_thumbnail
from lens.data.io.parquet import column_types, part_path, read_parts, read_table
from lens.data.io.sample import BRIEF_CAPTION, FULL_CAPTION, parse_sample
from lens.data.io.webdataset import ShardError, read_shard
from lens.data.sources.registry import NumberedEntry
from lens.errors import LensError

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
ReadEntry = Callable[[NumberedEntry], bytes]
"""Returns the bytes of an entry, or raises an ImageError."""

SIZE_COLUMNS = {"height_px", "width_px"}
"""Numeric columns that are sizes, not scores."""
SHOWN_SIDE_PX = 192
"""Longer side of the images of samples, at most: a page holds those of a reason at once."""
MAX_SHARDS_READ = 200
"""Shards in which captions are counted, evenly spread: bounds the time."""


class ReportStats(NamedTuple):
    """A finished view, and what its build knows of every entry."""

    folder: Path
    manifest: dict[str, Any]
    entries: "pa.Table"
    """The inventory, N rows."""
    first_entries: NDArray[np.int64]
    """The first entry of each sample, (S,)."""
    entry_by_id: dict[str, int]
    """The first entry of a sample by its id."""
    unreadable: list[str]
    """Reasons why entries could not be read, in alphabetical order."""
    sizes: NDArray[np.float64]
    """Heights and widths of the readable entries in pixels, (., 2)."""
    scores: dict[str, NDArray[np.float64]]
    """Each score of all samples, (S,); NaN where a sample has none."""
    ledger: dict[str, list[tuple[str, str]]]
    """(id, detail) by reason, in the order of the stages."""
    buckets: dict[tuple[int, str], int]
    """Kept samples by base and ratio."""


def read_stats(out: Path, view: str) -> ReportStats:
    """Return the statistics of a view.

    Raises: LensError where the view is not finished, or the rows of a scorer do not match the inventory.
    """
    folder = out / "views" / view
    if not (folder / "manifest.json").is_file():
        raise LensError(f"{out} has no finished view {view}. Run `lens data build` to its end first.")
    manifest = json.loads((folder / "manifest.json").read_text())
    listed, scores = out / "inventory" / manifest["inventory"], out / "scores" / manifest["scores"]
    num_parts = json.loads((listed / "inventory.json").read_text())["num_parts"]
    columns = ["id", "unreadable", "height_px", "width_px"]
    measured = read_parts(scores / PIXEL_SCORES_FOLDER, num_parts, columns)
    ids = measured.column("id").to_pylist()
    firsts = np.sort(np.unique(np.array(ids), return_index=True)[1])
    unreadable = measured.column("unreadable").to_pylist()
    sizes = np.stack([_float_column(measured, name) for name in columns[2:]], axis=1)         # (N, 2)
    kept = read_table(folder / "kept.parquet").select(["base", "ratio"]).group_by(["base", "ratio"])
    counted = kept.aggregate([([], "count_all")]).to_pylist()
    return ReportStats(
        folder=folder, manifest=manifest, entries=read_parts(listed, num_parts), first_entries=firsts,
        entry_by_id={ids[entry]: entry for entry in firsts.tolist()},
        unreadable=sorted({*unreadable} - {""}), sizes=sizes[~np.isnan(sizes).any(axis=1)],
        scores=_read_scores(scores, num_parts, firsts, len(ids)), ledger=_read_ledger(folder, {*unreadable}),
        buckets={(row["base"], row["ratio"]): row["count_all"] for row in counted},
    )  # fmt: skip


def caption_lengths(stats: ReportStats) -> tuple[list[int], int, int]:
    """Return the number of words of each caption, of samples without one, and of shards that were read."""
    lengths, num_without = [], 0
    paths = sample_evenly(_shard_paths(stats), MAX_SHARDS_READ)
    for path in paths:
        captions = [parse_sample(files).sidecar.caption for _, files in read_shard(path, _is_caption)]
        lengths += [len(caption.split()) for caption in captions if caption]
        num_without += captions.count("")
    return lengths, num_without, len(paths)


def _is_caption(extension: str) -> bool:
    return extension in (FULL_CAPTION, BRIEF_CAPTION)


class ReportSample(NamedTuple):
    """A sample to show: its images, none where they cannot be decoded, and what is known of it."""

    images: list[Image.Image]
    address: str
    detail: str
    caption: str = ""
    scores: dict[str, float] = {}  # noqa: RUF012 - never changed


def kept_samples(stats: ReportStats, count: int) -> Iterator[ReportSample]:
    """Yield the first samples of evenly spread shards."""
    paths = sample_evenly(_shard_paths(stats), count)
    for path in paths:
        for _, files in islice(read_shard(path), -(-count // len(paths))):
            image, sidecar, facts = parse_sample(files)
            bucket = f"{facts['base']} px, {facts['ratio']}"
            shown = _decode_images([partial(bytes, image)])
            yield ReportSample(shown, facts["address"], bucket, sidecar.caption)


def dropped_samples(
    stats: ReportStats, reason: str, count: int, read_entry: ReadEntry
) -> Iterator[ReportSample]:
    """Yield evenly spread samples that were dropped for a reason, decoded from their source.

    A near duplicate comes with the sample that it matches.
    """
    for name, detail in sample_evenly(stats.ledger[reason], count):
        entry = _find_entry(stats, name)
        if entry is None:
            continue
        entries = [entry]
        other = re.search(r"\b[0-9a-f]{64}\b", detail)
        original = _find_entry(stats, other.group()) if other else None
        if original is not None:
            entries.append(original)
            detail = f"left; the kept one is {original[1].address}"
        index = int(np.searchsorted(stats.first_entries, stats.entry_by_id[name]))
        own = {score: float(values[index]) for score, values in stats.scores.items()}
        images = _decode_images([partial(read_entry, one) for one in entries])
        yield ReportSample(images, entry[1].address, detail, entry[1].caption, own)


class Timing(NamedTuple):
    """The time of one stage, all runs together."""

    stage: str
    num_items: int
    seconds: float
    last_date: str


def read_timings(out: Path) -> list[Timing]:
    """Return the time of each stage, in the order of first runs; none where there are no timings."""
    path, found = out / "timings.jsonl", {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            stage, items, seconds, date = (row[name] for name in ("stage", "items", "seconds", "date"))
            before = found.get(stage, Timing(stage, 0, 0.0, ""))
            num_items, total = before.num_items + int(items), before.seconds + float(seconds)
            found[stage] = Timing(str(stage), num_items, total, str(date))
        except (ValueError, KeyError, TypeError):
            continue  # a line that a kill truncated
    return list(found.values())


def sample_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items, evenly spread, with the first one."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _read_scores(
    folder: Path, num_parts: int, firsts: NDArray[np.int64], num_entries: int
) -> dict[str, NDArray[np.float64]]:
    """Return each numeric column of the newest version of each scorer that scored all parts."""
    newest: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        if all(part_path(path, part).is_file() for part in range(num_parts)):
            newest[path.name.rpartition("-")[0]] = path
    # Pixel scores, which every build has, come first.
    folders = sorted(newest.values(), key=lambda path: (path.name != PIXEL_SCORES_FOLDER, path.name))
    found: dict[str, NDArray[np.float64]] = {}
    for path in folders:
        types = column_types(part_path(path, 0))
        names = [name for name, kind in types.items() if _is_score(name, kind)]
        table = read_parts(path, num_parts, names)
        if names and table.num_rows != num_entries:
            fix = "Remove it and build again."
            raise LensError(f"{path} has {table.num_rows} rows for {num_entries} entries. {fix}")
        for name in names:
            found[f"{path.name} {name}" if name in found else name] = _float_column(table, name)[firsts]
    return found


def _is_score(name: str, kind: str) -> bool:
    is_number = re.fullmatch(r"u?int\d+|float|double|halffloat", kind) is not None
    return is_number and name not in SIZE_COLUMNS and not name.endswith("hash")


def _float_column(table: "pa.Table", name: str) -> NDArray[np.float64]:
    return table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)


def _read_ledger(folder: Path, unreadable: set[str]) -> dict[str, list[tuple[str, str]]]:
    """Return the ledger by reason: withdrawn, unreadable, filters in their order, duplicates, all others."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in read_table(folder / "ledger.parquet").to_pylist():
        found.setdefault(row["reason"], []).append((row["id"], row["detail"] or ""))
    rules, last = (rule.reason for rule in RULES), ("no_bucket", "cut_too_much", "held_out", "near_duplicate")
    order = ["unscored", *rules, *last]
    stages = {reason: 2 + place for place, reason in enumerate(order)}
    stages |= dict.fromkeys(unreadable, 1) | {"withdrawn": 0}
    return {reason: found[reason] for reason in sorted(found, key=lambda one: (stages.get(one, 99), one))}


def _find_entry(stats: ReportStats, sample: str) -> NumberedEntry | None:
    if sample not in stats.entry_by_id:
        return None
    row = stats.entries.slice(stats.entry_by_id[sample], 1).to_pylist()[0]
    return entry_of_row(row)


def _shard_paths(stats: ReportStats) -> list[Path]:
    paths = [stats.folder / "shards" / shard["shard"] for shard in stats.manifest["shards"]]
    for path in paths:
        if not path.is_file():
            raise ShardError(f"{path} is missing. Build it again.")
    return paths


def _decode_images(contents: Sequence[Callable[[], bytes]]) -> list[Image.Image]:
    """Return thumbnails up to the first one that cannot be read or decoded; `contents` read their bytes."""
    found = []
    for read in contents:
        try:
            found.append(decode_thumbnail(read(), SHOWN_SIDE_PX))
        except ImageError:
            break
    return found
