"""Selection: the samples to keep, from stored scores: thresholds, near duplicates, buckets.

Nothing is decoded here, so another threshold costs seconds. Paper: Lens report, data section.
Letters: N samples, E embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.data.buckets import BucketFit, best_fit, fit_drop_reason
from lens.data.build.dedup import (
    Pairs,
    duplicate_groups,
    group_representatives,
    held_out_matches,
    pairs_by_detail,
    pairs_by_embedding,
    pairs_of_like_words,
)
from lens.data.build.filters import KEPT, RULES, drop_reasons
from lens.data.build.inventory import Inventory
from lens.data.build.scoring import PIXEL_SCORES_FOLDER, scores_folder
from lens.data.build.settings import BuildSettings
from lens.data.io.entry import SourceError
from lens.data.io.parquet import read_parts
from lens.text_files import TextError, decode_text

if TYPE_CHECKING:
    import pyarrow as pa

ID_COLUMNS = ("id",)
"""Columns that the tables of all scorers have."""


class Selection(NamedTuple):
    """The decision on every sample, in the order of the inventory."""

    ids: NDArray[np.bytes_]
    """64 bytes each: as text they would take four times the memory."""
    entries: NDArray[np.int64]
    """The first entry with the bytes of each sample."""
    reasons: NDArray[np.str_]
    """KEPT, or the reason to drop the sample."""
    details: list[str | None]
    fits: dict[int, BucketFit]
    """The bucket of each sample that fits one, with those that are dropped as duplicates."""
    copies: list[tuple[str, str, str]]
    """(id, address, address of the first) of entries whose bytes an earlier entry has."""
    ocr_words: list[list[str]] | None
    """The words that OCR read in each sample; None for a build without OCR."""
    addresses: "pa.ChunkedArray"
    """The address of the first entry of each sample."""


class ScoreTable(NamedTuple):
    """The stored scores of an inventory, a row an entry."""

    table: "pa.Table"

    @classmethod
    def of(cls, settings: BuildSettings, inventory: Inventory, scores: Path) -> "ScoreTable":
        """Read the tables of all scorers of a build."""
        table = read_parts(scores / PIXEL_SCORES_FOLDER, inventory.num_parts)
        for scorer in settings.scorers:
            own = read_parts(scores / scores_folder(scorer), inventory.num_parts)
            for name in own.column_names:
                if name not in ID_COLUMNS:
                    table = table.append_column(name, own.column(name))
        return cls(table)

    def ids(self) -> NDArray[np.bytes_]:
        """Return the ids of all rows, each of 64 ASCII characters."""
        import pyarrow as pa

        column = self.table.column("id").cast(pa.binary(64)).combine_chunks()
        return np.frombuffer(column.buffers()[1], dtype="S64", count=len(column), offset=64 * column.offset)

    def float_column(self, name: str) -> NDArray[np.float64] | None:
        """Return a score of all rows, NaN where it is missing; None if no scorer computes it."""
        if name not in self.table.column_names:
            return None
        return self.table.column(name).to_numpy(zero_copy_only=False).astype(np.float64)

    def embeddings(self) -> NDArray[np.float32] | None:
        """Return the embeddings, (N, E), zeros where one is missing; None if no scorer computes them."""
        if "embedding" not in self.table.column_names:
            return None
        rows = self.table.column("embedding").to_pylist()
        width = next((len(row) for row in rows if row), 1)
        return np.array([row or [0.0] * width for row in rows], dtype=np.float32)

    def ocr_words(self) -> list[list[str]] | None:
        """Return the words that OCR read in each image; None for a build without OCR."""
        has_words = "read_words" in self.table.column_names
        return [row or [] for row in self.table.column("read_words").to_pylist()] if has_words else None

    def take_rows(self, rows: NDArray[np.int64]) -> "ScoreTable":
        """Return the table of some rows."""
        return ScoreTable(self.table.take(rows))


def select_samples(
    settings: BuildSettings, inventory: Inventory, scores: Path, held_out: ScoreTable | None = None
) -> Selection:
    """Return the selection of the settings; samples that match a held-out image are dropped."""
    all_rows = ScoreTable.of(settings, inventory, scores)
    ids = all_rows.ids()
    firsts, first_of = _first_occurrences(ids)
    samples = all_rows.take_rows(firsts)
    details: list[str | None] = samples.table.column("detail").to_pylist()
    sample_reasons = _initial_reasons(settings, ids[firsts], samples)
    # Before duplicates: of a group, one that fits a bucket is kept.
    fits = _assign_buckets(settings, samples.table, sample_reasons, details)
    if held_out is not None:
        _drop_held_out(settings, samples, held_out, sample_reasons, details)
    _drop_near_duplicates(settings, samples, _licences(inventory, firsts), sample_reasons, details)
    addresses = read_parts(inventory.folder, inventory.num_parts, ["address"]).column("address")
    copies = [
        (ids[entry].decode(), addresses[entry].as_py(), addresses[int(first_of[entry])].as_py())
        for entry in np.flatnonzero(first_of != np.arange(len(ids))).tolist()
    ]
    words, own = samples.ocr_words(), addresses.take(firsts)
    return Selection(ids[firsts], firsts, sample_reasons, details, fits, copies, words, own)


def withdrawn_ids(path: Path | None) -> set[str]:
    """Return the ids of a list of withdrawn samples, one a line; text after a # is a comment.

    Raises: SourceError for a missing list, or a line that is not an id.
    """
    if path is None:
        return set()
    if not path.is_file():
        fix = "Set it to a file of ids, one a line."
        raise SourceError(f"withdrawn is {str(path)!r}, which is not a file. {fix}")
    try:
        text = decode_text(path.read_bytes())
    except TextError as error:
        raise SourceError(f"withdrawn is {str(path)!r}, which {error}.") from error
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not (len(line) == 64 and set(line) <= set("0123456789abcdef")):
            needs = "the id of a sample has 64 hexadecimal digits"
            raise SourceError(f"{path}, line {number}, is {line!r}: {needs}.")
    return set(filter(None, lines))


def _first_occurrences(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first entry of each sample, and for every entry the first one with its bytes."""
    _, first, group = np.unique(ids, return_index=True, return_inverse=True)
    return np.sort(first), first[group]


