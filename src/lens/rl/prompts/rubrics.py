"""Rubrics of prompts: criteria for their images, from a language model or from a scene.

A rubric is a set of criteria with short names; the global one is always included. Paper: Lens report,
post-training.
"""

import re
import unicodedata
from collections import Counter
from typing import Any

from lens.errors import LensError
from lens.llm.batch import InvalidResponse, LLMBatch, LLMTask, TaskResult, chat_messages, token_costs
from lens.llm.json_repair import JsonRepairError, parse_json_object
from lens.rl.prompts.dataset import GLOBAL_CRITERION, GLOBAL_RUBRIC, RLPrompt, read_prompts, write_prompts
from lens.rl.prompts.generation import BuildResult, OnProgress, write_summary
from lens.rl.prompts.nano import nano_rubric, scene_spec_of
from lens.rl.prompts.settings import NanoPromptSetSettings, TaxonomyPromptSetSettings

MAX_NAME_CHARS = 40
MIN_CRITERION_CHARS = 10
"""Shortest criterion that can state something to verify."""
RUBRIC_SYSTEM_MESSAGE = (
    "You write rubrics for judging pictures that a text-to-image model drew from a prompt. A judge sees the "
    "picture and one criterion at a time, and says whether it holds. You answer with one JSON object and "
    "nothing else."
)


def build_rubrics(
    settings: NanoPromptSetSettings | TaxonomyPromptSetSettings, on_progress: OnProgress = lambda *_: None
) -> BuildResult:
    """Build the rubric of every prompt of a set, or resume; prompts without a rubric are rejected.

    Rubrics of the nano world come from the spec of the scene.

    Raises: EndpointError when a model does not answer; received answers are kept. SettingError where the
    prompt set does not exist.
    """
    prompts = read_prompts(settings.prompts_file)
    rubrics = {one.prompt: nano_rubric(scene_spec_of(one)) for one in prompts if one.expected is not None}
    remaining = [one for one in prompts if one.expected is None]
    rejected: list[dict[str, Any]] = []
    usage: dict[str, Any] = {}
    num_calls = 0
    if remaining and isinstance(settings, NanoPromptSetSettings):
        raise LensError(f"{settings.prompts_file} has prompts of another world. Build the set again.")
    if remaining and isinstance(settings, TaxonomyPromptSetSettings):
        model = settings.rubric_model or settings.model
        results: dict[str, TaskResult[dict[str, str]]] = {}
        with LLMBatch(model, settings.out / "rubric_answers.jsonl") as llm_batch:
            for name, outcome in llm_batch.run(rubric_task(one, settings) for one in remaining):
                results[name] = outcome
                on_progress("rubrics", len(results), len(remaining))
        rubrics |= {name: one.result for name, one in results.items() if one.result is not None}
        rejected = [
            {"reason": results[one.prompt].reason, "prompt": one.prompt}
            for one in remaining
            if one.prompt not in rubrics
        ]
        tokens = (sum(one.prompt_tokens for one in results.values()),
                  sum(one.completion_tokens for one in results.values()))  # fmt: skip
        usage = {"answers": sum(one.num_tries for one in results.values())} | token_costs(model, *tokens)
        num_calls = llm_batch.num_calls
    return _write_rubrics(settings, prompts, rubrics, rejected, usage, num_calls)


def rubric_task(prompt: RLPrompt, settings: TaxonomyPromptSetSettings) -> LLMTask[dict[str, str]]:
    """Return the task of a language model for the rubric of a prompt."""
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
    return LLMTask(
        prompt.prompt,
        chat_messages(RUBRIC_SYSTEM_MESSAGE, "\n".join(lines)),
        lambda answer: parse_rubric(answer, settings.min_criteria, settings.max_criteria),
    )


def parse_rubric(answer: str, min_criteria: int, max_criteria: int) -> dict[str, str]:
    """Return the rubric in an answer with the global criterion; at most the first `max_criteria`.

    Names become unique and snake case; repeated criteria are dropped.

    Raises: InvalidResponse for anything but one JSON object with enough criteria in words.
    """
    try:
        pairs = parse_json_object(answer)
    except JsonRepairError as error:
        raise InvalidResponse("broken_json", str(error)) from error
    criteria: dict[str, tuple[str, str]] = {}
    for name, what in pairs:
        if not isinstance(what, str):
            raise InvalidResponse("wrong_fields", f"{name!r} does not have a sentence as its value")
        what = " ".join(what.split())
        if len(what) < MIN_CRITERION_CHARS:
            raise InvalidResponse("wrong_fields", f"{name!r} does not say what to verify in a sentence")
        criteria.setdefault(what.lower(), (name, what))
    if len(criteria) < min_criteria:
        feedback = f"it has {len(criteria)} criteria, and must have at least {min_criteria}"
        raise InvalidResponse("too_few_criteria", feedback)
    rubric: dict[str, str] = {}
    for name, what in list(criteria.values())[:max_criteria]:
        rubric[_unique_name(_snake_case(name), {GLOBAL_CRITERION, *rubric})] = what
    return rubric | {GLOBAL_CRITERION: GLOBAL_RUBRIC}


def _snake_case(name: str) -> str:
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name))
    plain = plain.encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:MAX_NAME_CHARS].rstrip("_")
    return plain if plain[:1].isalpha() else f"criterion_{plain}".rstrip("_")


def _unique_name(name: str, used: set[str]) -> str:
    number, free = 2, name
    while free in used:
        number, free = number + 1, f"{name}_{number}"
    return free


def _write_rubrics(
    settings: NanoPromptSetSettings | TaxonomyPromptSetSettings,
    prompts: list[RLPrompt],
    rubrics: dict[str, dict[str, str]],
    rejected: list[dict[str, Any]],
    usage: dict[str, Any],
    num_calls: int,
) -> BuildResult:
    """Write the prompts that have rubrics, and then the summary."""
    if not rubrics:
        raise LensError(f"All rubrics were rejected: {dict(Counter(one['reason'] for one in rejected))}.")
    having = (one for one in prompts if one.prompt in rubrics)
    prompts_with_rubrics = [one.model_copy(update={"rubric": rubrics[one.prompt]}) for one in having]
    write_prompts(prompts_with_rubrics, settings.rubrics_file)
    summary = {
        "source": settings.source,
        "wanted": len(prompts),
        "prompts": len(prompts_with_rubrics),
        "criteria": sum(len(one.rubric) for one in prompts_with_rubrics),
        "mean_criteria": round(
            sum(len(one.rubric) for one in prompts_with_rubrics) / len(prompts_with_rubrics), 2
        ),
        "fallen": dict(Counter(one["reason"] for one in rejected).most_common()),
        "without_rubric": rejected,
    } | usage
    write_summary(summary, settings.out / "rubrics_summary.json")
    return BuildResult(settings.rubrics_file, summary, num_calls)
