"""Results of a nano evaluation: counts by task with intervals, a text table, JSON and contact sheets.

Intervals are Wilson's at 95%. The interval of a mean is that of all images together, so it is rather too wide
than too narrow. Knows nothing of models or how images were generated.
"""

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from lens.core.statistics import wilson_interval
from lens.nano.scoring.scorer import ImageArray, SceneScore
from lens.nano.tasks import TASKS, TaskPrompt

SHEET_CELL_PX = (200, 236)
SHEET_MARGIN_PX = (12, 60)
"""Smallest room beside and below an image on a sheet."""
SHEET_COLUMNS = 9
REFERENCE_MODEL = "lens-nano"
"""The model to whose denoiser the others' times are compared; the first model where it is absent."""


class EvalItem(NamedTuple):
    """One image to generate: what it must show, its aspect ratio and its seed."""

    task: str
    prompt: TaskPrompt
    ratio: str
    seed: int


class EvalModel(NamedTuple):
    """A model with its number of steps and its guidance scale."""

    model: str
    steps: int
    guidance: float
    hash: str
    """Of the weights, as images record it."""

    @property
    def name(self) -> str:
        return Path(self.model).name

    @property
    def sampling_label(self) -> str:
        return f"{self.steps} steps, guidance {self.guidance:g}"


class ImageResult(NamedTuple):
    """One scored image, with its share of the time of its batch."""

    item: EvalItem
    image: ImageArray
    score: SceneScore
    seconds: float = 0.0
    denoiser_seconds: float = 0.0


class NanoEvalResult(NamedTuple):
    """Everything that an evaluation measured."""

    models: list[EvalModel]
    truth: list[ImageResult]
    """Scores of rendered ground truth."""
    scored: list[list[ImageResult]]
    """One list a model."""
    diversities: list[float]
    """One a model; empty where diversity was not measured."""
    num_diversity_images: int = 0
    """Images of each prompt that diversity is measured on."""
    num_diversity_prompts: int = 0


class Tally(NamedTuple):
    """How many images passed, of how many."""

    passed: int
    total: int

    @property
    def fraction(self) -> float:
        return self.passed / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's interval at 95%."""
        return wilson_interval(self.passed, self.total)


def tally_by_task(results: list[ImageResult]) -> dict[str, Tally]:
    """Count by task, in the order of the tasks."""
    passed: defaultdict[str, list[bool]] = defaultdict(list)
    for result in results:
        passed[result.item.task].append(result.score.passed)
    return {task: Tally(sum(passed[task]), len(passed[task])) for task in TASKS if passed[task]}


def total_tally(tallies: dict[str, Tally]) -> Tally:
    """Count over all tasks. Tasks have equally many prompts, so the fraction is the mean of theirs."""
    return Tally(*(sum(counts) for counts in zip(*tallies.values(), strict=True)))


def mean_seconds(results: list[ImageResult]) -> dict[str, float]:
    """Return the mean seconds of an image: in total, and in the denoiser alone."""
    count = len(results)
    return {
        "seconds_a_picture": sum(result.seconds for result in results) / count,
        "denoiser_seconds_a_picture": sum(result.denoiser_seconds for result in results) / count,
    }


def nano_table(result: NanoEvalResult) -> str:
    """Return a text table: a row a task, then the mean and the times; a column a model after the truth."""
    models, truth, scored = result.models, result.truth, result.scored
    rows = ["", "", "hash", *tally_by_task(truth), "mean"]
    columns = [["", "rendered truth", "", *table_cells(truth)]]
    for model, results in zip(models, scored, strict=True):
        times = (f"{seconds:.4f}" for seconds in mean_seconds(results).values())
        columns.append([model.name, model.sampling_label, model.hash[:10], *table_cells(results), *times])
    note = f"Of {len(truth) // len(TASKS)} images per task, with 95% intervals."
    if scored:
        rows += ["s per image", "s in denoiser", "denoiser speed"]
        columns[0] += [""] * 3
        names = [model.name for model in models]
        reference = names.index(REFERENCE_MODEL) if REFERENCE_MODEL in names else 0
        in_denoiser = [mean_seconds(results)["denoiser_seconds_a_picture"] for results in scored]
        for column, seconds in zip(columns[1:], in_denoiser, strict=True):
            column.append(f"{in_denoiser[reference] / seconds:.2f}x")
        note += f" Speed is against {names[reference]}, {models[reference].sampling_label}."
    return f"{align_columns(rows, columns)}\n\n{note}"


