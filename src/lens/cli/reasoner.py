"""`lens reasoner`: measures of a reasoner, and the search for its system prompt."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lens.cli.arguments import DEFAULT_MODEL, AsJson, Overrides, Recipe
from lens.cli.generation.reasoner_options import (
    MODEL_HELP,
    POLICY_HELP,
    REASONER_HELP,
    SYSTEM_PROMPT_HELP,
    ReasonerOptions,
)
from lens.files import check_writable

if TYPE_CHECKING:
    from lens.reasoner.outcome import Reasoner
    from lens.reasoner.refusal_check import CheckedCase, RefusalRow

logger = logging.getLogger(__name__)

reasoner = typer.Typer(help="Measure reasoners, and search system prompts for them.", no_args_is_help=True)

What = Annotated[str | None, typer.Option("--reasoner", help=REASONER_HELP, metavar="WHAT")]
ModelName = Annotated[str | None, typer.Option("--reasoner-model", help=MODEL_HELP)]
SystemPrompt = Annotated[str | None, typer.Option(help=SYSTEM_PROMPT_HELP)]
PolicyFile = Annotated[Path | None, typer.Option(help=POLICY_HELP)]
DrawingModel = Annotated[
    str, typer.Option(help="Model that would draw the prompts; gpt-oss is its text encoder.")
]


@reasoner.command()
def check(
    what: What = None,
    model_name: ModelName = None,
    system_prompt: SystemPrompt = None,
    policy: PolicyFile = None,
    model: DrawingModel = DEFAULT_MODEL,
    as_json: AsJson = False,
) -> None:
    """Ask a reasoner about 60 harmless prompts and 60 that are to be refused; print how many it refuses."""
    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.reasoner.refusal_check import check_refusals, refusal_cases

    options = ReasonerOptions(what, model_name, system_prompt, policy)
    options.check(is_used=True)
    categories = [one.name for one in options.refusal_policy().categories]
    cases = refusal_cases(categories)
    _tell_categories(categories)
    with ProgressBar(num_images=1) as progress:
        report = with_log_lines(progress)
        checked = check_refusals(
            _load_reasoner(options, model), cases, lambda num_done: report("checking", num_done, len(cases))
        )
    if as_json:
        for is_harmless in (True, False):
            print(json.dumps(_set_to_dict(checked, is_harmless)))
        return
    _print_table("Harmless prompts that sound bad", checked, is_harmless=True)
    print()
    _print_table("Prompts that are to be refused", checked, is_harmless=False)


@reasoner.command()
def search(recipe: Recipe, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Search a better system prompt for a reasoner; print a table. A stopped search resumes.

    Pictures are drawn, a language model reads what failed and rewrites the system prompt, and the best ones
    are compared with the start on new prompts. The folder of the recipe gets best.txt and search.html.
    """
    from lens.evals.prompt_search import read_search

    settings = read_search(recipe, overrides)
    check_writable(settings.out, "out")

    from lens.cli.progress import ProgressBar, with_log_lines
    from lens.evals.prompt_search import run_search
    from lens.evals.prompt_search_page import write_page
    from lens.reasoner.search.result import format_result, result_to_dict

    with ProgressBar(num_images=1) as progress:
        result = run_search(settings, with_log_lines(progress))
    page = write_page(result, settings.out / "search.html")
    files = {"page": str(page), "best_file": str(settings.out / "best.txt")}
    print(json.dumps(result_to_dict(result) | files) if as_json else format_result(result))
    logger.info("The page is %s, and the best system prompt is %s.", *files.values())


def _load_reasoner(options: ReasonerOptions, model: str) -> "Reasoner":
    """Return the reasoner of options for the prompts of a model."""
    from lens.cli.generation.loading import GenerationSession
    from lens.cli.generation.reasoning import load_reasoner
    from lens.cli.generation.request import GenerateArguments
    from lens.sampling.resolved_model import ResolvedModel

    resolved = ResolvedModel.of(model)
    base = resolved.defaults.base_resolution
    return load_reasoner(
        options, resolved, lambda: GenerationSession(resolved, GenerateArguments(), (base, base)), None
    )


def _tell_categories(categories: list[str]) -> None:
    """Log which categories are not measured: of the sets, or of the policy."""
    from lens.reasoner.refusal_check import refusal_cases

    ours = list(dict.fromkeys(case.category for case in refusal_cases() if not case.is_harmless))
    allowed = [name for name in ours if name not in categories]
    unknown = [name for name in categories if name not in ours]
    if allowed:
        logger.info("The policy does not refuse %s: their prompts are left out.", ", ".join(allowed))
    if unknown:
        logger.info("There are no prompts for %s of the policy.", ", ".join(unknown))


def _print_table(title: str, checked: "list[CheckedCase]", is_harmless: bool) -> None:
    """Print how many prompts of a set are refused, then each that should have been answered otherwise."""
    from lens.cli.models import print_columns
    from lens.reasoner.refusal_check import refusal_rows

    print(f"{title}:")
    rows = [
        (row.category, str(row.num_prompts), str(row.num_answered), str(row.num_refused), _share(row))
        for row in refusal_rows(checked, is_harmless)
    ]
    print_columns(("category", "prompts", "answered", "refused", "share (95%)"), rows)
    for one in checked:
        if one.case.is_harmless == is_harmless and one.is_wrong:
            named = f", as {one.reasoned.category}" if one.reasoned.category else ""
            what = f"refused{named}" if one.is_refused else f"not refused ({one.case.category})"
            print(f"  {what}: {one.case.prompt}")


def _share(row: "RefusalRow") -> str:
    if row.share is None or row.interval is None:
        return "no answer"
    return f"{row.share:.0%} ({row.interval[0]:.0%} to {row.interval[1]:.0%})"


def _set_to_dict(checked: "list[CheckedCase]", is_harmless: bool) -> dict[str, Any]:
    from lens.reasoner.refusal_check import HARMLESS, REFUSED, refusal_rows

    of_set = [one for one in checked if one.case.is_harmless == is_harmless]
    rows = [
        row._asdict() | {"share": row.share, "interval": row.interval}
        for row in refusal_rows(of_set, is_harmless)
    ]
    wrong = [
        {"prompt": one.case.prompt, "category": one.case.category, "refused_as": one.reasoned.category}
        for one in of_set
        if one.is_wrong
    ]
    unanswered = [
        {"prompt": one.case.prompt, "reason": one.reasoned.reason} for one in of_set if not one.has_answer
    ]
    model = next((one.reasoned.model for one in of_set), None)
    return {
        "set": HARMLESS if is_harmless else REFUSED,
        "model": model,
        "rows": rows,
        "wrong": wrong,
        "unanswered": unanswered,
    }
