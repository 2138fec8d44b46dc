"""`lens train`: train by a recipe, estimate its cost, or plot the metrics of a run."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lens.cli.arguments import AsJson, Overrides, Recipe
from lens.errors import MissingExtraError, SettingError

logger = logging.getLogger(__name__)


class _DefaultRunGroup(TyperGroup):
    """A command group with a default command: `lens train RECIPE` means `lens train run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


train = typer.Typer(
    cls=_DefaultRunGroup, no_args_is_help=True,
    help="Train by a recipe (lens train RECIPE), estimate the cost of a recipe (lens train plan RECIPE), or "
    "plot the metrics of a run (lens train plot RUN).",
)  # fmt: skip


@train.command()
def run(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train by a recipe and print the folder of the run.

    A run stops cleanly on SIGTERM. The same command resumes it.
    """
    from lens.cli.process import prepare_libraries
    from lens.train.run import STAGES, load_settings, train_from_settings

    settings = load_settings(recipe, overrides)  # refuses a wrong recipe before the libraries are loaded
    try:
        logger.info("%s: stage %s; loading PyTorch and diffusers", settings.out, settings.stage)
        prepare_libraries(needed={"peft"})
        folder = train_from_settings(settings)
    except (KeyboardInterrupt, SystemExit):
        # Later, a run stops at the end of its step.
        logger.warning(
            "%s: stopped while it was prepared, before a step. What is encoded is kept; the same command "
            "continues.",
            settings.out,
        )
        raise
    if STAGES[settings.stage].is_post_training:
        _plot_if_possible(folder)
    print(folder)


@train.command()
def plot(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", show_default=False)
    ],
) -> None:
    """Plot the metrics of a run over its updates, one panel per metric, and print the path of the plot."""
    from lens.evals.training_curves import plot_training_curves

    print(plot_training_curves(folder))


def _plot_if_possible(folder: Path) -> None:
    """Plot the metrics of a run; only log it if that is not possible."""
    from lens.evals.training_curves import plot_training_curves

    try:
        logger.info("Metrics are plotted in %s", plot_training_curves(folder))
    except (SettingError, MissingExtraError) as error:
        logger.warning("Metrics are not plotted: %s", error)


@train.command()
def plan(
    recipe: Recipe,
    gpu: Annotated[str, typer.Option(help="GPU: a100, h100, h200, b200 or rtx4090.")] = "h100",
    gpus: Annotated[int, typer.Option(help="Number of GPUs.")] = 1,
    mfu: Annotated[
        float | None, typer.Option(help="Model FLOPs utilization (default: as measured, else 0.4).")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Price of a GPU-hour in dollars.")] = None,
    text_tokens: Annotated[
        int | None, typer.Option(help="Text tokens per image (default: 512, for RL 64).")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the cost of a recipe of the stage denoiser, rl or distill, without running it.

    The estimate has weights, memory per GPU, operations, GPU-hours and money; for RL also rollouts and judge
    calls. It includes the recipes that a recipe follows.
    """
    from lens.cli.process import prepare_libraries
    from lens.config import read_recipe
    from lens.train.run import STAGES

    values = read_recipe(recipe, overrides)
    prepare_libraries(needed={"peft"})
    post_training = [name for name, stage in STAGES.items() if stage.is_post_training]
    if values.get("stage") in post_training:
        estimate, lines = _post_training_estimate(values, recipe, text_tokens, gpu, gpus, mfu, price)
    else:
        estimate, lines = _denoiser_estimate(recipe, overrides, text_tokens, gpu, gpus, mfu, price)
    if as_json:
        print(json.dumps(estimate))
        return
    for line in lines:
        print(line)


def _denoiser_estimate(
    recipe: Path, overrides: list[str] | None, text_tokens: int | None, gpu: str, gpus: int,
    mfu: float | None, price: float | None,
) -> tuple[dict[str, Any], Iterator[str]]:  # fmt: skip
    from lens.train.cost.from_recipe import read_run_specs, resolve_mfu
    from lens.train.cost.training import estimate_cost, estimate_to_dict, format_estimate

    runs = read_run_specs(recipe, overrides, text_tokens)
    mfu_share, source = resolve_mfu(recipe, gpu, mfu)
    estimate = estimate_cost(tuple(runs.values()), gpu, gpus, mfu_share, price)
    return estimate_to_dict(estimate) | {"mfu_source": source}, format_estimate(
        estimate, gpu, list(runs), source
    )


def _post_training_estimate(
    values: dict[str, Any], recipe: Path, text_tokens: int | None, gpu: str, gpus: int,
    mfu: float | None, price: float | None,
) -> tuple[dict[str, Any], Iterator[str]]:  # fmt: skip
    from lens.train.cost.from_post_training_recipe import post_training_spec
    from lens.train.cost.post_training import (
        estimate_post_training,
        format_post_training,
        post_training_to_dict,
    )
    from lens.train.run import parse_settings

    settings = parse_settings(values["stage"], values, str(recipe))
    estimate = estimate_post_training(post_training_spec(settings, text_tokens), gpu, gpus, mfu, price)
    return post_training_to_dict(estimate), format_post_training(estimate, gpu, mfu is None)