def _initial_reasons(
    settings: BuildSettings, ids: NDArray[np.bytes_], samples: ScoreTable
) -> NDArray[np.str_]:
    """Return the first reason to drop each sample: withdrawn, unreadable, then the order of the paper."""
    sample_reasons = np.array(samples.table.column("unreadable").to_pylist(), dtype="<U32")
    withdrawn = np.array(sorted(withdrawn_ids(settings.withdrawn)), dtype="S64")
    sample_reasons[np.isin(ids, withdrawn)] = "withdrawn"
    left = np.flatnonzero(sample_reasons == KEPT)
    named = {rule.score: samples.float_column(rule.score) for rule in RULES}
    scores = {name: values[left] for name, values in named.items() if values is not None}
    sample_reasons[left] = drop_reasons(scores, settings.filters)
    return sample_reasons


def _near_duplicate_pairs(
    settings: BuildSettings, samples: ScoreTable, rows: NDArray[np.int64], embeddings: NDArray | None
) -> Pairs:
    duplicates, read = settings.duplicates, samples.ocr_words()
    words = None if read is None else [read[row] for row in rows.tolist()]
    pairs = [np.empty((0, 2), np.int64)]
    if duplicates.max_hash_bits is not None:
        stored = samples.table.column("detail_hash").take(rows).to_pylist()
        details = np.frombuffer(b"".join(stored), np.uint64).reshape(len(rows), 16, -1)
        hashes = _hashes(samples, rows)
        pairs.append(pairs_by_detail(hashes, details, duplicates.max_hash_bits, words))
    if duplicates.min_cosine is not None and embeddings is not None:
        by_embedding = pairs_by_embedding(embeddings, duplicates.min_cosine)
        pairs.append(by_embedding if words is None else pairs_of_like_words(by_embedding, words))
    return np.concatenate(pairs)


