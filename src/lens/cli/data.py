"""`lens data`: builds of training data, and the proof that one is complete."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lens.cli.train import Overrides
from lens.errors import LensError

data = typer.Typer(help="Turn a pile of pictures into cleaned, bucketed shards.", no_args_is_help=True)

Recipe = Annotated[
    Path, typer.Argument(help="A YAML file, such as recipes/data/folder.yaml.", show_default=False)
]
Out = Annotated[Path, typer.Argument(help="Folder of a build.", show_default=False)]
Until = Annotated[
    Literal["inventory", "scores", "view", "shards"], typer.Option(help="The last stage to do.")
]
View = Annotated[str | None, typer.Option(help="Name of a view (the newest).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@data.command()
def build(
    recipe: Recipe, overrides: Overrides = None, until: Until = "shards", as_json: AsJson = False
) -> None:
    """Build by a recipe; print where the shards are. Called again, it goes on where it was stopped."""
    from lens.config import read_recipe
    from lens.data.build.settings import BuildSettings

    settings = BuildSettings.of(read_recipe(recipe, overrides), str(recipe))

    from lens.cli.progress import Progress
    from lens.data.pipeline import build as run_build

    with Progress(num_pictures=1) as progress:
        facts = run_build(settings, progress, until)
    view = settings.out / "views" / facts["view"] if "view" in facts else None
    path = settings.out if view is None else view / "shards" if "shards" in facts else view
    if as_json:
        print(json.dumps(facts | {"path": str(path)}))
        return
    for name, count in facts.get("counts", {}).items():
        typer.echo(f"{count:>9}  {name}", err=True)
    if "report" in facts:
        typer.echo(f"report: {facts['report']}", err=True)
    print(path)


@data.command()
def plan(
    recipe: Recipe,
    images: Annotated[str, typer.Option(help="Pictures that go in, such as 10k, 800M or 1.5B.")],
    gpus: Annotated[int, typer.Option(help="GPUs of the cluster.")] = 0,
    cores: Annotated[int | None, typer.Option(help="Its cores; left out, so many a GPU as is usual.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Reckon what a build would take, stage by stage: core-hours, GPU-hours, bytes, tokens, days.

    Every rate is printed with its source; what nobody measured or published is called assumed.
    """
    from lens.config import read_recipe
    from lens.data.build.settings import BuildSettings
    from lens.data.estimate.cost import count_of, facts, plan_of, told

    settings = BuildSettings.of(read_recipe(recipe, overrides), str(recipe))
    found = plan_of(settings, count_of(images), gpus, cores)
    if as_json:
        print(json.dumps(facts(found)))
        return
    for line in told(found):
        print(line)


@data.command()
def verify(out: Out, view: View = None, as_json: AsJson = False) -> None:
    """Prove that every picture of a build is in exactly one shard or once in the ledger."""
    from lens.data.build.verify import verify as check

    verdict = check(out, view)
    if as_json:
        print(json.dumps(verdict._asdict()))
    else:
        found = f"{verdict.num_in_shards} in shards, {verdict.num_in_ledger} in the ledger"
        print(f"{verdict.num_entries} entries, {verdict.num_samples} samples: {found}")
    if verdict.faults:
        raise LensError("; ".join(verdict.faults))
    if not as_json:
        print("complete and disjoint")
