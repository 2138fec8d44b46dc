"""`lens eval`: evaluation of models, a word a benchmark.

A benchmark is one file in lens.evals and its command here. A command checks its options, prints how to repeat
the run, calls the benchmark with a progress callback, and prints a table.
"""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lens.cli.arguments import DEFAULT_MODEL, SolverName
from lens.sampling.solvers import DEFAULT_SOLVER

evaluate = typer.Typer(help="Evaluate models: score their images on a benchmark.", no_args_is_help=True)

ModelNames = Annotated[
    list[str] | None,
    typer.Option("--models", "--model", metavar="MODEL ...", help="Known names or folders (lens-nano)."),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of every model, in place of its own number.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance of every model, in place of its own scale.")]
Solver = Annotated[SolverName, typer.Option(help="ODE solver.")]
Seed = Annotated[int, typer.Option(help="First seed.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, help="Images generated at a time.")]
Lora = Annotated[Path | None, typer.Option(metavar="FILE", help="A LoRA to apply.")]
LoraWeight = Annotated[float, typer.Option(help="Weight of the LoRA.")]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Save numbers and reasons as JSON, one object a model."),
]
ContactSheet = Annotated[
    Path | None,
    typer.Option(metavar="FILE.png", help="Save all images with labels, one numbered sheet a model."),
]


class ListOptionsCommand(TyperCommand):
    """A command whose repeatable options take several values: `--models A B` is `--models A --models B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        ctx.meta["lens.command_line"] = shlex.join([*ctx.command_path.split(), *args])
        names = {name for one in self.get_params(ctx) if getattr(one, "multiple", False) for name in one.opts}
        return super().parse_args(ctx, repeat_list_options(args, names))


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


def command_line(ctx: typer.Context) -> str:
    """Return the command as it was typed, for the reader of its results."""
    return ctx.meta["lens.command_line"]


@evaluate.command(cls=ListOptionsCommand)
def nano(
    ctx: typer.Context,
    models: ModelNames = None,
    extra: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL:STEPS:GUIDANCE ...", help="Further models with steps and guidance."),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of each task.")] = 100,
    steps: Steps = None,
    guidance: Guidance = None,
    solver: Solver = DEFAULT_SOLVER,
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
    """Score nano models on their six tasks, side by side; print a table.

    Prompts are held out, and the scorer is exact. Each model uses its own steps and guidance.
    """
    from lens.cli.process import prepare_libraries

    prepare_libraries(needed={"peft"})
    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.evals import nano as nano_eval
    from lens.evals import nano_report

    found = [] if truth else nano_eval.eval_models(models or [DEFAULT_MODEL], extra or [], steps, guidance)
    options = nano_eval.NanoEvalOptions(solver, seed, batch, processes, lora, lora_weight)
    info = nano_eval.run_info(command_line(ctx), has_models=bool(found))
    for name, value in info.items():
        print(f"{name:<8} {value}")
    with ProgressBar(num_images=1) as progress:
        report = with_log_lines(progress)
        result = nano_eval.evaluate_nano(found, prompts, options, diversity, report)
    print(f"\n{nano_report.nano_table(result)}")
    if result.diversities:
        print(f"\n{nano_report.diversity_table(result)}")
    if contact_sheet:
        nano_report.save_contact_sheets(result, contact_sheet)
    if json_file:
        json_file.write_text(json.dumps(nano_eval.result_to_json(result, info, options), indent=1))
