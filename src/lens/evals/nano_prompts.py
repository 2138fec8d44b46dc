"""Evaluation of nano models on files of prompts with what their images must show.

Every line is drawn with the same seeds, so that `lens generate` with a prompt and a seed repeats an image.
Knows nothing of where prompts come from. Intervals are Wilson's at 95%, of all images; those of several seeds
of one prompt are too narrow.
"""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lens.errors import LensError, SettingError
from lens.evals.nano import (
    BASE,
    ModuleTimer,
    NanoEvalOptions,
    OnProgress,
    build_pipeline,
    draw_items,
    report_progress,
    score_batch,
)
from lens.evals.nano_report import EvalItem, EvalModel, ImageResult, Tally, format_tally, mean_seconds
from lens.nano.evaluation_prompts import EvalPrompt, read_prompts
from lens.nano.prompt_scenes import scene_of
from lens.nano.tasks import TaskPrompt
from lens.nano.world.scenes import draw_scene

GROUP_FIELDS = ("kind", "language")
"""Fields of a line by which images are also counted."""
TRUTH = "rendered truth"
TRUTH_BATCH_SIZE = 64
_NUM_REASONS, _PROMPT_LENGTH = 3, 96
"""Reasons of a line and characters of its prompt that a table shows."""


class PromptLine(NamedTuple):
    """A prompt of a file."""

    file: str
    prompt: EvalPrompt


class PromptsEval(NamedTuple):
    """The images of all lines by one model, or rendered ones; a line's images follow one another."""

    model: EvalModel | None
    lines: list[PromptLine]
    num_seeds: int
    results: list[ImageResult]

    @property
    def name(self) -> str:
        """Return the name of the model."""
        return self.model.name if self.model else TRUTH

    def of_line(self, number: int) -> list[ImageResult]:
        """Return the images of a line."""
        return self.results[number * self.num_seeds : (number + 1) * self.num_seeds]


def read_lines(paths: Sequence[Path]) -> list[PromptLine]:
    """Return the lines of all files, in order.

    Raises: SettingError for a file or a line that cannot be used; MissingExtraError if a line has a text and
    its reader is not installed.
    """
    lines = [PromptLine(path.name, prompt) for path in paths for prompt in read_prompts(path)]
    if any(line.prompt.spec.text for line in lines):
        from lens.nano.scoring.sign_reader import check_reader

        check_reader()
    return lines


def evaluate_prompts(
    models: Sequence[EvalModel],
    lines: list[PromptLine],
    num_seeds: int,
    size: tuple[int, int] | None,
    options: NanoEvalOptions,
    on_progress: OnProgress = lambda *_: None,
) -> list[PromptsEval]:
    """Score the images of each model; without models, rendered scenes. `size` is (width, height)."""
    items = [
        EvalItem(line.file, TaskPrompt(line.prompt.prompt, line.prompt.spec), "", options.seed + index)
        for line in lines
        for index in range(num_seeds)
    ]
    runs: list[tuple[EvalModel | None, Iterator[ImageResult]]]
    if models:
        runs = [(model, _drawn(items, model, size, options)) for model in models]
    else:
        runs = [(None, _rendered(items, size, options.num_processes))]
    found = []
    for model, results in runs:
        label = f"{model.name}, {model.sampling_label}" if model else TRUTH
        scored = list(report_progress(label, results, len(items), on_progress))
        found.append(PromptsEval(model, lines, num_seeds, scored))
    return found


