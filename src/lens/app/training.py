"""`lens train RECIPE`: hand a recipe to the training loop."""

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[
    Path, typer.Argument(help="A YAML file, such as recipes/nano/pretrain.yaml.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the recipe; repeat for more."),
]


def train(recipe: Recipe, overrides: Overrides = None) -> None:
    """Train by a recipe; print the run's folder. Stops cleanly on SIGTERM and goes on when called again."""
    from lens.config import read_recipe

    read_recipe(recipe, overrides)  # a bad recipe is told before torch is loaded

    from lens.app.process import prepare_libraries

    prepare_libraries(needed={"peft"})
    from lens.train.run import train as run_recipe

    print(run_recipe(recipe, overrides or []))
