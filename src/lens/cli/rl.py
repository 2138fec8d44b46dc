"""`lens rl`: sets of prompts to tune on, and the rubrics that their pictures are judged by."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lens.cli.train import Overrides

if TYPE_CHECKING:
    from lens.rl.prompts.generation import Built

rl = typer.Typer(help="Prompts and rubrics for post-training.", no_args_is_help=True)
log = logging.getLogger(__name__)

Recipe = Annotated[
    Path, typer.Argument(help="A YAML file, such as recipes/nano/rl_prompts.yaml.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
TELL_EVERY_S = 10.0


@rl.command()
def prompts(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Build a set of prompts by a recipe; print its file. Called again, it goes on where it was stopped."""
    from lens.config import read_recipe
    from lens.rl.prompts.settings import recipe_of

    settings = recipe_of(read_recipe(recipe, overrides), str(recipe))

    from lens.cli.progress import Progress
    from lens.rl.prompts.generation import build_prompts

    with Progress(num_pictures=1) as progress:
        _tell(build_prompts(settings, _told_too(progress)), as_json)


@rl.command()
def rubrics(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Give the prompts of a set their rubrics; print the file. Called again, it goes on as well."""
    from lens.config import read_recipe
    from lens.rl.prompts.settings import recipe_of

    settings = recipe_of(read_recipe(recipe, overrides), str(recipe))

    from lens.cli.progress import Progress
    from lens.rl.prompts.rubrics import build_rubrics

    with Progress(num_pictures=1) as progress:
        _tell(build_rubrics(settings, _told_too(progress)), as_json)


def _told_too(progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Return progress that also leaves a line in the log now and then."""
    from time import monotonic

    told_at = monotonic()

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal told_at
        progress(stage, done, total)
        if monotonic() - told_at >= TELL_EVERY_S:
            told_at = monotonic()
            log.info("%s: %d of %d", stage, done, total)

    return tell


def _tell(built: "Built", as_json: bool) -> None:
    """Print what was built, and on stderr what fell and what it cost."""
    summary = built.summary
    if as_json:
        print(json.dumps(summary | {"path": str(built.path), "calls": built.num_calls}))
        return
    fallen = ", ".join(f"{count} {reason}" for reason, count in summary["fallen"].items()) or "none"
    lines = [f"{summary['prompts']} of {summary['wanted']} prompts; fallen: {fallen}"]
    if summary.get("overlaps"):
        lines.append(f"{len(summary['overlaps'])} are like a benchmark's; summary.json names them")
    if "prompt_tokens" in summary:
        cost = f", cost {summary['cost']:g}" if "cost" in summary else ""
        tokens = f"{summary['prompt_tokens']} tokens asked, {summary['completion_tokens']} written{cost}"
        lines.append(f"{tokens}; {summary['answers']} answers, {built.num_calls} of them by this run")
    for line in lines:
        typer.echo(line, err=True)
    print(built.path)
