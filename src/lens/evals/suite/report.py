"""The page of one or several runs: scores with intervals, by task, differences, and the worst prompts.

One self-contained HTML file. Runs whose prompts were rewritten stand in tables of their own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from lens.data.report.html import Cell, escape_html, figure, page, table
from lens.evals.suite.published import ROWS
from lens.evals.suite.run_folder import RunFolder
from lens.evals.suite.scoring import RunScore, case_share, compare, prompts_by_score
from lens.files import write_bytes_atomic

NUM_WORST_PROMPTS = 12
BOX_COLOUR, MIN_SHOWN_SCORE = (230, 40, 60), 0.3
NOTHING = "-"

ScoredRun = tuple[RunFolder, list[RunScore]]


def write_report(runs: Sequence[ScoredRun], path: Path) -> Path:
    """Write the page and return its path."""
    scorers = list(dict.fromkeys(score.scorer for _, scores in runs for score in scores))
    body = ["<h1>Evaluation</h1>", _introduction()]
    for scorer in scorers:
        found = [(run, score) for run, scores in runs for score in scores if score.scorer == scorer]
        body += [f"<h2>{escape_html(scorer)}</h2>", *_tables(found), *_differences(found)]
        body += _published(scorer)
        for run, score in found:
            body += _worst(run, score)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, page("Evaluation of text-to-image models", body).encode())
    return path


def _introduction() -> str:
    return (
        "<p>Intervals are at 95%, by bootstrap over prompts within the tasks of a benchmark. Scores follow "
        "the rules of the official scorers. Runs whose prompts a language model rewrote have tables of "
        "their own.</p>"
    )


def _tables(found: list[tuple[RunFolder, RunScore]]) -> Iterator[str]:
    """Yield a table for each way in which prompts were made."""
    for column in dict.fromkeys(score.settings.column for _, score in found):
        own = [score for _, score in found if score.settings.column == column]
        names = list(dict.fromkeys(name for score in own for name in score.score.parts))
        rows = [["headline", *(_headline(score) for score in own)]]
        rows += [[name, *(_number(score.score.parts.get(name)) for score in own)] for name in names]
        rows.append(["images", *(f"{score.num_images} of {score.num_planned}" for score in own)])
        yield f"<h3>{escape_html(column)}</h3>"
        yield table(("", *(_title(score) for score in own)), rows, range(1, len(own) + 1))
        for score in own:
            if score.notes:
                told = f"{_title(score)}: {'; '.join(score.notes)}."
                yield f'<p class="soft">{escape_html(told, 600)}</p>'


def _differences(found: list[tuple[RunFolder, RunScore]]) -> Iterator[str]:
    """Yield the paired difference of each run to the first one of its column."""
    rows: list[list[Cell]] = []
    for _, score in found[1:]:
        first = next(one for _, one in found if one.settings.column == score.settings.column)
        interval = None if first is score else compare(score, first)
        if interval is not None:
            names = f"{_title(score)} less {_title(first)}"
            value = f"{interval.value:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
            rows.append([names, value, interval.num_prompts])
    if rows:
        yield "<h3>Differences on the same prompts</h3>"
        yield table(("runs", "difference", "prompts"), rows, (1, 2))


def _published(scorer: str) -> Iterator[str]:
    rows = ROWS.get(scorer, [])
    if rows:
        yield "<h3>Published rows, for orientation</h3>"
        cells: list[list[Cell]] = []
        for row in rows:
            parts = ", ".join(f"{name} {value:.3f}" for name, value in row.parts.items())
            cells.append([row.model, row.prompts, f"{row.headline:.3f}", parts])
        yield table(("model", "prompts", "headline", "parts"), cells, (2,))


def _worst(run: RunFolder, score: RunScore) -> Iterator[str]:
    """Yield the worst prompts with their images and what the observer saw."""
    yield f"<h3>{escape_html(f'The worst prompts of {_title(score)}')}</h3>"
    for share, own in prompts_by_score(score)[:NUM_WORST_PROMPTS]:
        prompt = next((one.prompt for one in run.prompts() if one.key == own[0][0]["key"]), "")
        yield f'<div class="card"><h3>{escape_html(prompt, 400)}</h3><p>{share:.2f} of 1</p>'
        yield '<div class="sheet">'
        for line, case in own:
            image = _annotated(run.images / line["image"], line)
            lines = [f"{case_share(case):.2f}, seed image {line['repeat']}", _seen(line)]
            yield figure([image] if image else [], lines, "no image")
        yield "</div></div>"


def _annotated(path: Path, line: dict[str, Any]) -> Image.Image | None:
    """Return an image with the boxes that were seen in it."""
    try:
        image = Image.open(path).convert("RGB")
    except OSError:
        return None
    pen = ImageDraw.Draw(image)
    for found in line.get("detections", ()):
        if found["score"] > MIN_SHOWN_SCORE:
            pen.rectangle(found["box"], outline=BOX_COLOUR, width=max(1, image.width // 128))
    return image


def _seen(line: dict[str, Any]) -> str:
    if "detections" in line:
        shown = [one for one in line["detections"] if one["score"] > MIN_SHOWN_SCORE]
        return ", ".join(f"{one['class']} {one['score']:.2f}" for one in shown) or "nothing seen"
    read = line.get("ocr")
    return f"read: {read if isinstance(read, str) else ' / '.join(read or [])}"


def _title(score: RunScore) -> str:
    settings = score.settings
    return f"{settings.model}, {settings.steps} steps, guidance {settings.guidance:g}"


def _headline(score: RunScore) -> str:
    value, interval = _number(score.score.headline), score.interval
    return value if interval is None else f"{value} ({interval.low:.4f} to {interval.high:.4f})"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
