"""What pictures by nano models scored: counts with intervals, one table of several models, JSON, sheets.

Intervals are Wilson's at 95%; a mean's is of all pictures together, rather too wide than too narrow.
"""

import math
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lens.nano.scoring.scorer import SceneScore
from lens.nano.tasks import TASKS, TaskPrompt

SHEET_CELL_PX = (200, 236)
SHEET_COLUMNS = 9
REFERENCE = "lens-nano"
"""The model whose denoiser the others' times are held against; the first one where it is not there."""


class EvalItem(NamedTuple):
    """One picture to make: what it must show, in which shape, from which seed."""

    task: str
    prompt: TaskPrompt
    ratio: str
    seed: int


class EvalModel(NamedTuple):
    """A model and how it draws."""

    model: str
    steps: int
    guidance: float
    hash: str
    """Of the weights, as pictures carry it."""

    @property
    def name(self) -> str:
        return Path(self.model).name

    @property
    def sampling_label(self) -> str:
        return f"{self.steps} steps, guidance {self.guidance:g}"


class ImageResult(NamedTuple):
    """One picture, judged, with its share of the time of its batch."""

    item: EvalItem
    image: NDArray[np.uint8]
    score: SceneScore
    seconds: float = 0.0
    denoiser_seconds: float = 0.0


class Tally(NamedTuple):
    """Pictures that passed, of how many."""

    passed: int
    total: int

    @property
    def fraction(self) -> float:
        return self.passed / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's interval at 95%."""
        z, n, p = 1.959964, self.total, self.fraction
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def tally_by_task(results: list[ImageResult]) -> dict[str, Tally]:
    """Count by task, in the tasks' order."""
    passed: defaultdict[str, list[bool]] = defaultdict(list)
    for result in results:
        passed[result.item.task].append(result.score.passed)
    return {task: Tally(sum(passed[task]), len(passed[task])) for task in TASKS if passed[task]}


def total_tally(tallies: dict[str, Tally]) -> Tally:
    """Count over all tasks; they have as many prompts each, so its fraction is their mean."""
    return Tally(*(sum(counts) for counts in zip(*tallies.values(), strict=True)))


def mean_seconds(results: list[ImageResult]) -> dict[str, float]:
    """Return the seconds that a picture took, whole and in the denoiser alone."""
    count = len(results)
    return {
        "seconds_a_picture": sum(result.seconds for result in results) / count,
        "denoiser_seconds_a_picture": sum(result.denoiser_seconds for result in results) / count,
    }


def print_table(models: list[EvalModel], truth: list[ImageResult], scored: list[list[ImageResult]]) -> None:
    """Print the table: a row a task, the mean and the times below, a column a model after the truth."""
    rows = ["", "", "hash", *tally_by_task(truth), "mean"]
    columns = [["", "rendered truth", "", *table_cells(truth)]]
    for one, results in zip(models, scored, strict=True):
        spent = (f"{seconds:.4f}" for seconds in mean_seconds(results).values())
        columns.append([one.name, one.sampling_label, one.hash[:10], *table_cells(results), *spent])
    if scored:
        rows += ["s a picture", "s in denoiser", "denoiser speed"]
        columns[0] += [""] * 3
        names = [one.name for one in models]
        reference = names.index(REFERENCE) if REFERENCE in names else 0
        in_denoiser = [mean_seconds(results)["denoiser_seconds_a_picture"] for results in scored]
        for column, seconds in zip(columns[1:], in_denoiser, strict=True):
            column.append(f"{in_denoiser[reference] / seconds:.2f}x")
    widths = [max(map(len, column)) + 2 for column in columns]
    print()
    for index, row in enumerate(rows):
        line = (f"{column[index]:>{width}}" for column, width in zip(columns, widths, strict=True))
        print(f"{row:<14}{''.join(line)}".rstrip())
    print(f"\nOf {len(truth) // len(TASKS)} pictures a task, with 95% intervals.", end=" ")
    print(f"Speed is against {names[reference]}, {models[reference].sampling_label}." if scored else "")


def table_cells(results: list[ImageResult]) -> list[str]:
    tallies = tally_by_task(results)
    return [format_tally(tally) for tally in (*tallies.values(), total_tally(tallies))]


def format_tally(tally: Tally) -> str:
    low, high = tally.interval
    return f"{tally.fraction:.3f} ({low:.2f}-{high:.2f})"


def tables_to_json(tables: dict[str, dict[str, Tally]]) -> dict[str, dict[str, dict[str, object]]]:
    """Return tables as JSON, each with its mean."""
    return {
        name: {
            task: {**tally._asdict(), "fraction": tally.fraction, "interval": tally.interval}
            for task, tally in (tallies | {"mean": total_tally(tallies)}).items()
        }
        for name, tallies in tables.items()
    }


def results_to_json(results: list[ImageResult]) -> list[dict[str, object]]:
    return [
        {"task": ask.task, "prompt": ask.prompt.prompt, "ratio": ask.ratio, "seed": ask.seed,
         "passed": verdict.passed, "reasons": verdict.reasons}
        for ask, _, verdict, *_ in results
    ]  # fmt: skip


def save_contact_sheet(results: list[ImageResult], path: Path) -> None:
    """Save all pictures on one sheet, prompts below them, framed green when they pass and red when not."""
    order = {task: place for place, task in enumerate(TASKS)}
    results = sorted(results, key=lambda result: (order[result.item.task], result.item.seed))
    width, height = SHEET_CELL_PX
    num_rows = math.ceil(len(results) / SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, num_rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (ask, picture, verdict, *_) in enumerate(results):
        row, column = divmod(index, SHEET_COLUMNS)
        left, top = column * width + 6, row * height + 6
        image = Image.fromarray(picture)
        frame = (left - 3, top - 3, left + image.width + 2, top + image.height + 2)
        pen.rectangle(frame, fill="green" if verdict.passed else "red")
        sheet.paste(image, (left, top))
        words = "; ".join((f"{ask.task}: {ask.prompt.prompt}", *verdict.reasons))
        pen.multiline_text(
            (left, top + image.height + 4), "\n".join(textwrap.wrap(words, 32)), fill="black", spacing=1
        )
    sheet.save(path)
