"""The report of a small build: its numbers, its escaping, and that it loads nothing."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lens.data.build.filters import FilterSettings
from lens.data.build.scoring import PIXEL_SCORES_FOLDER
from lens.data.build.settings import BuildSettings
from lens.data.io.parquet import read_table, write_table
from lens.data.number_format import format_bytes, format_compact, format_share
from lens.data.pipeline import build_dataset
from lens.data.report.histogram import Threshold, axis_ticks, compute_histogram
from lens.data.report.html import escape_html, figure
from lens.data.report.page import write_report
from lens.errors import LensError

NUM_GOOD, NUM_SMALL = 18, 14
HOSTILE = "a\"><script>alert(1)<script>'&.png"
HOSTILE_CAPTION = "</figure><img src=http://evil.example/x onerror=alert(2)> \N{RIGHT-TO-LEFT OVERRIDE}so"
FILTERS = {
    "max_nsfw": None, "min_aesthetics": None, "max_watermark": None,
    "min_entropy": 1.0, "min_luminance": 0.05, "max_luminance": 0.97,
}  # fmt: skip


def textured(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    coarse = rng.integers(0, 256, (-(-height // 20), -(-width // 20), 3), dtype=np.uint8)
    return Image.fromarray(np.kron(coarse, np.ones((20, 20, 1), np.uint8))[:height, :width])


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, BuildSettings]:
    """One build for all tests: the folder of its view, and its settings."""
    root, out = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("built") / "out"
    rng = np.random.default_rng(0)
    for index in range(NUM_GOOD):
        path = root / f"{index:02d}.jpg"
        textured(rng, *((520, 530), (430, 650), (800, 770))[index % 3]).save(path, quality=90)
        if index:
            path.with_suffix(".txt").write_text(HOSTILE_CAPTION if index == 1 else "word " * (10 + index))
    for index in range(NUM_SMALL - 1):
        textured(rng, 100, 120 + index).save(root / f"small{index}.png")
    textured(rng, 90, 90).save(root / HOSTILE)
    (root / "same.jpg").write_bytes((root / "00.jpg").read_bytes())
    Image.open(root / "03.jpg").save(root / "again.jpg", quality=60)
    Image.new("RGB", (600, 600), (90, 90, 90)).save(root / "flat.png")
    (root / "broken.jpg").write_bytes((root / "06.jpg").read_bytes()[:3000])
    settings = BuildSettings.of({
        "out": str(out), "source": {"kind": "folder", "path": str(root)}, "part_size": 16, "num_workers": 2,
        "filters": FILTERS, "shards": {"samples_per_shard": 5},
        "captions": {"kind": "sidecar", "requires": False},
    })  # fmt: skip
    return out / "views" / build_dataset(settings)["view"], settings


def report(built: tuple[Path, BuildSettings], thresholds: Mapping[str, Any] | None = None) -> str:
    view, settings = built
    wanted = FilterSettings.of({**settings.filters.model_dump(), **(thresholds or {})})
    path = write_report(settings.out, view.name, wanted, lambda numbered: Path(numbered[1].path).read_bytes())
    assert path == settings.out / "views" / view.name / "report.html"
    return path.read_text()


@pytest.fixture(scope="module")
def html(built) -> str:
    return report(built)


class Page(HTMLParser):
    """Every tag of a page with its attributes; complains when they are not closed in order."""

    VOID = ("meta", "img", "br", "rect", "path")

    def __init__(self, html: str):
        super().__init__()
        self.objects: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.objects.append((tag, dict(attrs)))
        if tag not in self.VOID or (tag == "rect" and dict(attrs)["class"] == "b"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.objects.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def cards(html: str) -> dict[str, str]:
    """The card of each score."""
    return dict(re.findall(r'<section class="card" data-score="([^"]*)">(.*?)</section>', html, re.DOTALL))


def drawn_counts(card: str) -> list[int]:
    return [int(count) for count in re.findall(r"<title>([\d]+) from", card)]


def test_every_stage_stands_in_the_table_with_its_count_in_the_order_of_the_stages(html, built):
    view, _ = built
    rows = dict(re.findall(r'<tr><td>([^<]*)</td><td class="n">([\d,]+)</td>', html.split("<h2>Scores")[0]))
    reasons = Counter(read_table(view / "ledger.parquet").column("reason").to_pylist())
    assert {name: int(count) for name, count in rows.items()} == {
        "entries": NUM_GOOD + NUM_SMALL + 4, "exact copies": 1, "corrupt": 1, "too small": NUM_SMALL,
        "little information": 1, "near duplicate": 1, "kept": NUM_GOOD, "in 6 shards": NUM_GOOD,
    }  # fmt: skip
    assert {name: int(rows[name.replace("_", " ")]) for name in reasons} == dict(reasons)
    assert list(rows) == [
        "entries", "exact copies", "corrupt", "too small", "little information", "near duplicate", "kept",
        "in 6 shards",
    ]  # fmt: skip


def test_the_summary_has_the_counts_in_words(html):
    assert "The sources list 36 entries; 1 is an exact copy of another, which leaves 35 samples." in html
    assert f"{NUM_GOOD} of them (51.4%) are kept, in 6 shards over 3 buckets" in html
    assert f"The most frequent reasons to drop a sample: too small ({NUM_SMALL})" in html


def test_histograms_count_every_sample_that_has_the_score_once(html):
    found = cards(html)
    num_readable = NUM_GOOD + NUM_SMALL + 2
    for score in ("clarity", "entropy", "luminance", "area_px"):
        assert sum(drawn_counts(found[score])) == num_readable, score
    assert sum(drawn_counts(found["num_bytes"])) == num_readable + 1, "the broken one has bytes too"
    assert sum(drawn_counts(found["caption words"])) == NUM_GOOD - 1
    assert "perceptual_hash" not in found and "height_px" not in found


def test_every_threshold_is_drawn_with_the_share_outside_it(html):
    found = cards(html)
    assert re.findall('data-reason="([^"]*)"', found["luminance"]) == ["too_dark", "too_bright"]
    assert re.findall('data-reason="([^"]*)"', found["area_px"]) == ["too_small"]
    assert "at least 147.5k" in found["area_px"]
    assert f"Too small: {NUM_SMALL} (41.2%)." in found["area_px"]
    assert "Little information: 1 (2.9%)." in found["entropy"]
    assert "Too dark: 0 (0.0%)." in found["luminance"]
    assert "data-reason" not in found["clarity"]


def test_scores_of_other_scorers_are_found_in_their_newest_version(built):
    _, settings = built
    scores = settings.out / "scores" / settings.inventory_id
    for version, like in ((9, 4.0), (10, 2.0)):
        for path in sorted((scores / PIXEL_SCORES_FOLDER).glob("*.parquet")):
            ids = read_table(path).column("id").to_pylist()
            columns = {"id": ids, "aesthetics": [like, None] * (len(ids) // 2), "words": [["a"]] * len(ids)}
            kinds = {"id": "string", "aesthetics": "float32", "words": "list"}
            write_table(scores / f"liking-{version}" / path.name, columns, kinds)
    card = cards(report(built, {"min_aesthetics": 3.0}))["aesthetics"]
    num_scored = sum(drawn_counts(card))
    assert 15 <= num_scored <= 18
    assert f"Unaesthetic: {num_scored} (100.0%)." in card and "at least 3" in card
    (scores / "liking-10" / "part-000000.parquet").unlink()
    assert "Unaesthetic: 0 (0.0%)." in cards(report(built, {"min_aesthetics": 3.0}))["aesthetics"]
    for version in (9, 10):
        shutil.rmtree(scores / f"liking-{version}")


def test_sizes_before_and_after_are_counted(html):
    sizes = html.split("<h2>Sizes")[1].split("<h2>")[0]
    row = r'<td>1:1</td><td class="n">\d+</td><td[^>]*>[^<]*</td><td class="n">(\d+)</td>'
    assert re.findall(row, sizes.split("<h3>Resolutions")[0]) == ["12"]
    before = re.findall(r"<td>(?:below|\d+ to|\d+ px and)[^<]*</td><td class=\"n[^>]*>(\d+)</td>", sizes)
    assert sum(map(int, before)) == NUM_GOOD + NUM_SMALL + 3, "all but the broken one"
    assert re.search(r'<td>all</td><td class="n">12</td><td class="n">6</td><td class="n">18</td>', sizes)


def test_samples_are_shown_at_most_twelve_a_reason_and_what_cannot_be_decoded_says_why(html):
    fallen = html.split("<h2>Dropped samples")[1].split("<h2>")[0].split("<h3>")[1:]
    fell = dict(one.split("</h3>") for one in fallen)
    assert fell["too small"].count("<img") == 12 and "12 of 14." in fell["too small"]
    assert re.search("area in pixels 1[0-9]{4}|area in pixels 1[0-9.]+k", fell["too small"])
    assert fell["near duplicate"].count("<img") == 2, "the copy and the one that stays"
    assert "the kept one is" in fell["near duplicate"]
    assert "<img" not in fell["corrupt"] and 'class="nothing">' in fell["corrupt"]
    assert "rows can be decoded" in fell["corrupt"]
    kept = html.split("<h2>Kept samples")[1].split("<h2>")[0]
    assert kept.count("<img") == 15 and "512 px, 1:1" in kept


def test_untrusted_text_stays_text_and_nothing_is_ever_loaded(html):
    tags = Page(html).objects
    names = {tag for tag, _ in tags}
    assert not names & {"script", "link", "iframe", "object", "base", "a", "form", "use", "image"}
    for tag, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action"):
                assert value is not None and value.startswith("data:image/jpeg;base64,")
    assert "url(" not in html and "@import" not in html
    assert "a&quot;&gt;&lt;script&gt;alert(1)&lt;script&gt;&#x27;&amp;.png" in html
    assert "&lt;/figure&gt;&lt;img src=http://evil.example/x onerror=alert(2)&gt;" in html
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in html
    assert ("meta", "Content-Security-Policy") in {(tag, one.get("http-equiv")) for tag, one in tags}


def test_the_same_build_gives_the_same_page_and_a_small_one(html, built):
    assert report(built) == html
    assert len(html) < 1_000_000


def test_timings_are_summed_by_stage_and_the_longest_is_the_bottleneck(html, built):
    _, settings = built
    path = settings.out / "timings.jsonl"
    rows = [("inventory", 36, 0.5), ("scores", 20, 4.0), ("scores", 16, 5.0), ("shards", 18, 3.0)]
    lines = [
        json.dumps({"stage": stage, "items": items, "seconds": seconds, "date": "2026-11-24T10:00"})
        for stage, items, seconds in rows
    ]
    before = path.read_bytes() if path.is_file() else None
    try:
        path.unlink(missing_ok=True)
        assert "There are no timings." in report(built)
        path.write_text("\n".join([*lines, '{"stage": "scores", "it']))
        speed = report(built).split("<h2>Speed")[1]
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
    assert "The bottleneck is <strong>scores</strong>: 72.0% of the 12 s" in speed
    assert re.search(r'<td>scores</td><td class="n">36</td><td class="n">9.0</td><td class="n">4</td>', speed)


def test_withdrawn_samples_are_counted_and_not_shown(built, tmp_path):
    view, settings = built
    shutil.copytree(settings.out, tmp_path / "out")
    path = tmp_path / "out" / "views" / view.name / "ledger.parquet"
    columns = read_table(path).to_pydict()
    columns["reason"] = [reason.replace("little_information", "withdrawn") for reason in columns["reason"]]
    write_table(path, columns, {"id": "string", "reason": "string", "detail": "string"})
    other = BuildSettings.of({**settings.model_dump(), "out": tmp_path / "out"})
    page = report((view, other))
    withdrawn = page.split("<h3>withdrawn</h3>")[1].split("<h3>")[0]
    assert "0 of 1." in withdrawn and "<img" not in withdrawn


def test_a_view_that_is_not_finished_has_no_report(built):
    with pytest.raises(LensError, match="no finished view absent"):
        write_report(built[1].out, "absent", built[1].filters, lambda numbered: b"")


def test_histograms_keep_both_ends_and_widen_to_their_thresholds():
    values = np.random.default_rng(1).lognormal(3, 2, 1000)
    wide = compute_histogram(values)
    assert wide.is_logarithmic and wide.counts.sum() == 1000
    far = compute_histogram([0.5, 2.0, 3.0], [Threshold(-4.0, True, "low")])
    assert not far.is_logarithmic and far.counts.sum() == 3
    assert far.position(-4.0) == 0.0 and far.position(3.0) == 1.0
    whole = compute_histogram([*range(4, 28), 4])
    assert whole.counts.tolist()[:2] == [2, 1] and whole.counts.sum() == 25
    assert set(np.diff(compute_histogram(range(5, 105)).edges)) == {3.0}
    same = compute_histogram([5.5] * 7)
    assert same.counts.sum() == 7 and 0.4 < same.position(5.5) < 0.6
    assert Threshold(2.0, True, "low").is_outside(np.array([1.9, 2.0, 2.1])).tolist() == [True, False, False]
    assert Threshold(2.0, False, "high").is_outside(np.array([1.9, 2.0, 2.1])).tolist() == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.13, 0.97), (3, 8), (1e4, 6e6), (90, 91), (1, 60)])
def test_ticks_are_few_round_and_inside(low, high):
    histogram = compute_histogram([low, high])
    found = axis_ticks(histogram)
    assert 2 <= len(found) <= 8
    assert all(histogram.edges[0] <= tick <= histogram.edges[-1] for tick in found)
    assert len({format_compact(tick) for tick in found}) == len(found)


def test_no_thumbnail_takes_the_page_above_its_bound_and_a_hidden_one_is_few_squares():
    noise = Image.fromarray(np.random.default_rng(2).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    assert len(figure([noise], ["x" * 300, "y" * 300])) < 14_000
    hidden = figure([noise], [], is_pixelated=True)
    (data,) = re.findall('base64,([^"]*)"', hidden)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), dtype=float)
    squares = shown.reshape(6, 16, 6, 16).mean(axis=(1, 3))
    assert np.abs(shown - np.kron(squares, np.ones((16, 16)))).mean() < 2


def test_numbers_are_written_for_people():
    assert [format_bytes(size) for size in (0, 999, 1000, 12_345_678, 3.2e14, 5e18)] == [
        "0 B", "999 B", "1 kB", "12.3 MB", "320 TB", "5,000 PB",
    ]  # fmt: skip
    assert [format_share(part, 10_000) for part in (0, 1, 10, 5000, 9999, 10_000)] == [
        "0.0%", "< 0.1%", "0.1%", "50.0%", "> 99.9%", "100.0%",
    ]  # fmt: skip
    assert [format_compact(value) for value in (0.35, 12, 1200, 147_456, 2.5e6, -3e4)] == [
        "0.35", "12", "1200", "147.5k", "2.5M", "-30k",
    ]  # fmt: skip
    assert escape_html("x" * 200) == "x" * 157 + "..."
