"""The report page of a view: what was kept, what was dropped and why, with samples of each.

The same build gives the same page; its only dates are those of the timings. Data comes from stats.py, HTML
from html.py and histogram.py.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from lens.core.resolution import buckets_for
from lens.data.build.filters import RULES, FilterSettings
from lens.data.number_format import format_bytes, format_compact, format_share
from lens.data.report.histogram import Threshold, compute_histogram, render_svg
from lens.data.report.html import (
    Bar,
    Cell,
    escape_html,
    figure,
    page,
    table,
)
from lens.data.report.stats import (
    ReadEntry,
    ReportSample,
    ReportStats,
    caption_lengths,
    dropped_samples,
    kept_samples,
    read_stats,
    read_timings,
)
from lens.files import write_bytes_atomic

MAX_SAMPLES_PER_REASON = 12
NUM_KEPT_SHOWN = 24
MAX_DROPPED = 180
"""Dropped samples that are shown: bounds the page to 3 MB, as a thumbnail has at most 14 kB."""
PIXELATED_REASONS = ("nsfw",)
"""Reasons whose images are shown pixelated."""
OMITTED_REASONS = ("withdrawn",)
"""Reasons whose images are not shown: they must not be used any more."""
SIDES_PX = (0, 384, 512, 768, 1024, 1536, 2048)
"""Lower bounds of the size classes."""


def write_report(out: Path, view: str, thresholds: FilterSettings, read_entry: ReadEntry) -> Path:
    """Write the report of a finished view into its folder and return its path.

    `read_entry` returns the bytes of an entry, to show dropped samples.
    Raises: LensError where the view is not finished.
    """
    stats = read_stats(out, view)
    title = f"Training data, view {view}"
    body = [
        f"<h1>{escape_html(title)}</h1>",
        *_summary(stats),
        *_counts(stats),
        *_passed_over(stats),
        *_scores(stats, thresholds),
        *_sizes(stats),
        *_captions(stats),
        *_kept_section(stats),
        *_dropped_section(stats, read_entry),
        *_speed(out),
    ]
    path = stats.folder / "report.html"
    write_bytes_atomic(path, page(title, body).encode())
    return path


def _summary(stats: ReportStats) -> Iterator[str]:
    shards, num_samples = stats.manifest["shards"], len(stats.first_entries)
    num_entries, num_kept = stats.manifest["num_entries"], sum(stats.buckets.values())
    num_copies = num_entries - num_samples
    size = format_bytes(sum(shard["num_bytes"] for shard in shards))
    words = [
        f"The sources list {_count_phrase(num_entries, 'entry', 'entries')}; "
        f"{_copies_phrase(num_copies)}, which leaves {_count_phrase(num_samples, 'sample')}.",
        f"{num_kept:,} of them ({format_share(num_kept, num_samples)}) are kept, in "
        f"{_count_phrase(len(shards), 'shard')} over {_count_phrase(len(stats.buckets), 'bucket')}, {size}.",
    ]
    most = sorted(((len(rows), reason) for reason, rows in stats.ledger.items()), reverse=True)[:3]
    if most:
        named = ", ".join(f"{_readable_name(reason)} ({count:,})" for count, reason in most)
        words.append(f"The most frequent reasons to drop a sample: {named}.")
    yield f"<p>{escape_html(' '.join(words), 1000)}</p>"


def _counts(stats: ReportStats) -> Iterator[str]:
    num_entries, num_copies = (
        stats.manifest["num_entries"],
        stats.manifest["num_entries"] - len(stats.first_entries),
    )
    dropped = [(_readable_name(reason), len(rows)) for reason, rows in stats.ledger.items()]
    kept, shards = sum(stats.buckets.values()), stats.manifest["shards"]
    rows: list[Sequence[Cell]] = [("entries", num_entries, "100.0%", Bar(1.0))]
    rows += [
        (name, count, format_share(count, num_entries), Bar(count / num_entries, is_loss=True))
        for name, count in (("exact copies", num_copies), *dropped)
    ]
    rows.append(("kept", kept, format_share(kept, num_entries), Bar(kept / num_entries)))
    packed = sum(shard["num_samples"] for shard in shards)
    in_shards = f"in {_count_phrase(len(shards), 'shard')}"
    rows.append((in_shards, packed, format_share(packed, num_entries), Bar(packed / num_entries)))
    yield "<h2>Kept and dropped entries</h2>"
    yield _remark(
        "In the order of the stages, as shares of all entries. A sample is dropped for the first reason that "
        "applies, so each one is counted once."
    )
    yield table(("", "images", "share", ""), rows, numeric_columns=(1, 2))


def _passed_over(stats: ReportStats) -> Iterator[str]:
    kinds = stats.manifest["passed_over"]
    if not kinds:
        return
    yield "<h2>Passed over</h2>"
    yield _remark("What the sources hold beside entries. All of it is listed in the tables of the inventory.")
    rows = [(kind["kind"], kind["count"], ", ".join(kind["examples"])) for kind in kinds]
    yield table(("", "files", "such as"), rows, numeric_columns=(1,))


def _scores(stats: ReportStats, thresholds: FilterSettings) -> Iterator[str]:
    yield "<h2>Scores</h2>"
    yield _remark(
        "Of all samples that have the score. Lines are the thresholds of this view. The shaded part is "
        "outside a threshold; those samples may have been dropped for another reason."
    )
    yield '<div class="grid">'
    known = {rule.score: place for place, rule in reversed([*enumerate(RULES)])}
    for name in sorted(stats.scores, key=lambda one: known.get(one, len(RULES))):
        values = stats.scores[name]
        scored = values[np.isfinite(values)]
        bounds = [
            Threshold(float(bound), rule.is_lower_bound, rule.reason)
            for rule in RULES
            if rule.score == name and (bound := getattr(thresholds, rule.setting)) is not None
        ]
        title = escape_html(_readable_name(name))
        yield f'<section class="card" data-score="{escape_html(name)}"><h3>{title}</h3>'
        yield _histogram_card(scored, bounds, f"histogram of {_readable_name(name)}")
        yield "</section>"
    yield "</div>"


def _histogram_card(values: np.ndarray, bounds: Sequence[Threshold], label: str) -> str:
    if not len(values):
        return "<p>No sample has this score.</p>"
    median = format_compact(float(f"{np.median(values):.3g}"))
    sentences = [f"{_count_phrase(len(values), 'sample')}, median {median}."]
    for bound in bounds:
        count = int(bound.is_outside(values).sum())
        share = format_share(count, len(values))
        sentences.append(f"{_readable_name(bound.reason).capitalize()}: {count:,} ({share}).")
    histogram = compute_histogram(values, bounds)
    if histogram.is_logarithmic:
        sentences.append("Logarithmic axis.")
    return f"{render_svg(histogram, bounds, label)}<p>{escape_html(' '.join(sentences), 400)}</p>"


def _sizes(stats: ReportStats) -> Iterator[str]:
    yield "<h2>Sizes</h2>"
    yield _remark(
        "Before: all readable entries, by the nearest aspect ratio of the buckets, and by the side of a "
        "square of their area. After: kept samples, in their buckets."
    )
    bases = sorted({base for base, _ in stats.buckets})
    ratios = list(buckets_for(512))
    before = _nearest_ratios(stats.sizes, ratios)
    after = {ratio: sum(stats.buckets.get((base, ratio), 0) for base in bases) for ratio in ratios}
    yield "<h3>Aspect ratios (width:height)</h3>"
    yield _comparison_table(ratios, before, [after[ratio] for ratio in ratios])
    sides = np.sqrt(stats.sizes.prod(axis=1))                                            # (N,)
    counts = np.histogram(sides, (*SIDES_PX, np.inf))[0].tolist()
    between = [f"{low} to {high - 1} px" for low, high in pairwise(SIDES_PX[1:])]
    names = [f"below {SIDES_PX[1]} px", *between, f"{SIDES_PX[-1]} px and more"]
    yield "<h3>Resolutions before</h3>"
    total = max(1, len(sides))
    rows = [
        (name, count, format_share(count, total), Bar(count / total))
        for name, count in zip(names, counts, strict=True)
    ]
    yield table(("side", "entries", "share", ""), rows, numeric_columns=(1, 2))
    yield "<h3>Buckets after</h3>"
    of_base = [[stats.buckets.get((base, ratio), 0) for ratio in ratios] for base in bases]
    columns = [*of_base, [after[ratio] for ratio in ratios]]
    grid = [(ratio, *counts) for ratio, *counts in zip(ratios, *columns, strict=True)]
    grid.append(("all", *(sum(column) for column in columns)))
    heads = ("ratio", *(f"base {base}" for base in bases), "all")
    yield table(heads, grid, numeric_columns=range(1, len(heads)))


def _nearest_ratios(sizes: np.ndarray, ratios: Sequence[str]) -> list[int]:
    if not len(sizes):
        return [0] * len(ratios)
    parts = np.array([[float(part) for part in ratio.split(":")] for ratio in ratios])   # (R, 2), width first
    own = np.log(sizes[:, 1] / sizes[:, 0])                                              # (N,)
    nearest = np.abs(own[:, None] - np.log(parts[:, 0] / parts[:, 1])).argmin(axis=1)    # (N,)
    return np.bincount(nearest, minlength=len(ratios)).tolist()


def _comparison_table(names: Sequence[str], before: Sequence[int], after: Sequence[int]) -> str:
    all_before, all_after = max(1, sum(before)), max(1, sum(after))
    rows = [
        (name, one, format_share(one, all_before), other, format_share(other, all_after),
         Bar(other / all_after))
        for name, one, other in zip(names, before, after, strict=True)
    ]  # fmt: skip
    return table(("ratio", "before", "share", "after", "share", ""), rows, numeric_columns=(1, 2, 3, 4))


def _captions(stats: ReportStats) -> Iterator[str]:
    lengths, num_without, num_read = caption_lengths(stats)
    yield "<h2>Captions</h2>"
    if not lengths:
        yield "<p>No sample in the shards has a caption.</p>"
        return
    words = np.array(lengths)
    where = f"{num_read:,} of {_count_phrase(len(stats.manifest['shards']), 'shard')}"
    yield (
        f"<p>In {where}, {_count_phrase(len(lengths), 'sample')} with a caption: "
        f"{words.mean():,.1f} words on "
        f"average, {words.min():,} to {words.max():,}; {num_without:,} without a caption.</p>"
    )
    yield '<div class="grid"><section class="card" data-score="caption words"><h3>words of a caption</h3>'
    yield _histogram_card(words.astype(np.float64), (), "histogram of the words of a caption")
    yield "</section></div>"


def _kept_section(stats: ReportStats) -> Iterator[str]:
    yield "<h2>Kept samples</h2>"
    yield _remark("The first samples of shards spread over all buckets, as they are used in training.")
    yield '<div class="sheet">'
    for sample in kept_samples(stats, NUM_KEPT_SHOWN):
        yield figure(sample.images, (sample.detail, sample.caption or "no caption"), sample.detail)
    yield "</div>"


def _dropped_section(stats: ReportStats, read_entry: ReadEntry) -> Iterator[str]:
    yield "<h2>Dropped samples</h2>"
    each = max(1, min(MAX_SAMPLES_PER_REASON, MAX_DROPPED // max(1, len(stats.ledger))))
    for reason, rows in stats.ledger.items():
        # A near duplicate is shown with the sample that it matches: two images.
        count = each // 2 if reason in ("near_duplicate", "held_out") else each
        count = 0 if reason in OMITTED_REASONS else max(1, count)
        samples = list(dropped_samples(stats, reason, count, read_entry))
        hidden = " Pixelated." if reason in PIXELATED_REASONS else ""
        yield f"<h3>{escape_html(_readable_name(reason))}</h3>"
        yield _remark(f"{len(samples)} of {len(rows):,}.{hidden}")
        yield '<div class="sheet">'
        for one in samples:
            lines = (_short_address(one.address), _drop_detail(reason, one))
            yield figure(
                one.images, lines, one.detail or "no bytes", is_pixelated=reason in PIXELATED_REASONS
            )
        yield "</div>"


def _drop_detail(reason: str, sample: ReportSample) -> str:
    """Return the score that a sample was dropped for, or the detail of the ledger."""
    scores = [rule.score for rule in RULES if rule.reason == reason]
    if scores and scores[0] in sample.scores:
        return f"{_readable_name(scores[0])} {format_compact(sample.scores[scores[0]])}"
    return sample.detail if sample.images else ""


def _speed(out: Path) -> Iterator[str]:
    timings = read_timings(out)
    yield "<h2>Speed</h2>"
    if not timings:
        yield "<p>There are no timings.</p>"
        return
    slowest = max(timings, key=lambda one: one.seconds)
    total = sum(one.seconds for one in timings) or 1.0
    yield (
        f"<p>The bottleneck is <strong>{escape_html(_readable_name(slowest.stage))}</strong>: "
        f"{format_share(slowest.seconds, total)} of the {total:,.0f} s of all stages together.</p>"
    )
    rows = [
        (
            one.stage,
            one.num_items,
            f"{one.seconds:,.1f}",
            _format_throughput(one.num_items, one.seconds),
            one.last_date,
            Bar(one.seconds / total, is_loss=one is slowest),
        )
        for one in timings
    ]
    heads = ("stage", "images", "seconds", "images/s", "last run", "share of time")
    yield table(heads, rows, numeric_columns=(1, 2, 3))


def _format_throughput(num_items: int, seconds: float) -> str:
    if not seconds:
        return "-"
    rate = num_items / seconds
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _remark(words: str) -> str:
    return f'<p class="soft">{escape_html(words, 1000)}</p>'


def _short_address(address: str) -> str:
    """Return the end of an address, its most specific part."""
    return address if len(address) <= 60 else f"...{address[-57:]}"


def _readable_name(name: str) -> str:
    """Return the name of a reason or a score in words."""
    words = {"num_bytes": "size in bytes", "area_px": "area in pixels"}
    return words.get(name, name.replace("_", " "))


def _count_phrase(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _copies_phrase(number: int) -> str:
    if number == 1:
        return "1 is an exact copy of another"
    return f"{number or 'none':{',' if number else ''}} are exact copies of others"
