"""The page of a search for a system prompt: its lineage, its scores, the texts as differences, and pictures.

One HTML file without scripts. Knows the result and the folder of a search alone.
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from lens.core.statistics import estimate_mean
from lens.data.report.html import Bar, Cell, escape_html, figure, page, table
from lens.files import write_bytes_atomic
from lens.reasoner.search.candidates import Candidate
from lens.reasoner.search.evaluation import PromptResult
from lens.reasoner.search.final import Finalist
from lens.reasoner.search.loop import SearchResult
from lens.reasoner.search.result import cost, verdict, winners_curse

NUM_PROMPTS_SHOWN = 8
"""Prompts of the last comparison with pictures; bounds the page."""
MAX_CHARACTERS = 20_000
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 260, 44, 30
"""Of the plot, and of its margins."""
STYLE = """<style>
.lines { white-space: pre-wrap; font: .85rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.lines span { display: block; padding: 0 .4rem; } .same::before { content: "  "; }
.added { background: #3f74a833; } .added::before { content: "+ "; }
.removed { background: #b5482f2b; } .removed::before { content: "- "; }
.trio { display: grid; gap: 1rem; grid-template-columns: repeat(4, minmax(0, 1fr)); }
@media (max-width: 40rem) { .trio { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
svg .edge { stroke: var(--line); stroke-width: 1.5; fill: none; } svg .whisker { stroke: var(--bar); }
svg .best { fill: var(--fall); } svg .dropped { fill: none; stroke: var(--soft); }
</style>"""


def write_page(result: SearchResult, path: Path) -> Path:
    """Write the page of a search and return its path."""
    title = f"Search for a system prompt, seed {result.settings.seed}"
    body = [
        STYLE,
        f"<h1>{escape_html(title)}</h1>",
        f"<p>{escape_html(f'{verdict(result)} {winners_curse(result)}', 1000)}</p>",
        *_last_comparison(result),
        *_lineage(result),
        *_budget(result),
        *_texts(result),
        *_pictures(result),
    ]
    return write_bytes_atomic(path, page(title, body).encode())


def _last_comparison(result: SearchResult) -> Iterator[str]:
    first = result.finalists[0]
    yield "<h2>Last comparison</h2>"
    yield _remark(
        f"On {len(first.results)} prompts that the search did not use, with "
        f"{result.settings.final.images_per_prompt} new pictures of each. Intervals are at 95%, by prompts "
        "drawn again; those of the gains hold together. Selection - test is what the choice added by chance, "
        "and what the two splits differ in."
    )
    heads = ("candidate", "parent", "selection", "test", "gain over the start", "selection - test")
    rows: list[Sequence[Cell]] = [
        (
            name_of(one.candidate), _parent_of(one.candidate), str(one.selection), str(one.test),
            str(one.gain) if one is not first else "", str(one.gap),
        )
        for one in result.finalists
    ]  # fmt: skip
    yield table(heads, rows)


def _lineage(result: SearchResult) -> Iterator[str]:
    yield "<h2>Lineage</h2>"
    yield _remark(
        "Filled circles were drawn on the selection split: their mean score with its interval at 95% by "
        "prompts, and a line to the parent. Empty circles at the bottom ended before that. Intervals of two "
        "candidates are wider than what can be told of them, as they share prompts and seeds."
    )
    yield _plot(result)
    rows: list[Sequence[Cell]] = []
    for one in result.candidates:
        score = "" if one.selection_score is None else f"{one.selection_score:.3f}"
        rows.append(
            (name_of(one), _parent_of(one), one.status, score, one.change or one.reason, one.cost.pictures)
        )
    heads = ("candidate", "parent", "status", "score", "change, or why it ended", "pictures")
    yield table(heads, rows, numeric_columns=(3, 5))


def _plot(result: SearchResult) -> str:
    archive = {one.number: one for one in result.candidates if one.selection}
    step = (WIDTH - LEFT - 16) / max(1, len(result.candidates) - 1)

    def x(number: int) -> float:
        return LEFT + step * number

    def y(score: float) -> float:
        return 8 + (HEIGHT - BOTTOM - 16) * (1 - min(1.0, max(0.0, score)))

    parts = [
        f'<path class="a" d="M{LEFT - 6} {y(tick):.1f}H{WIDTH - 8}" stroke-dasharray="2 4"/>'
        f'<text x="{LEFT - 10}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>'
        for tick in (0.0, 0.5, 1.0)
    ]
    for one in archive.values():
        if one.parent is not None:
            above = archive[one.parent]
            ends = [(x(of.number), y(of.selection_score or 0.0)) for of in (above, one)]
            (x_0, y_0), (x_1, y_1) = ends
            parts.append(f'<path class="edge" d="M{x_0:.1f} {y_0:.1f}L{x_1:.1f} {y_1:.1f}"/>')
    best = result.winner.candidate.number
    for one in result.candidates:
        left = x(one.number)
        words = f"{name_of(one)}: {one.status}. {one.change or one.reason}"
        told = f"<title>{escape_html(words, 300)}</title>"
        if one.number not in archive:
            bottom = HEIGHT - BOTTOM + 6
            parts.append(f'<circle class="dropped" cx="{left:.1f}" cy="{bottom}" r="3">{told}</circle>')
            continue
        estimate = estimate_mean(one.scores.tolist())
        low, high = (y(end) for end in estimate.interval)
        parts.append(f'<path class="whisker" d="M{left:.1f} {low:.1f}V{high:.1f}"/>')
        kind, top = "b best" if one.number == best else "b", y(estimate.mean)
        parts.append(f'<circle class="{kind}" cx="{left:.1f}" cy="{top:.1f}" r="5">{told}</circle>')
    label = f"scores of {len(archive)} candidates by their number, with lines to their parents"
    parts.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">number of the candidate</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _budget(result: SearchResult) -> Iterator[str]:
    yield "<h2>Budget</h2>"
    yield _remark(cost(result))
    spent, budget = result.spent, result.settings.budget
    final = sum(len(row.pictures) for one in result.finalists for row in one.results)
    rows: list[Sequence[Cell]] = [
        ("pictures", spent.pictures, budget.pictures, Bar(min(1.0, spent.pictures / budget.pictures))),
        ("of them in the last comparison", final, "", Bar(min(1.0, final / budget.pictures))),
        ("tokens", spent.tokens, budget.tokens, Bar(min(1.0, spent.tokens / budget.tokens))),
        (
            "proposals", len(result.candidates) - 1, budget.proposals,
            Bar((len(result.candidates) - 1) / budget.proposals),
        ),
    ]  # fmt: skip
    yield table(("", "used", "budget", ""), rows, numeric_columns=(1, 2))


def _texts(result: SearchResult) -> Iterator[str]:
    yield "<h2>Texts</h2>"
    by_number = {one.number: one for one in result.candidates}
    shown = {one.candidate.number: one.candidate for one in result.finalists}
    for one in [*shown.values()]:  # with all parents, so that every difference can be followed to the start
        while one.parent is not None:
            one = by_number[one.parent]
            shown[one.number] = one
    for number in sorted(shown):
        one = shown[number]
        yield f"<h3>{escape_html(name_of(one).capitalize())}</h3>"
        if one.change:
            yield _remark(one.change)
        before = by_number[one.parent].text if one.parent is not None else one.text
        yield f'<div class="card lines">{"".join(difference(before, one.text))}</div>'


def difference(before: str, after: str) -> Iterator[str]:
    """Yield the lines of a text as HTML, marked where they are new, with those that are gone."""
    kinds = {"+": "added", "-": "removed", " ": "same"}
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line[0] in kinds:
            yield f'<span class="{kinds[line[0]]}">{escape_html(line[2:], MAX_CHARACTERS)}</span>'


def _pictures(result: SearchResult) -> Iterator[str]:
    yield "<h2>Pictures</h2>"
    yield _remark(
        "The first pictures of the last comparison, with the same seeds, from the prompts of each candidate. "
        "Below each: its candidate, its score, what failed, and the prompt that was drawn."
    )
    folder = result.settings.out / "pictures"
    for place, row in enumerate(result.finalists[0].results[:NUM_PROMPTS_SHOWN]):
        yield f"<h3>{escape_html(row.prompt.prompt)}</h3>"
        yield '<div class="trio">'
        for one in result.finalists:
            yield _figure(one, one.results[place], folder)
        yield "</div>"


def _figure(finalist: Finalist, row: PromptResult, folder: Path) -> str:
    first = row.pictures[0]
    lines = [f"{name_of(finalist.candidate)}: {first.score:.2g}", *first.failures, first.drawn]
    path = folder / first.file if first.file else None
    if path is None or not path.is_file():
        return figure((), lines, "no picture")
    with Image.open(path) as image:
        return figure((image,), lines)


def name_of(candidate: Candidate) -> str:
    """Return what a candidate is called."""
    return "the start" if candidate.parent is None else f"candidate {candidate.number}"


def _parent_of(candidate: Candidate) -> str:
    return "" if candidate.parent is None else str(candidate.parent)


def _remark(words: str) -> str:
    return f'<p class="soft">{escape_html(words, 1000)}</p>'
