"""`lens data`: build training data, estimate the cost of a build, and verify one."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lens.cli.arguments import AsJson, Overrides, Recipe
from lens.errors import LensError

data = typer.Typer(help="Build training data: images to cleaned, bucketed shards.", no_args_is_help=True)

BuildArgument = Annotated[Path, typer.Argument(help="Folder of a build (`out`).", show_default=False)]
Until = Annotated[
    Literal["inventory", "scores", "view", "shards"], typer.Option(help="Last stage to run.")
]
View = Annotated[str | None, typer.Option(help="Name of a view. Default: the newest.")]


@data.command()
def build(
    recipe: Recipe, overrides: Overrides = None, until: Until = "shards", as_json: AsJson = False
) -> None:
    """Run a build and print the folder of its shards. The same command resumes a stopped build."""
    from lens.config import read_recipe
    from lens.data.build.settings import BuildSettings

    settings = BuildSettings.of(read_recipe(recipe, overrides), str(recipe))

    from lens.cli.progress import ProgressBar
    from lens.data.io.parquet import leave_pandas_out
    from lens.data.pipeline import build_dataset as run_build

    leave_pandas_out()
    with ProgressBar(num_images=1) as progress:
        summary = run_build(settings, progress, until)
    view = settings.out / "views" / summary["view"] if "view" in summary else None
    path = settings.out if view is None else view / "shards" if "shards" in summary else view
    if as_json:
        print(json.dumps(summary | {"path": str(path)}))
        return
    counts = summary.get("counts", {})
    for name, count in counts.items():
        typer.echo(f"{count:>9}  {name}", err=True)
    for kind in summary["passed_over"]:
        more = ", ..." if kind["count"] > len(kind["examples"]) else ""
        named = f"{kind['kind']} ({', '.join(kind['examples'])}{more})"
        typer.echo(f"{kind['count']:>9}  passed over: {named}", err=True)
    if counts.get("kept") == 0:
        typer.echo("No image is kept. The counts above and the report say why.", err=True)
    if "report" in summary:
        typer.echo(f"report: {summary['report']}", err=True)
    print(path)


@data.command()
def plan(
    recipe: Recipe,
    images: Annotated[str, typer.Option(help="Number of input images, such as 10k, 800M or 1.5B.")],
    gpus: Annotated[int, typer.Option(help="GPUs of the cluster.")] = 0,
    cores: Annotated[int | None, typer.Option(help="CPU cores of the cluster (default: per GPU).")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the cost of a build for each stage: core-hours, GPU-hours, bytes, tokens, days.

    Every rate is printed with its source. A rate that is neither measured nor published is marked as assumed.
    """
    from lens.config import read_recipe
    from lens.data.build.settings import BuildSettings
    from lens.data.estimate.cost import (
        build_estimate_to_dict,
        estimate_build,
        format_build_estimate,
        parse_count,
    )

    settings = BuildSettings.of(read_recipe(recipe, overrides), str(recipe))
    estimate = estimate_build(settings, parse_count(images), gpus, cores)
    if as_json:
        print(json.dumps(build_estimate_to_dict(estimate)))
        return
    for line in format_build_estimate(estimate):
        print(line)


@data.command()
def verify(out: BuildArgument, view: View = None, as_json: AsJson = False) -> None:
    """Check that every sample of a build is in exactly one shard or once in the ledger."""
    from lens.data.build.verify import verify_build as check

    result = check(out, view)
    if as_json:
        print(json.dumps(result._asdict()))
    else:
        counts = f"{result.num_in_shards} in shards, {result.num_in_ledger} in the ledger"
        print(f"{result.num_entries} entries, {result.num_samples} samples: {counts}")
    if result.faults:
        raise LensError("; ".join(result.faults))
    if not as_json:
        print("complete and disjoint")