def align_columns(rows: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    """Return the lines of a text table: names of rows on the left, columns aligned to the right."""
    widths = [max(map(len, column)) + 2 for column in columns]
    lines = []
    for index, row in enumerate(rows):
        cells = (f"{column[index]:>{width}}" for column, width in zip(columns, widths, strict=True))
        lines.append(f"{row:<14}{''.join(cells)}".rstrip())
    return "\n".join(lines)


def table_cells(results: list[ImageResult]) -> list[str]:
    tallies = tally_by_task(results)
    return [format_tally(tally) for tally in (*tallies.values(), total_tally(tallies))]


def format_tally(tally: Tally) -> str:
    low, high = tally.interval
    return f"{tally.fraction:.3f} ({low:.2f}-{high:.2f})"


def diversity_table(result: NanoEvalResult) -> str:
    """Return the mean distance between images of one prompt, a line a model, relative to the first model."""
    count, num_prompts = result.num_diversity_images, result.num_diversity_prompts
    heading = f"Mean distance of {count} images of one prompt, {num_prompts} prompts"
    lines = [f"{heading}, relative to the first model:"]
    for model, diversity in zip(result.models, result.diversities, strict=True):
        share = diversity / result.diversities[0]
        lines.append(f"{model.name}, {model.sampling_label}: {diversity:.3f}, {share:.0%}")
    return "\n".join(lines)


def tables_to_json(tables: dict[str, dict[str, Tally]]) -> dict[str, dict[str, dict[str, object]]]:
    """Return tables as JSON values, each with its mean."""
    return {
        name: {
            task: {**tally._asdict(), "fraction": tally.fraction, "interval": tally.interval}
            for task, tally in (tallies | {"mean": total_tally(tallies)}).items()
        }
        for name, tallies in tables.items()
    }


def images_to_json(results: list[ImageResult]) -> list[dict[str, object]]:
    """Return the items of images with their scores as JSON values."""
    return [
        {"task": item.task, "prompt": item.prompt.prompt, "ratio": item.ratio, "seed": item.seed,
         "passed": score.passed, "reasons": score.reasons}
        for item, _, score, *_ in results
    ]  # fmt: skip


def save_contact_sheets(result: NanoEvalResult, path: Path) -> None:
    """Save the images of each model on a sheet of its own; without models, those of the ground truth."""
    save_numbered_sheets(result.scored or [result.truth], path)


def save_numbered_sheets(sheets: Sequence[list[ImageResult]], path: Path) -> None:
    """Save a contact sheet for each list of images; several have numbers in their names."""
    for number, results in enumerate(sheets, 1):
        numbered = path.with_stem(f"{path.stem}_{number}") if len(sheets) > 1 else path
        save_contact_sheet(results, numbered)


def save_contact_sheet(results: list[ImageResult], path: Path) -> None:
    """Save all images on one sheet with their prompts below, framed green for a pass and red for a fail."""
    order = {task: place for place, task in enumerate(TASKS)}
    if all(result.item.task in order for result in results):
        results = sorted(results, key=lambda result: (order[result.item.task], result.item.seed))
    largest = [max(result.image.shape[axis] for result in results) for axis in (1, 0)]
    width, height = (
        max(cell_px, side_px + margin_px)
        for cell_px, side_px, margin_px in zip(SHEET_CELL_PX, largest, SHEET_MARGIN_PX, strict=True)
    )
    num_rows = math.ceil(len(results) / SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, num_rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (item, pixels, score, *_) in enumerate(results):
        row, column = divmod(index, SHEET_COLUMNS)
        left, top = column * width + 6, row * height + 6
        image = Image.fromarray(pixels)
        frame = (left - 3, top - 3, left + image.width + 2, top + image.height + 2)
        pen.rectangle(frame, fill="green" if score.passed else "red")
        sheet.paste(image, (left, top))
        words = "; ".join((f"{item.task}: {item.prompt.prompt}", *score.reasons))
        pen.multiline_text(
            (left, top + image.height + 4), "\n".join(textwrap.wrap(words, 32)), fill="black", spacing=1
        )
    sheet.save(path)