def _hashes(samples: ScoreTable, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    column = samples.table.column("perceptual_hash").take(rows)
    return column.to_numpy(zero_copy_only=False).astype(np.uint64)


def _drop_near_duplicates(
    settings: BuildSettings,
    samples: ScoreTable,
    licences: Sequence[str],
    sample_reasons: NDArray,
    details: list,
) -> None:
    """Keep one of each group of near duplicates: by size, aesthetics, licence, then by bytes. In place."""
    left = np.flatnonzero(sample_reasons == KEPT)
    if not len(left):
        return
    embeddings = samples.embeddings() if settings.duplicates.min_cosine is not None else None
    pairs = _near_duplicate_pairs(
        settings, samples, left, None if embeddings is None else embeddings[left]
    )
    area, aesthetics = samples.float_column("area_px"), samples.float_column("aesthetics")
    assert area is not None
    aesthetics_rank = np.zeros(len(left)) if aesthetics is None else np.nan_to_num(aesthetics[left], nan=-1.0)
    # Among copies of one size, the one with more bytes was compressed less.
    num_bytes = samples.table.column("num_bytes").to_numpy()
    rank = [-_licence_rank(licences[index], settings.duplicates.licences) for index in left.tolist()]
    best = group_representatives(
        duplicate_groups(len(left), pairs), area[left], aesthetics_rank, rank, num_bytes[left]
    )
    ids = samples.table.column("id")
    for index in np.flatnonzero(best != np.arange(len(left))):
        sample_reasons[left[index]] = "near_duplicate"
        details[left[index]] = f"of {ids[int(left[best[index]])].as_py()}"


def _drop_held_out(
    settings: BuildSettings, samples: ScoreTable, held_out: ScoreTable, sample_reasons: NDArray, details: list
) -> None:
    """Drop samples that match a held-out image. In place."""
    left = np.flatnonzero(sample_reasons == KEPT)
    readable = np.flatnonzero(np.array(held_out.table.column("unreadable").to_pylist()) == "")
    if not len(left) or not len(readable):
        return
    ours, theirs = samples.embeddings(), held_out.embeddings()
    near = held_out_matches(
        _hashes(samples, left), _hashes(held_out, readable), settings.duplicates.max_hash_bits,
        None if ours is None else ours[left], None if theirs is None else theirs[readable],
        settings.duplicates.min_cosine,
    )  # fmt: skip
    ids = held_out.table.column("id")
    for index in np.flatnonzero(near >= 0):
        sample_reasons[left[index]] = "held_out"
        details[left[index]] = f"like {ids[int(readable[near[index]])].as_py()}"


def _licences(inventory: Inventory, entries: NDArray[np.int64]) -> list[str]:
    listed = read_parts(inventory.folder, inventory.num_parts, ["licence"]).column("licence")
    return listed.take(entries).to_pylist()


def _licence_rank(licence: str, preferred: Sequence[str]) -> int:
    """Return the rank of a licence: the first preferred one that it begins with; unknown ones come last."""
    places = (place for place, name in enumerate(preferred) if licence.lower().startswith(name.lower()))
    return next(places, len(preferred))


def _assign_buckets(
    settings: BuildSettings, samples: "pa.Table", sample_reasons: NDArray[Any], details: list
) -> dict[int, BucketFit]:
    """Return the bucket of each kept sample; drop those that fit none, or lose too much, in place."""
    max_cut = settings.filters.max_cut
    heights, widths = samples.column("height_px").to_pylist(), samples.column("width_px").to_pylist()
    fits = {}
    for index in np.flatnonzero(sample_reasons == KEPT).tolist():
        fit = best_fit(heights[index], widths[index], settings.shards.bases)
        sample_reasons[index] = reason = fit_drop_reason(fit, max_cut)
        if fit is not None and reason:
            details[index] = f"{fit.crop_fraction:.0%} of {widths[index]} x {heights[index]} for {fit.ratio}"
        elif fit is not None:
            fits[index] = fit
    return fits
