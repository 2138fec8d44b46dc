"""`lens train RECIPE` hands a recipe to the training loop, `lens train plan RECIPE` reckons what it takes."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

Recipe = Annotated[
    Path, typer.Argument(help="A YAML file, such as recipes/nano/pretrain.yaml.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the recipe; repeat for more."),
]


class _RunByDefault(TyperGroup):
    """A group whose first word may be left out: `lens train RECIPE` is `lens train run RECIPE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


train = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True,
    help="Train by a recipe (lens train RECIPE), or reckon what that would take (lens train plan RECIPE).",
)  # fmt: skip


@train.command()
def run(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train by a recipe; print the run's folder. Stops cleanly on SIGTERM and goes on when called again."""
    from lens.app.process import prepare_libraries
    from lens.train.run import checked, trained

    settings = checked(recipe, overrides)  # a bad recipe is told before the libraries are loaded
    prepare_libraries(needed={"peft"})
    print(trained(settings))


@train.command()
def plan(
    recipe: Recipe,
    gpu: Annotated[str, typer.Option(help="Kind of card: a100, h100, h200, b200 or rtx4090.")] = "h100",
    gpus: Annotated[int, typer.Option(help="How many of them.")] = 1,
    mfu: Annotated[float | None, typer.Option(help="Share of the peak that is reached (0.4).")] = None,
    price: Annotated[float | None, typer.Option(help="Dollars an hour of a card.")] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Text tokens of a picture (512).")] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Reckon what a recipe of the denoiser would take: weights, memory, operations, GPU-hours, money.

    Recipes that it follows are part of the bill.
    """
    from lens.app.process import prepare_libraries

    prepare_libraries(needed={"peft"})
    from lens.train.bill import runs_of
    from lens.train.plan import facts, plan_of, told

    runs = runs_of(recipe, overrides, text_tokens)
    found = plan_of(tuple(runs.values()), gpu, gpus, mfu, price)
    if as_json:
        print(json.dumps(facts(found)))
        return
    for line in told(found, gpu, list(runs), mfu is None):
        print(line)
