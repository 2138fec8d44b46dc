"""`lens ablate`: trains the arms of an experiment from several seeds; prints a table and writes a plot."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lens.cli.arguments import AsJson, Overrides

Recipes = Annotated[
    list[Path],
    typer.Argument(help="YAML files, such as recipes/nano/ablations/captions.yaml.", show_default=False),
]


def ablate(
    recipes: Recipes,
    jobs: Annotated[int, typer.Option(min=1, help="Runs to train at the same time.")] = 1,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the arms of ablations from several seeds; print a table of each.

    Finished runs are reused and stopped runs resume. The results are also written beside the runs, as JSON,
    Markdown and an SVG plot.
    """
    from lens.evals.ablation import (
        ablation_runs,
        compare_arms,
        format_table,
        read_ablation,
        results_to_dict,
        train_missing,
    )
    from lens.evals.ablation_plot import plot_ablation

    for recipe, settings in [(recipe, read_ablation(recipe, overrides)) for recipe in recipes]:
        runs = ablation_runs(settings)
        train_missing(runs, jobs)
        rows = compare_arms(settings, runs)
        numbers, text = results_to_dict(settings, rows), format_table(settings, rows)
        results = settings.out / recipe.stem
        results.with_suffix(".json").write_text(json.dumps(numbers, indent=1))
        results.with_suffix(".md").write_text(text + "\n")
        plot_ablation(settings, rows, results.with_suffix(".svg"))
        print(json.dumps(numbers | {"plot": str(results.with_suffix(".svg"))}) if as_json else text)
