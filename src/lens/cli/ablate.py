"""`lens ablate`: trains the arms of a question from several seeds, and says what their images answer."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lens.cli.arguments import AsJson, Overrides
from lens.files import check_writable

Recipes = Annotated[
    list[Path],
    typer.Argument(
        help="YAML files, such as recipes/nano/ablations/questions/captions.yaml.", show_default=False
    ),
]


def ablate(
    recipes: Recipes,
    jobs: Annotated[int, typer.Option(min=1, help="Runs to train at the same time.")] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the hours and the power of each question; train nothing.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the arms of ablations from several seeds, score their images, and answer each question.

    Finished runs and scores are reused and stopped ones resume. The results are also written beside the runs,
    as JSON, Markdown and an SVG plot.
    """
    from lens.evals.ablation import ablation_runs, read_ablation, train_missing
    from lens.evals.ablation_findings import (
        arm_scores,
        findings_to_dict,
        format_findings,
        format_plan,
        format_work,
        missing_minutes,
    )
    from lens.evals.ablation_plot import plot_ablation
    from lens.evals.ablation_scores import read_scores, score_missing

    questions = [(recipe, read_ablation(recipe, overrides)) for recipe in recipes]
    if plan:
        minutes, lines = {}, []
        for _, settings in questions:
            runs = ablation_runs(settings)
            lines.append(format_plan(settings, runs))
            minutes |= missing_minutes(settings, runs)  # questions share runs
        hours = sum(minutes.values()) / 60
        text = "\n\n".join([*lines, f"In all, as questions share runs: {format_work(minutes)}"])
        print(json.dumps({"plan": lines, "runs": len(minutes), "hours": hours}) if as_json else text)
        return
    for _, settings in questions:
        check_writable(settings.out, "out")
    for recipe, settings in questions:
        runs = ablation_runs(settings)
        train_missing(runs, jobs)
        score_missing(settings, runs, jobs)
        scores = read_scores(settings, runs)
        numbers, text = findings_to_dict(settings, scores), format_findings(settings, scores)
        results = settings.out / recipe.stem
        results.with_suffix(".json").write_text(json.dumps(numbers, indent=1))
        results.with_suffix(".md").write_text(text + "\n")
        plot_ablation(settings, arm_scores(settings, scores), results.with_suffix(".svg"))
        print(json.dumps(numbers | {"plot": str(results.with_suffix(".svg"))}) if as_json else text)
