"""Rubrics: what a judge verifies of the pictures of a prompt, from a language model or from a scene graph.

A rubric is criteria by short names, the global one always among them. Paper: Lens report, post-training.
"""

import re
import unicodedata
from collections import Counter
from typing import Any

from lens.errors import LensError
from lens.llm.batch import Asking, Outcome, Task, Unfit, asked_by, cost_of
from lens.llm.json_repair import BrokenJson, json_object
from lens.rl.prompts.dataset import GLOBAL_CRITERION, GLOBAL_RUBRIC, RLPrompt, read_prompts, write_prompts
from lens.rl.prompts.generation import Built, OnProgress, write_summary
from lens.rl.prompts.nano import expected_of, nano_rubric
from lens.rl.prompts.settings import NanoSet, TaxonomySet

LONGEST_NAME = 40
SHORTEST_CRITERION = 10
"""Characters; less says nothing that could be verified."""
SYSTEM = (
    "You write rubrics for judging pictures that a text-to-image model drew from a prompt. A judge sees the "
    "picture and one criterion at a time, and says whether it holds. You answer with one JSON object and "
    "nothing else."
)


def build_rubrics(settings: NanoSet | TaxonomySet, on_progress: OnProgress = lambda *_: None) -> Built:
    """Give every prompt of a set its rubric, going on with what is there; those that get none fall.

    Prompts of the nano world get theirs from what a picture must show.

    Raises: Unanswered when a model does not answer; every answer that came is kept. SettingError for a set
    that is not there yet.
    """
    prompts = read_prompts(settings.prompts_file)
    rubrics = {one.prompt: nano_rubric(expected_of(one)) for one in prompts if one.expected is not None}
    left = [one for one in prompts if one.expected is None]
    fallen: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    num_calls = 0
    if left and isinstance(settings, NanoSet):
        raise LensError(f"{settings.prompts_file} has prompts that are not of the nano world.")
    if left and isinstance(settings, TaxonomySet):
        model = settings.rubric_model or settings.model
        outcomes: dict[str, Outcome[dict[str, str]]] = {}
        with Asking(model, settings.out / "rubric_answers.jsonl") as asking:
            for name, outcome in asking.outcomes(task_of(one, settings) for one in left):
                outcomes[name] = outcome
                on_progress("rubrics", len(outcomes), len(left))
        rubrics |= {name: one.result for name, one in outcomes.items() if one.result is not None}
        fallen = [
            {"reason": outcomes[one.prompt].reason, "prompt": one.prompt}
            for one in left
            if one.prompt not in rubrics
        ]
        tokens = (sum(one.prompt_tokens for one in outcomes.values()),
                  sum(one.completion_tokens for one in outcomes.values()))  # fmt: skip
        facts = {"answers": sum(one.tries for one in outcomes.values())} | cost_of(model, *tokens)
        num_calls = asking.num_calls
    return _finished(settings, prompts, rubrics, fallen, facts, num_calls)


def task_of(prompt: RLPrompt, settings: TaxonomySet) -> Task[dict[str, str]]:
    """Return what a model is asked for a prompt, and how its answer is read."""
    lines = [f"Prompt: {prompt.prompt}", f"Subject: {prompt.item}"]
    if prompt.keypoints:
        lines.append(f"Keypoints: {'; '.join(prompt.keypoints)}")
    if prompt.text:
        lines.append(f'Writing: "{prompt.text}"; one criterion is that it can be read, letter by letter')
    lines += [
        "",
        f"Write {settings.min_criteria} to {settings.max_criteria} criteria, most important first. Each is "
        "one sentence about one fact that the prompt states and that can be seen in the picture alone; every "
        "keypoint has one. Leave out overall quality and beauty, which are judged apart.",
        "",
        'Answer with a JSON object: {"short_name": "what to verify", ...}',
    ]
    return Task(
        prompt.prompt,
        asked_by(SYSTEM, "\n".join(lines)),
        lambda answer: read_rubric(answer, settings.min_criteria, settings.max_criteria),
    )


def read_rubric(answer: str, min_criteria: int, max_criteria: int) -> dict[str, str]:
    """Return the rubric in an answer, with the global criterion; of too many criteria the first ones.

    Names become snake case, and different from one another; of two criteria that say the same, one stays.

    Raises: Unfit for anything but one JSON object with enough criteria in words.
    """
    try:
        pairs = json_object(answer)
    except BrokenJson as error:
        raise Unfit("broken_json", str(error)) from error
    criteria: dict[str, tuple[str, str]] = {}
    for name, what in pairs:
        if not isinstance(what, str):
            raise Unfit("wrong_fields", f"{name!r} does not have a sentence as its value")
        what = " ".join(what.split())
        if len(what) < SHORTEST_CRITERION:
            raise Unfit("wrong_fields", f"{name!r} does not say what to verify in a sentence")
        criteria.setdefault(what.lower(), (name, what))
    if len(criteria) < min_criteria:
        told = f"it has {len(criteria)} criteria, and must have at least {min_criteria}"
        raise Unfit("too_few_criteria", told)
    rubric: dict[str, str] = {}
    for name, what in list(criteria.values())[:max_criteria]:
        rubric[_unused(_snake_case(name), {GLOBAL_CRITERION, *rubric})] = what
    return rubric | {GLOBAL_CRITERION: GLOBAL_RUBRIC}


def _snake_case(name: str) -> str:
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name))
    plain = plain.encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:LONGEST_NAME].rstrip("_")
    return plain if plain[:1].isalpha() else f"criterion_{plain}".rstrip("_")


def _unused(name: str, used: set[str]) -> str:
    number, free = 2, name
    while free in used:
        number, free = number + 1, f"{name}_{number}"
    return free


def _finished(
    settings: NanoSet | TaxonomySet,
    prompts: list[RLPrompt],
    rubrics: dict[str, dict[str, str]],
    fallen: list[dict[str, Any]],
    facts: dict[str, Any],
    num_calls: int,
) -> Built:
    """Write the prompts that have rubrics; the summary last."""
    if not rubrics:
        raise LensError(f"No rubric came out right; {dict(Counter(one['reason'] for one in fallen))}.")
    having = (one for one in prompts if one.prompt in rubrics)
    whole = [one.model_copy(update={"rubric": rubrics[one.prompt]}) for one in having]
    write_prompts(whole, settings.rubrics_file)
    summary = {
        "source": settings.source,
        "wanted": len(prompts),
        "prompts": len(whole),
        "criteria": sum(len(one.rubric) for one in whole),
        "mean_criteria": round(sum(len(one.rubric) for one in whole) / len(whole), 2),
        "fallen": dict(Counter(one["reason"] for one in fallen).most_common()),
        "without_rubric": fallen,
    } | facts
    write_summary(summary, settings.out / "rubrics_summary.json")
    return Built(settings.rubrics_file, summary, num_calls)
