"""`lens eval`: evaluation of models, a word a benchmark.

A benchmark is one file in lens.evals and its command here. A command checks its options, prints how to repeat
the run, calls the benchmark with a progress callback, and prints a table.
"""

import json
import logging
import os.path
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from lens.cli.arguments import DEFAULT_MODEL, AsJson, CacheName, SolverName, parse_size
from lens.cli.evaluation import benchmark_runs
from lens.core.step_caches import NO_CACHE, cache_warning, parse_cache
from lens.errors import SettingError
from lens.files import check_writable, write_bytes_atomic
from lens.sampling.solvers import DEFAULT_SOLVER

if TYPE_CHECKING:
    from lens.evals.nano import NanoEvalOptions
    from lens.evals.nano_prompts import PromptLine
    from lens.evals.nano_report import EvalModel

logger = logging.getLogger(__name__)

evaluate = typer.Typer(help="Evaluate models: score their images on a benchmark.", no_args_is_help=True)

ModelNames = Annotated[
    list[str] | None,
    typer.Option("--models", "--model", metavar="MODEL ...", help="Known names or folders (lens-nano)."),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of every model, in place of its own number.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance of every model, in place of its own scale.")]
Solver = Annotated[SolverName, typer.Option(help="ODE solver.")]
Cache = Annotated[CacheName, typer.Option(help="Cache of denoising steps.")]
Seed = Annotated[int, typer.Option(help="First seed.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, help="Images generated at a time.")]
Lora = Annotated[Path | None, typer.Option(metavar="FILE", help="A LoRA to apply.")]
LoraWeight = Annotated[float, typer.Option(help="Weight of the LoRA.")]
JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="[FILE]",
        help="Save numbers and reasons as JSON, one object a model; without FILE, print that alone.",
    ),
]  # fmt: skip
ContactSheet = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Save all images with labels, one numbered sheet a model."),
]


SHEET_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
STDOUT = "-"
"""A file that stands for stdout."""
DEFAULT_NUM_PROMPTS = 100
"""Prompts of each task."""


