"""`lens rl`: builds prompt sets for post-training, and their rubrics."""

import json
from typing import TYPE_CHECKING

import typer

from lens.cli.arguments import AsJson, Overrides, Recipe

if TYPE_CHECKING:
    from lens.rl.prompts.generation import BuildResult

rl = typer.Typer(help="Build prompts and rubrics for post-training.", no_args_is_help=True)


@rl.command()
def prompts(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Build the prompt set of a recipe; print the path of its file. A stopped build resumes."""
    from lens.config import read_recipe
    from lens.rl.prompts.settings import parse_prompt_settings

    settings = parse_prompt_settings(read_recipe(recipe, overrides), str(recipe))

    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.rl.prompts.generation import build_prompts

    with ProgressBar(num_images=1) as progress:
        _print_summary(build_prompts(settings, with_log_lines(progress)), as_json)


@rl.command()
def rubrics(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Build the rubrics of a prompt set; print the path of its file. A stopped build resumes."""
    from lens.config import read_recipe
    from lens.rl.prompts.settings import parse_prompt_settings

    settings = parse_prompt_settings(read_recipe(recipe, overrides), str(recipe))

    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.rl.prompts.rubrics import build_rubrics

    with ProgressBar(num_images=1) as progress:
        _print_summary(build_rubrics(settings, with_log_lines(progress)), as_json)


def _print_summary(result: "BuildResult", as_json: bool) -> None:
    """Print the path of the result; on stderr rejected prompts and costs."""
    summary = result.summary
    if as_json:
        print(json.dumps(summary | {"path": str(result.path), "calls": result.num_calls}))
        return
    rejected = ", ".join(f"{count} {reason}" for reason, count in summary["fallen"].items()) or "none"
    lines = [f"{summary['prompts']} of {summary['wanted']} prompts; rejected: {rejected}"]
    if summary.get("overlaps"):
        lines.append(f"{len(summary['overlaps'])} overlap a benchmark; summary.json lists them")
    if "prompt_tokens" in summary:
        cost = f", cost {summary['cost']:g}" if "cost" in summary else ""
        tokens = f"{summary['prompt_tokens']} prompt and {summary['completion_tokens']} completion tokens"
        lines.append(f"{tokens}{cost}; {summary['answers']} answers, {result.num_calls} of them in this run")
    for line in lines:
        typer.echo(line, err=True)
    print(result.path)
