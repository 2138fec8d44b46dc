"""`lens train RECIPE` hands a recipe to the training loop, `lens train plan RECIPE` reckons what it takes,
`lens train plot RUN` draws what a run told about itself."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lens.errors import MissingExtraError, SettingError

logger = logging.getLogger(__name__)

RecipeArgument = Annotated[
    Path, typer.Argument(help="A YAML file, such as recipes/nano/pretrain.yaml.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the recipe; repeat for more."),
]

POST_TRAINING_STAGES = ("rl", "distill")
"""Stages whose plans have passes and judge calls, and whose monitors are drawn when a run ends."""


class _DefaultRunGroup(TyperGroup):
    """A group whose first word may be left out: `lens train RECIPE` is `lens train run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


train = typer.Typer(
    cls=_DefaultRunGroup, no_args_is_help=True,
    help="Train by a recipe (lens train RECIPE), reckon what that would take (lens train plan RECIPE), or "
    "plot what a run told about itself (lens train plot RUN).",
)  # fmt: skip


@train.command()
def run(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Train by a recipe; print the run's folder. Stops cleanly on SIGTERM and goes on when called again."""
    from lens.cli.process import prepare_libraries
    from lens.train.run import load_settings, train_from_settings

    settings = load_settings(recipe, overrides)  # a bad recipe is told before the libraries are loaded
    prepare_libraries(needed={"peft"})
    folder = train_from_settings(settings)
    if settings.stage in POST_TRAINING_STAGES:
        _plot_if_possible(folder)
    print(folder)


@train.command()
def plot(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", show_default=False)
    ],
) -> None:
    """Draw the numbers of a run over its updates, a panel each; print the path of the plot."""
    from lens.evals.training_curves import plot_training_curves

    print(plot_training_curves(folder))


def _plot_if_possible(folder: Path) -> None:
    """Draw a run's monitors; a plot that cannot be had is no reason for a run to fail."""
    from lens.evals.training_curves import plot_training_curves

    try:
        logger.info("monitors: %s", plot_training_curves(folder))
    except (SettingError, MissingExtraError) as error:
        logger.warning("no plot of the monitors: %s", error)


@train.command()
def plan(
    recipe: RecipeArgument,
    gpu: Annotated[str, typer.Option(help="Kind of card: a100, h100, h200, b200 or rtx4090.")] = "h100",
    gpus: Annotated[int, typer.Option(help="How many of them.")] = 1,
    mfu: Annotated[float | None, typer.Option(help="Share of the peak (as measured, else 0.4).")] = None,
    price: Annotated[float | None, typer.Option(help="Dollars an hour of a card.")] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Text tokens of a picture (512).")] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Reckon what a recipe of the denoiser, of RL or of distillation would take: weights, memory, operations,
    GPU-hours, money; for RL also rollouts and judge calls.

    Recipes that it follows are part of the bill.
    """
    from lens.cli.process import prepare_libraries
    from lens.config import read_recipe

    prepare_libraries(needed={"peft"})
    values = read_recipe(recipe, overrides)
    if values.get("stage") in POST_TRAINING_STAGES:
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