class ListOptionsCommand(TyperCommand):
    """A command whose repeatable options take several values: `--models A B` is `--models A --models B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        ctx.meta["lens.command_line"] = shlex.join([*ctx.command_path.split(), *args])
        names = {name for one in self.get_params(ctx) if getattr(one, "multiple", False) for name in one.opts}
        return super().parse_args(ctx, complete_json_option(repeat_list_options(args, names)))


def repeat_list_options(arguments: list[str], names: set[str]) -> list[str]:
    """Return arguments in which each further value of the named options repeats the name of its option."""
    repeated: list[str] = []
    option, has_value = None, False
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            option, has_value = name if name in names else None, bool(equals)
        elif option:
            repeated += [option] if has_value else []
            has_value = True
        repeated.append(argument)
    return repeated


def complete_json_option(arguments: list[str]) -> list[str]:
    """Return arguments in which `--json` without a file has STDOUT as its value."""
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        completed.append(argument)
        if argument == "--json" and following.startswith("-"):
            completed.append(STDOUT)
    return completed


def command_line(ctx: typer.Context) -> str:
    """Return the command as it was typed, for the reader of its results."""
    return ctx.meta["lens.command_line"]


evaluate.command("list")(benchmark_runs.list_benchmarks)
evaluate.command("fetch")(benchmark_runs.fetch)
evaluate.command("generate")(benchmark_runs.generate)
evaluate.command("observe")(benchmark_runs.observe)
evaluate.command("run")(benchmark_runs.run)
evaluate.command("report")(benchmark_runs.report)


@evaluate.command()
def score(
    benchmark: Annotated[str, typer.Argument(help="Such as geneval; a wrong name lists them all.")],
    observations: Annotated[Path, typer.Argument(help="What models saw, one JSON object a line.")],
    as_json: AsJson = False,
) -> None:
    """Score what models saw in images, by the rules of the official scorer. Loads no model."""
    from lens.evals.scores.registry import score_file

    found = score_file(benchmark, observations)
    if as_json:
        print(json.dumps(found.to_json(benchmark), ensure_ascii=False))
        return
    print(f"{benchmark}: {len(found.cases)} lines")
    for name, value in [("headline", found.headline), *found.parts.items()]:
        print(f"{name:<40} {'nothing counts' if value is None else f'{value:.4f}'}")


@evaluate.command(cls=ListOptionsCommand)
def nano(
    ctx: typer.Context,
    models: ModelNames = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL:STEPS:GUIDANCE ...", help="Further models with steps and guidance."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N | FILE.jsonl ...",
            help="Prompts of each task, or files of prompts with what their images must show.",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Images of each prompt of a file.")] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of images of a file, in place of the model's default."),
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    solver: Solver = DEFAULT_SOLVER,
    cache: Cache = NO_CACHE,
    seed: Seed = 0,
    batch: BatchSize = 10,
    lora: Lora = None,
    lora_weight: LoraWeight = 1.0,
    diversity: Annotated[
        int, typer.Option(min=0, metavar="K", help="Measure how far apart K images of one prompt are.")
    ] = 0,
    processes: Annotated[int, typer.Option(min=0, help="Processes that score; 0 scores in this one.")] = 0,
    truth: Annotated[bool, typer.Option("--truth", help="Score rendered ground truth only.")] = False,
    json_file: JsonFile = None,
    contact_sheet: ContactSheet = None,
) -> None:
    """Score nano models on their six tasks, or on files of prompts; print a table.

    Prompts of the tasks are held out, and the scorer is exact. Each model uses its own steps and guidance.
    """
    from lens.cli.process import prepare_libraries
    from lens.evals import nano as nano_eval

    _check_files(json_file, contact_sheet, lora)
    source = prompt_source(prompts, seeds=seeds, size=size, diversity=diversity)
    options = nano_eval.NanoEvalOptions(
        solver, seed, batch, processes, lora, lora_weight, parse_cache(cache, "--cache")
    )
    found = [] if truth else nano_eval.eval_models(models or [DEFAULT_MODEL], extra or [], steps, guidance)
    prepare_libraries(needed={"peft"})  # once all that was typed is known to be right
    for steps in sorted({model.steps for model in found}):
        if warning := cache_warning(options.cache, steps, "--cache"):
            logger.warning(warning)
    info = nano_eval.run_info(command_line(ctx), has_models=bool(found))
    if json_file != STDOUT:
        for name, value in info.items():
            print(f"{name:<8} {value}")
    if isinstance(source, int):
        tables, values = _evaluate_tasks(found, options, info, contact_sheet, source, diversity)
    else:
        tables, values = _evaluate_files(found, options, info, contact_sheet, source)
    text = json.dumps(values, indent=1)
    if json_file == STDOUT:
        print(text)
        return
    for table in tables:
        print(f"\n{table}")
    if json_file:
        write_bytes_atomic(Path(json_file), f"{text}\n".encode())


def _check_files(json_file: str | None, contact_sheet: Path | None, lora: Path | None) -> None:
    """Raise a SettingError for files that cannot be read or written, before anything is drawn."""
    if lora is not None and not os.path.exists(lora):
        raise SettingError("--lora", str(lora), "a LoRA file that exists", "Check the path.")
    if json_file not in (None, STDOUT):
        check_writable(Path(json_file).parent, "--json")
        if os.path.isdir(json_file):
            raise SettingError("--json", json_file, "the name of a file")
    if contact_sheet is not None:
        if contact_sheet.suffix.lower() not in SHEET_SUFFIXES:
            needs = f"a name that ends in {' or '.join(SHEET_SUFFIXES)}"
            raise SettingError("--contact-sheet", str(contact_sheet), needs)
        check_writable(contact_sheet.parent, "--contact-sheet")


class PromptFiles(NamedTuple):
    """Lines of files of prompts, the number of images of each, and their (width, height)."""

    lines: list["PromptLine"]
    num_seeds: int
    size: tuple[int, int] | None


def prompt_source(
    values: list[str] | None, *, seeds: int | None, size: str | None, diversity: int
) -> int | PromptFiles:
    """Return the number of prompts of each task, or the lines of the files of `--prompts`.

    Raises: SettingError for a mixture, for files that cannot be read, and for options of the other kind.
    """
    from lens.evals.nano_prompts import read_lines

    values = values or [str(DEFAULT_NUM_PROMPTS)]
    if any(value.lstrip("-").isdigit() for value in values):
        if len(values) > 1 or int(values[0]) < 1:
            raise SettingError("--prompts", " ".join(values), "one number from 1, or files of prompts")
        for name, value in (("--seeds", seeds), ("--size", size)):
            if value is not None:
                raise SettingError(name, value, "files of prompts (--prompts FILE.jsonl)")
        return int(values[0])
    if diversity:
        raise SettingError("--diversity", diversity, "the six tasks (--prompts N)")
    lines = read_lines([Path(value) for value in values])
    return PromptFiles(lines, seeds or 1, parse_size(size) if size else None)


def _evaluate_tasks(
    models: list["EvalModel"],
    options: "NanoEvalOptions",
    info: dict[str, object],
    contact_sheet: Path | None,
    num_prompts: int,
    num_diversity_images: int,
) -> tuple[list[str], object]:
    """Return tables and JSON values of models on the six tasks."""
    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.evals import nano, nano_report

    with ProgressBar(num_images=1) as progress:
        report = with_log_lines(progress)
        result = nano.evaluate_nano(models, num_prompts, options, num_diversity_images, report)
    tables = [nano_report.nano_table(result)]
    if result.diversities:
        tables.append(nano_report.diversity_table(result))
    if contact_sheet:
        contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        nano_report.save_contact_sheets(result, contact_sheet)
    return tables, nano.result_to_json(result, info, options)


def _evaluate_files(
    models: list["EvalModel"],
    options: "NanoEvalOptions",
    info: dict[str, object],
    contact_sheet: Path | None,
    files: PromptFiles,
) -> tuple[list[str], object]:
    """Return tables and JSON values of models on files of prompts; values of one model are no list."""
    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.evals import nano_prompts, nano_report

    with ProgressBar(num_images=1) as progress:
        report = with_log_lines(progress)
        runs = nano_prompts.evaluate_prompts(models, *files, options, report)
    if contact_sheet:
        contact_sheet.parent.mkdir(parents=True, exist_ok=True)
        nano_report.save_numbered_sheets([run.results for run in runs], contact_sheet)
    values = [nano_prompts.prompts_to_json(run, info, options) for run in runs]
    return [nano_prompts.prompts_table(run) for run in runs], values if len(values) > 1 else values[0]
