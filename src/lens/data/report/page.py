"""The report of a view: one page for people that says what stayed, what fell and why, and shows some of each.

The same build gives the same page; the only dates in it are those of the timings. What is read is in
report_facts.py, how it looks in report_html.py and histogram.py.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from lens.core.resolution import buckets_for
from lens.data.build.filters import RULES, Thresholds
from lens.data.io.parquet import write_bytes
from lens.data.report.histogram import Threshold, drawn, histogram_of
from lens.data.report.html import (
    Bar,
    Cell,
    bytes_in_words,
    compact,
    escaped,
    figure,
    page,
    share_in_words,
    table,
)
from lens.data.report.stats import (
    Facts,
    Read,
    Shown,
    caption_lengths,
    dropped_samples,
    kept_samples,
    read_facts,
    read_timings,
)

MAX_A_REASON = 12
NUM_KEPT = 24
MAX_DROPPED = 180
"""Samples that are shown: bounds the page to 3 MB, for no thumbnail takes more than 14 kB."""
HIDDEN = ("nsfw",)
"""Reasons whose pictures nobody should have to see."""
NOT_SHOWN = ("withdrawn",)
"""Reasons whose pictures must not be used any more, here neither."""
SIDES_PX = (0, 384, 512, 768, 1024, 1536, 2048)
"""Where the classes of sizes begin."""


def write_report(out: Path, view: str, thresholds: Thresholds, read: Read) -> Path:
    """Write the report of a finished view into its folder and return where it is.

    `read` gives the bytes of an entry that comes with the number of its source: samples that fell are shown.
    Raises: LensError where the view is not finished.
    """
    facts = read_facts(out, view)
    title = f"Training data, view {view}"
    body = [
        f"<h1>{escaped(title)}</h1>", *_summary(facts), *_counts(facts), *_scores(facts, thresholds),
        *_sizes(facts), *_captions(facts), *_kept(facts), *_dropped(facts, read), *_speed(out),
    ]  # fmt: skip
    path = facts.folder / "report.html"
    write_bytes(path, page(title, body).encode())
    return path


def _summary(facts: Facts) -> Iterator[str]:
    shards, num_samples = facts.manifest["shards"], len(facts.firsts)
    num_entries, num_kept = facts.manifest["num_entries"], sum(facts.buckets.values())
    num_copies = num_entries - num_samples
    size = bytes_in_words(sum(shard["num_bytes"] for shard in shards))
    words = [
        f"The sources list {_counted(num_entries, 'entry', 'entries')}; "
        f"{_copies(num_copies)}, which leaves {_counted(num_samples, 'sample')}.",
        f"{num_kept:,} of them ({share_in_words(num_kept, num_samples)}) stay, in "
        f"{_counted(len(shards), 'shard')} over {_counted(len(facts.buckets), 'bucket')}, {size}.",
    ]
    most = sorted(((len(rows), reason) for reason, rows in facts.ledger.items()), reverse=True)[:3]
    if most:
        named = ", ".join(f"{_spoken(reason)} ({count:,})" for count, reason in most)
        words.append(f"The most frequent reasons to fall are: {named}.")
    yield f"<p>{escaped(' '.join(words), 1000)}</p>"


def _counts(facts: Facts) -> Iterator[str]:
    num_entries, num_copies = facts.manifest["num_entries"], facts.manifest["num_entries"] - len(facts.firsts)
    fell = [(_spoken(reason), len(rows)) for reason, rows in facts.ledger.items()]
    kept, shards = sum(facts.buckets.values()), facts.manifest["shards"]
    rows: list[Sequence[Cell]] = [("entries", num_entries, "100.0%", Bar(1.0))]
    rows += [
        (name, count, share_in_words(count, num_entries), Bar(count / num_entries, is_loss=True))
        for name, count in (("exact copies", num_copies), *fell)
    ]
    rows.append(("kept", kept, share_in_words(kept, num_entries), Bar(kept / num_entries)))
    packed = sum(shard["num_samples"] for shard in shards)
    in_shards = f"in {_counted(len(shards), 'shard')}"
    rows.append((in_shards, packed, share_in_words(packed, num_entries), Bar(packed / num_entries)))
    yield "<h2>What stayed and what fell</h2>"
    yield _remark(
        "In the order of the stages, as shares of all entries. A sample falls for the first reason that it "
        "meets, so that each is counted once."
    )
    yield table(("", "pictures", "share", ""), rows, numbers=(1, 2))


def _scores(facts: Facts, thresholds: Thresholds) -> Iterator[str]:
    yield "<h2>Scores</h2>"
    yield _remark(
        "Of all samples that have the score. Lines are the thresholds of this view; what lies in the shade "
        "is beyond them on this score alone, whatever those samples fell for."
    )
    yield '<div class="grid">'
    known = {rule.score: place for place, rule in reversed([*enumerate(RULES)])}
    for name in sorted(facts.scores, key=lambda one: known.get(one, len(RULES))):
        values = facts.scores[name]
        scored = values[np.isfinite(values)]
        bounds = [
            Threshold(float(bound), rule.is_lower_bound, rule.reason)
            for rule in RULES
            if rule.score == name and (bound := getattr(thresholds, rule.setting)) is not None
        ]
        yield f'<section class="card" data-score="{escaped(name)}"><h3>{escaped(_spoken(name))}</h3>'
        yield _histogram_card(scored, bounds, f"histogram of {_spoken(name)}")
        yield "</section>"
    yield "</div>"


def _histogram_card(values: np.ndarray, bounds: Sequence[Threshold], label: str) -> str:
    if not len(values):
        return "<p>No sample has it.</p>"
    median = compact(float(f"{np.median(values):.3g}"))
    said = [f"{_counted(len(values), 'sample')}, median {median}."]
    for bound in bounds:
        count = int(bound.falls(values).sum())
        share = share_in_words(count, len(values))
        said.append(f"{_spoken(bound.reason).capitalize()}: {count:,} ({share}).")
    histogram = histogram_of(values, bounds)
    if histogram.is_logarithmic:
        said.append("Logarithmic axis.")
    return f"{drawn(histogram, bounds, label)}<p>{escaped(' '.join(said), 400)}</p>"


def _sizes(facts: Facts) -> Iterator[str]:
    yield "<h2>Sizes</h2>"
    yield _remark(
        "Before: entries that could be read, at the nearest of the buckets' ratios, and by the side of a "
        "square of their area. After: samples that stay, in their buckets."
    )
    bases = sorted({base for base, _ in facts.buckets})
    ratios = list(buckets_for(512))
    before = _nearest_ratios(facts.sizes, ratios)
    after = {ratio: sum(facts.buckets.get((base, ratio), 0) for base in bases) for ratio in ratios}
    yield "<h3>Aspect ratios, width to height</h3>"
    yield _compared(ratios, before, [after[ratio] for ratio in ratios])
    sides = np.sqrt(facts.sizes.prod(axis=1))                                            # (N,)
    counts = np.histogram(sides, (*SIDES_PX, np.inf))[0].tolist()
    between = [f"{low} to {high - 1} px" for low, high in pairwise(SIDES_PX[1:])]
    names = [f"below {SIDES_PX[1]} px", *between, f"{SIDES_PX[-1]} px and more"]
    yield "<h3>Resolutions before</h3>"
    total = max(1, len(sides))
    rows = [
        (name, count, share_in_words(count, total), Bar(count / total))
        for name, count in zip(names, counts, strict=True)
    ]
    yield table(("side", "entries", "share", ""), rows, numbers=(1, 2))
    yield "<h3>Buckets after</h3>"
    of_base = [[facts.buckets.get((base, ratio), 0) for ratio in ratios] for base in bases]
    columns = [*of_base, [sum(counts) for counts in zip(*of_base, strict=True)]]
    grid = [(ratio, *counts) for ratio, *counts in zip(ratios, *columns, strict=True)]
    grid.append(("all", *(sum(column) for column in columns)))
    heads = ("ratio", *(f"base {base}" for base in bases), "all")
    yield table(heads, grid, numbers=range(1, len(heads)))


def _nearest_ratios(sizes: np.ndarray, ratios: Sequence[str]) -> list[int]:
    if not len(sizes):
        return [0] * len(ratios)
    parts = np.array([[float(part) for part in ratio.split(":")] for ratio in ratios])   # (R, 2), width first
    own = np.log(sizes[:, 1] / sizes[:, 0])                                              # (N,)
    nearest = np.abs(own[:, None] - np.log(parts[:, 0] / parts[:, 1])).argmin(axis=1)    # (N,)
    return np.bincount(nearest, minlength=len(ratios)).tolist()


def _compared(names: Sequence[str], before: Sequence[int], after: Sequence[int]) -> str:
    all_before, all_after = max(1, sum(before)), max(1, sum(after))
    rows = [
        (name, one, share_in_words(one, all_before), other, share_in_words(other, all_after),
         Bar(other / all_after))
        for name, one, other in zip(names, before, after, strict=True)
    ]  # fmt: skip
    return table(("ratio", "before", "share", "after", "share", ""), rows, numbers=(1, 2, 3, 4))


def _captions(facts: Facts) -> Iterator[str]:
    lengths, num_without, num_read = caption_lengths(facts)
    yield "<h2>Captions</h2>"
    if not lengths:
        yield "<p>No sample in the shards has a caption.</p>"
        return
    words = np.array(lengths)
    where = f"{num_read:,} of {_counted(len(facts.manifest['shards']), 'shard')}"
    yield (
        f"<p>In {where}, {_counted(len(lengths), 'sample')} with a caption: {words.mean():,.1f} words on "
        f"average, {words.min():,} to {words.max():,}; {num_without:,} without.</p>"
    )
    yield '<div class="grid"><section class="card" data-score="caption words"><h3>words of a caption</h3>'
    yield _histogram_card(words.astype(np.float64), (), "histogram of the words of a caption")
    yield "</section></div>"


def _kept(facts: Facts) -> Iterator[str]:
    yield "<h2>Some that stay</h2>"
    yield _remark("The first of shards that are spread over all buckets, as they are trained on.")
    yield '<div class="sheet">'
    for shown in kept_samples(facts, NUM_KEPT):
        yield figure(shown.pictures, (shown.detail, shown.caption or "no caption"), shown.detail)
    yield "</div>"


def _dropped(facts: Facts, read: Read) -> Iterator[str]:
    yield "<h2>Some that fell</h2>"
    each = max(1, min(MAX_A_REASON, MAX_DROPPED // max(1, len(facts.ledger))))
    for reason, rows in facts.ledger.items():
        # A copy and what it is a copy of are two pictures.
        count = each // 2 if reason in ("near_duplicate", "held_out") else each
        count = 0 if reason in NOT_SHOWN else max(1, count)
        shown = list(dropped_samples(facts, reason, count, read))
        hidden = " Shown as colours alone." if reason in HIDDEN else ""
        yield f"<h3>{escaped(_spoken(reason))}</h3>"
        yield _remark(f"{len(shown)} of {len(rows):,}.{hidden}")
        yield '<div class="sheet">'
        for one in shown:
            lines = (_name(one.address), _why(reason, one))
            yield figure(one.pictures, lines, one.detail or "no bytes", hides=reason in HIDDEN)
        yield "</div>"


def _why(reason: str, shown: Shown) -> str:
    """Return the score that a sample fell for, or the detail of the ledger."""
    scores = [rule.score for rule in RULES if rule.reason == reason]
    if scores and scores[0] in shown.scores:
        return f"{_spoken(scores[0])} {compact(shown.scores[scores[0]])}"
    return shown.detail if shown.pictures else ""


def _speed(out: Path) -> Iterator[str]:
    timings = read_timings(out)
    yield "<h2>Speed</h2>"
    if not timings:
        yield "<p>Nothing was timed.</p>"
        return
    slowest = max(timings, key=lambda one: one.seconds)
    total = sum(one.seconds for one in timings) or 1.0
    yield (
        f"<p>The bottleneck is <strong>{escaped(_spoken(slowest.stage))}</strong>: "
        f"{share_in_words(slowest.seconds, total)} of the {total:,.0f} s that all stages took together.</p>"
    )
    rows = [
        (one.stage, one.num_items, f"{one.seconds:,.1f}", _rate(one.num_items, one.seconds), one.last_date,
         Bar(one.seconds / total, is_loss=one is slowest))
        for one in timings
    ]  # fmt: skip
    heads = ("stage", "pictures", "seconds", "pictures/s", "last run", "share of time")
    yield table(heads, rows, numbers=(1, 2, 3))


def _rate(num_items: int, seconds: float) -> str:
    if not seconds:
        return "-"
    rate = num_items / seconds
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _remark(words: str) -> str:
    return f'<p class="soft">{escaped(words, 1000)}</p>'


def _name(address: str) -> str:
    """Return the end of an address, which says more than its beginning."""
    return address if len(address) <= 60 else f"...{address[-57:]}"


def _spoken(name: str) -> str:
    """Return the name of a reason or a score as words."""
    words = {"num_bytes": "size in bytes", "area_px": "area in pixels"}
    return words.get(name, name.replace("_", " "))


def _counted(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _copies(number: int) -> str:
    if number == 1:
        return "1 is an exact copy of another"
    return f"{number or 'none':{',' if number else ''}} are exact copies of others"
