"""`lens eval nano`: the six tasks and files of prompts, printed as a table or as JSON.

`evaluate.py` has the options; this module checks how they fit together and prints.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lens.cli.arguments import parse_size
from lens.cli.evaluate import STDOUT
from lens.cli.progress import ProgressBar, with_log_lines
from lens.errors import SettingError
from lens.evals import nano as nano_eval
from lens.evals import nano_prompts, nano_report

DEFAULT_NUM_PROMPTS = 100


class NanoCommand(NamedTuple):
    """What both kinds of evaluation take."""

    models: list[nano_report.EvalModel]
    """None of them: rendered ground truth only."""
    options: nano_eval.NanoEvalOptions
    command_line: str
    json_file: str | None
    contact_sheet: Path | None


class PromptFiles(NamedTuple):
    """Files of prompts, the number of images of each prompt, and their (width, height)."""

    lines: list[nano_prompts.PromptLine]
    num_seeds: int
    size: tuple[int, int] | None


def prompt_source(
    values: list[str] | None, *, seeds: int | None, size: str | None, diversity: int
) -> int | PromptFiles:
    """Return the number of prompts of each task, or the lines of the files of `--prompts`.

    Raises: SettingError for a mixture, for files that cannot be read, and for options of the other kind.
    """
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
    lines = nano_prompts.read_lines([Path(value) for value in values])
    return PromptFiles(lines, seeds or 1, parse_size(size) if size else None)


def evaluate_tasks(command: NanoCommand, num_prompts: int, num_diversity_images: int) -> None:
    """Score models on the six tasks and print a table."""
    models, options = command.models, command.options
    info = _start(command)
    result = _with_progress(
        lambda report: nano_eval.evaluate_nano(models, num_prompts, options, num_diversity_images, report)
    )
    tables = [nano_report.nano_table(result)]
    if result.diversities:
        tables.append(nano_report.diversity_table(result))
    if command.contact_sheet:
        nano_report.save_contact_sheets(result, command.contact_sheet)
    _finish(command, tables, nano_eval.result_to_json(result, info, options))


def evaluate_files(command: NanoCommand, files: PromptFiles) -> None:
    """Score models on files of prompts and print the share of each line and of all."""
    info = _start(command)
    runs = _with_progress(
        lambda report: nano_prompts.evaluate_prompts(command.models, *files, command.options, report)
    )
    if command.contact_sheet:
        nano_report.save_numbered_sheets([run.results for run in runs], command.contact_sheet)
    values = [nano_prompts.prompts_to_json(run, info, command.options) for run in runs]
    tables = [nano_prompts.prompts_table(run) for run in runs]
    _finish(command, tables, values if len(values) > 1 else values[0])


def _start(command: NanoCommand) -> dict[str, object]:
    """Return what a reader needs to repeat the evaluation, and print it unless stdout is for JSON."""
    info = nano_eval.run_info(command.command_line, has_models=bool(command.models))
    if command.json_file != STDOUT:
        for name, value in info.items():
            print(f"{name:<8} {value}")
    return info


def _with_progress(run: Callable[[nano_eval.OnProgress], Any]) -> Any:
    with ProgressBar(num_images=1) as progress:
        return run(with_log_lines(progress))


def _finish(command: NanoCommand, tables: list[str], values: object) -> None:
    text = json.dumps(values, indent=1)
    if command.json_file == STDOUT:
        print(text)
        return
    for table in tables:
        print(f"\n{table}")
    if command.json_file:
        Path(command.json_file).write_text(text)
