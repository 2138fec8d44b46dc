"""Builds prompt sets: generates prompts by a language model, validates them, and replaces rejected ones.

The order of a set does not depend on the order of answers. A set is a file of prompts, a summary, and a file
of rejected prompts with reasons. Paper: Lens report, post-training.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lens.config import write_yaml
from lens.errors import LensError
from lens.files import check_writable, write_bytes_atomic
from lens.llm.batch import InvalidResponse, LLMBatch, LLMTask, TaskResult, chat_messages, token_costs
from lens.llm.json_repair import JsonRepairError, parse_json_object
from lens.rl.prompts.dataset import RLPrompt, write_prompts
from lens.rl.prompts.nano import nano_prompts
from lens.rl.prompts.settings import NanoPromptSetSettings, TaxonomyPromptSetSettings
from lens.rl.prompts.taxonomy import PromptSubject, read_taxonomy, subjects
from lens.rl.prompts.validation import Decontamination, GeneratedPrompt, NearDuplicateIndex, validate_prompt

OnProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

PROMPT_SYSTEM_MESSAGE = (
    "You write prompts for a text-to-image model. A prompt is one English paragraph that describes one "
    "picture, as a photograph would show it unless its subject is drawn by nature. You answer with one JSON "
    "object and nothing else."
)
DIMENSION_INSTRUCTIONS = {
    "attribute": "a property of the subject that can be seen, such as material, shape, size, age or state",
    "spatial": "where things are in relation to one another, such as to the left of, behind or inside",
    "count": "an exact number of some things, written as a word",
    "interaction": "what the subject does with somebody or something, or what is done with it",
    "colour": "the colours of named things",
    "text": "a short writing in the picture, of one to five words, letter by letter and in double quotes",
}
"""Instruction of each dimension for the model."""


class BuildResult(NamedTuple):
    """A prompt set on disk."""

    path: Path
    summary: dict[str, Any]
    """Contents, rejected prompts and costs; interruptions do not change it."""
    num_calls: int
    """Answers of the endpoint in this run."""


def build_prompts(
    settings: NanoPromptSetSettings | TaxonomyPromptSetSettings, on_progress: OnProgress = lambda *_: None
) -> BuildResult:
    """Build the prompt set of a recipe, and resume a stopped build.

    Raises: EndpointError when a model does not answer; received answers are kept.
    """
    check_writable(settings.out, "out")
    benchmarks = Decontamination.from_files(settings.benchmarks)
    if isinstance(settings, NanoPromptSetSettings):
        return _write_prompt_set(settings, _generate_nano_prompts(settings), [], benchmarks, {}, 0)
    taxonomy = read_taxonomy(settings.taxonomy)
    with LLMBatch(settings.model, settings.out / "prompt_answers.jsonl") as llm_batch:
        builder = _PromptSetBuilder(settings, benchmarks, llm_batch, on_progress)
        limit = math.ceil(settings.count * (1 + settings.spare))
        try:
            while (num_missing := settings.count - len(builder.prompts)) and builder.num_subjects < limit:
                stop = min(limit, builder.num_subjects + num_missing)
                draw = settings.categories, settings.seed, settings.text_share
                builder.generate(subjects(taxonomy, *draw, builder.num_subjects, stop))
        finally:
            if llm_batch.num_calls:  # a model that never answers leaves no folder
                _write_recipe(settings)
    usage = {"answers": builder.num_tries} | token_costs(settings.model, *builder.tokens)
    return _write_prompt_set(
        settings, builder.prompts, builder.rejected, benchmarks, usage, llm_batch.num_calls
    )


def _write_recipe(settings: NanoPromptSetSettings | TaxonomyPromptSetSettings) -> None:
    settings.out.mkdir(parents=True, exist_ok=True)
    write_yaml(settings.model_dump(mode="json"), settings.out / "recipe.yaml")


def prompt_task(
    subject: PromptSubject, settings: TaxonomyPromptSetSettings, benchmarks: Decontamination
) -> LLMTask[GeneratedPrompt]:
    """Return the task of a language model for the prompt of a subject."""
    lines = [
        f"Subject: {subject.item.name}",
        f"Kind: {subject.item.kind} ({subject.item.category})",
        "Dimensions:",
        *(f"- {dimension}: {DIMENSION_INSTRUCTIONS[dimension]}" for dimension in subject.dimensions),
        "",
        f"Write a prompt of {settings.min_words} to {settings.max_words} words about the subject, named by "
        "these words, that states every dimension with something definite that a viewer can verify. For each "
        "dimension give a keypoint: a phrase of one to six words that stands word for word in the prompt.",
        "",
        'Answer with a JSON object: {"prompt": "...", "keypoints": ["...", ...]'
        + (', "text": "the writing without quotes"}' if "text" in subject.dimensions else "}"),
    ]

    def parse(answer: str) -> GeneratedPrompt:
        generated = parse_generated_prompt(answer)
        errors = validate_prompt(generated, subject, settings.min_words, settings.max_words)
        if errors:
            raise InvalidResponse(errors[0].reason, "; ".join(fault.message for fault in errors))
        if settings.overlap == "drop" and benchmarks.find_overlap(generated.prompt, settings.max_similarity):
            raise InvalidResponse(
                "benchmark_overlap", "it is too like a known prompt; describe another picture"
            )
        return generated

    return LLMTask(subject.name, chat_messages(PROMPT_SYSTEM_MESSAGE, "\n".join(lines)), parse)


def parse_generated_prompt(answer: str) -> GeneratedPrompt:
    """Return the prompt in an answer.

    Raises: InvalidResponse for anything but one JSON object with a prompt and its keypoints.
    """
    try:
        values = dict(parse_json_object(answer))
    except JsonRepairError as error:
        raise InvalidResponse("broken_json", str(error)) from error
    prompt, keypoints, text = (values.get(name) for name in ("prompt", "keypoints", "text"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidResponse("wrong_fields", '"prompt" is not a string with words')
    if not isinstance(keypoints, list) or not all(isinstance(one, str) and one.strip() for one in keypoints):
        raise InvalidResponse("wrong_fields", '"keypoints" is not a list of strings with words')
    if not isinstance(text, str | None):
        raise InvalidResponse("wrong_fields", '"text" is not a string')
    stripped = (text or "").strip().strip("\"'")
    return GeneratedPrompt(
        " ".join(prompt.split()), tuple(one.strip() for one in keypoints), stripped or None
    )


class _PromptSetBuilder:
    """A prompt set under construction, in the order of its subjects."""

    def __init__(
        self,
        settings: TaxonomyPromptSetSettings,
        benchmarks: Decontamination,
        llm_batch: LLMBatch,
        on_progress: OnProgress,
    ):
        self._settings, self._benchmarks, self._llm_batch, self._on_progress = (
            settings,
            benchmarks,
            llm_batch,
            on_progress,
        )
        self._index = NearDuplicateIndex()
        self.prompts: list[RLPrompt] = []
        self.rejected: list[dict[str, Any]] = []
        self.tokens = (0, 0)
        self.num_subjects = self.num_tries = 0

    def generate(self, batch: Sequence[PromptSubject]) -> None:
        """Generate prompts of the next subjects; add them once all answers are there."""
        tasks = (prompt_task(subject, self._settings, self._benchmarks) for subject in batch)
        results: dict[str, TaskResult[GeneratedPrompt]] = {}
        for name, outcome in self._llm_batch.run(tasks):
            results[name] = outcome
            self._on_progress("prompts", len(self.prompts) + len(results), self._settings.count)
        for subject in batch:
            self._add(subject, results[subject.name])
        self.num_subjects += len(batch)

    def _add(self, subject: PromptSubject, task_result: TaskResult[GeneratedPrompt]) -> None:
        prompt_tokens, completion_tokens = self.tokens
        self.tokens = (
            prompt_tokens + task_result.prompt_tokens,
            completion_tokens + task_result.completion_tokens,
        )
        self.num_tries += task_result.num_tries
        item, reason = subject.item, task_result.reason
        if task_result.result is not None:
            similarity, _ = self._index.nearest(task_result.result.prompt)
            reason = "near_duplicate" if similarity >= self._settings.max_similarity else ""
        if task_result.result is None or reason:
            self.rejected.append({"reason": reason, "subject": subject.name, "item": item.name})
            return
        prompt, keypoints, text = task_result.result
        self._index.add(prompt)
        text = text if "text" in subject.dimensions else None
        self.prompts.append(
            RLPrompt(
                prompt=prompt, category=item.category, item=item.name, dimensions=subject.dimensions,
                keypoints=keypoints, text=text,
            )
        )  # fmt: skip


def _generate_nano_prompts(settings: NanoPromptSetSettings) -> list[RLPrompt]:
    return nano_prompts(
        settings.count, settings.seed, settings.kinds, settings.dense_share, settings.new_share
    )


def _write_prompt_set(
    settings: NanoPromptSetSettings | TaxonomyPromptSetSettings,
    prompts: list[RLPrompt],
    rejected: list[dict[str, Any]],
    benchmarks: Decontamination,
    usage: dict[str, Any],
    num_calls: int,
) -> BuildResult:
    """Write a prompt set, its summary last."""
    if not prompts:
        reasons = Counter(one["reason"] for one in rejected)
        raise LensError(f"All prompts were rejected: {dict(reasons)}.")
    _write_recipe(settings)
    write_prompts(prompts, settings.prompts_file)
    lines = (json.dumps(one, ensure_ascii=False) for one in rejected)
    (settings.out / "fallen.jsonl").write_text("".join(f"{line}\n" for line in lines))
    # Prompts of the nano world differ by one object or colour: only the same words are an overlap.
    matches = (
        benchmarks.exact_match(one.prompt)
        if isinstance(settings, NanoPromptSetSettings)
        else benchmarks.find_overlap(one.prompt, settings.max_similarity)
        for one in prompts
    )
    pairs = zip(prompts, matches, strict=True)
    overlaps = [{"prompt": one.prompt, "benchmark": like} for one, like in pairs if like]
    summary = {
        "source": settings.source,
        "wanted": settings.count,
        "prompts": len(prompts),
        "fallen": dict(Counter(one["reason"] for one in rejected).most_common()),
        "by_category": dict(Counter(one.category for one in prompts)),
        "by_dimension": dict(Counter(each for one in prompts for each in one.dimensions)),
        "mean_words": round(sum(len(one.prompt.split()) for one in prompts) / len(prompts), 2),
        "benchmark_prompts": len(benchmarks),
        "overlaps": overlaps,
    } | usage
    write_summary(summary, settings.out / "summary.json")
    return BuildResult(settings.prompts_file, summary, num_calls)


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write a summary as JSON."""
    write_bytes_atomic(path, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