def groups_of(run: PromptsEval) -> dict[str, dict[str, Tally]]:
    """Count images by file, where there are several, and by the fields that lines have."""
    has_files = len({line.file for line in run.lines}) > 1
    passed: defaultdict[str, defaultdict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for number, line in enumerate(run.lines):
        names = {"file": line.file} if has_files else {}
        names |= {field: line.prompt.fields[field] for field in GROUP_FIELDS if line.prompt.fields.get(field)}
        for field, name in names.items():
            passed[field][str(name)] += [one.score.passed for one in run.of_line(number)]
    return {
        field: {name: Tally(sum(values), len(values)) for name, values in groups.items()}
        for field, groups in passed.items()
    }


def total_of(run: PromptsEval) -> Tally:
    """Count all images."""
    return Tally(sum(result.score.passed for result in run.results), len(run.results))


def prompts_table(run: PromptsEval) -> str:
    """Return a text table: the lines with their reasons, then groups and all."""
    label = f", {run.model.sampling_label}, hash {run.model.hash[:10]}" if run.model else ""
    rows = [f"{run.name}{label}", ""]
    for number, line in enumerate(run.lines):
        results = run.of_line(number)
        num_passed = sum(result.score.passed for result in results)
        prompt = textwrap.shorten(line.prompt.prompt, _PROMPT_LENGTH, placeholder=" ...")
        rows.append(f"{num_passed}/{len(results)}  {prompt}")
        for reason, count in _reason_counts(results).most_common(_NUM_REASONS):
            rows.append(f"     {f'{count} x: ' if run.num_seeds > 1 else ''}{reason}")
    rows.append("")
    tallies = {
        f"{field} {name}": tally for field, names in groups_of(run).items() for name, tally in names.items()
    }
    tallies["all"] = total_of(run)
    width = max(map(len, tallies)) + 2
    for name, tally in tallies.items():
        rows.append(f"{name:<{width}}{tally.passed:>5}/{tally.total:<5} {format_tally(tally)}")
    return "\n".join(rows)


def prompts_to_json(run: PromptsEval, info: dict[str, object], options: NanoEvalOptions) -> dict[str, object]:
    """Return the share of images that show what they must, in all, by line and by group."""
    total = total_of(run)
    model = run.model
    about = {"model": run.name, "share": total.fraction, "interval": total.interval}
    counts = {"passed": total.passed, "of": total.total, "seeds": run.num_seeds}
    sampling: dict[str, object] = {"seed": options.seed}
    if model:
        sampling |= {"hash": model.hash, "steps": model.steps, "guidance": model.guidance}
        sampling |= {"solver": options.solver} | mean_seconds(run.results)
    groups = {
        field: {name: _tally_to_json(tally) for name, tally in names.items()}
        for field, names in groups_of(run).items()
    }
    lines = [_line_to_json(line, run.of_line(number)) for number, line in enumerate(run.lines)]
    return about | counts | sampling | info | {"groups": groups, "lines": lines}


def _tally_to_json(tally: Tally) -> dict[str, object]:
    return {"share": tally.fraction, "interval": tally.interval, "passed": tally.passed, "of": tally.total}


def _line_to_json(line: PromptLine, results: list[ImageResult]) -> dict[str, object]:
    fields = {field: line.prompt.fields[field] for field in GROUP_FIELDS if field in line.prompt.fields}
    num_passed = sum(result.score.passed for result in results)
    return {
        "prompt": line.prompt.prompt, "file": line.file, **fields, "share": num_passed / len(results),
        "passed": num_passed, "of": len(results), "reasons": dict(_reason_counts(results)),
        "images": [
            {"seed": result.item.seed, "passed": result.score.passed, "reasons": result.score.reasons}
            for result in results
        ],
    }  # fmt: skip


def _reason_counts(results: list[ImageResult]) -> Counter[str]:
    return Counter(reason for result in results for reason in result.score.reasons)


def _rendered(
    items: list[EvalItem], size: tuple[int, int] | None, num_processes: int
) -> Iterator[ImageResult]:
    """Yield the score of a scene that shows what each prompt asks for."""
    width, height = size or (BASE, BASE)
    for start in range(0, len(items), TRUTH_BATCH_SIZE):
        batch = items[start : start + TRUTH_BATCH_SIZE]
        images = []
        for number, item in enumerate(batch, start):
            rng = np.random.default_rng([item.seed, number])
            try:
                scene = scene_of(item.prompt.spec, rng, height, width)
            except LensError as error:
                raise SettingError("--truth", item.prompt.prompt, f"a scene that fits: {error}") from error
            images.append(np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8))
        yield from score_batch(batch, images, num_processes)


def _drawn(
    items: list[EvalItem], model: EvalModel, size: tuple[int, int] | None, options: NanoEvalOptions
) -> Iterator[ImageResult]:
    """Yield the score of the model's image for each prompt and seed; without a size, in the model's own."""
    pipeline = build_pipeline(model, options)
    width, height = size or (None, None)
    yield from draw_items(pipeline, ModuleTimer(pipeline.transformer), items, model, options, height, width)
