"""Builds a set of prompts: asked for, checked, asked for again, and in the same order whatever came first.

A set is a file of prompts, a summary, and what fell with the reason. Paper: Lens report, post-training.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lens.config import write_yaml
from lens.errors import LensError
from lens.llm.batch import Asking, Outcome, Task, Unfit, asked_by, cost_of
from lens.llm.json_repair import BrokenJson, json_object
from lens.rl.prompts.dataset import RLPrompt, write_prompts
from lens.rl.prompts.nano import nano_prompts
from lens.rl.prompts.settings import NanoSet, TaxonomySet
from lens.rl.prompts.taxonomy import Subject, read_taxonomy, subjects
from lens.rl.prompts.validation import Benchmarks, Similar, Written, faults_of

OnProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

SYSTEM = (
    "You write prompts for a text-to-image model. A prompt is one English paragraph that describes one "
    "picture, as a photograph would show it unless its subject is drawn by nature. You answer with one JSON "
    "object and nothing else."
)
ASKED = {
    "attribute": "a property of the subject that can be seen, such as material, shape, size, age or state",
    "spatial": "where things are in relation to one another, such as to the left of, behind or inside",
    "count": "an exact number of some things, written as a word",
    "interaction": "what the subject does with somebody or something, or what is done with it",
    "colour": "the colours of named things",
    "text": "a short writing in the picture, of one to five words, letter by letter and in double quotes",
}
"""What a model is told about each dimension."""


class Built(NamedTuple):
    """A set on disk."""

    path: Path
    summary: dict[str, Any]
    """What is in it, what fell, what it cost: the same however often it was interrupted."""
    num_calls: int
    """Answers that this run was given."""


def build_prompts(settings: NanoSet | TaxonomySet, on_progress: OnProgress = lambda *_: None) -> Built:
    """Build the set of a recipe, going on with what is in its folder.

    Raises: Unanswered when a model does not answer; every answer that came is kept.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    write_yaml(settings.model_dump(mode="json"), settings.out / "recipe.yaml")
    benchmarks = Benchmarks.of(settings.benchmarks)
    if isinstance(settings, NanoSet):
        return _finished(settings, _nano(settings), [], benchmarks, {}, 0)
    known = read_taxonomy(settings.taxonomy)
    with Asking(settings.model, settings.out / "prompt_answers.jsonl") as asking:
        writing = _Writing(settings, benchmarks, asking, on_progress)
        limit = math.ceil(settings.count * (1 + settings.spare))
        while (wanted := settings.count - len(writing.prompts)) and writing.num_asked < limit:
            stop = min(limit, writing.num_asked + wanted)
            draw = settings.categories, settings.seed, settings.text_share
            writing.go_on(subjects(known, *draw, writing.num_asked, stop))
    facts = {"answers": writing.num_tries} | cost_of(settings.model, *writing.tokens)
    return _finished(settings, writing.prompts, writing.fallen, benchmarks, facts, asking.num_calls)


def task_of(subject: Subject, settings: TaxonomySet, benchmarks: Benchmarks) -> Task[Written]:
    """Return what a model is asked for a subject, and how its answer is read."""
    lines = [
        f"Subject: {subject.item.name}",
        f"Kind: {subject.item.kind} ({subject.item.category})",
        "Dimensions:",
        *(f"- {dimension}: {ASKED[dimension]}" for dimension in subject.dimensions),
        "",
        f"Write a prompt of {settings.min_words} to {settings.max_words} words about the subject, named by "
        "these words, that states every dimension with something definite that a viewer can verify. For each "
        "dimension give a keypoint: a phrase of one to six words that stands word for word in the prompt.",
        "",
        'Answer with a JSON object: {"prompt": "...", "keypoints": ["...", ...]'
        + (', "text": "the writing without quotes"}' if "text" in subject.dimensions else "}"),
    ]

    def read(answer: str) -> Written:
        written = read_written(answer)
        faults = faults_of(written, subject, settings.min_words, settings.max_words)
        if faults:
            raise Unfit(faults[0].reason, "; ".join(fault.told for fault in faults))
        if settings.overlap == "drop" and benchmarks.overlap(written.prompt, settings.max_similarity):
            raise Unfit("benchmark_overlap", "it is too like a known prompt; describe another picture")
        return written

    return Task(subject.name, asked_by(SYSTEM, "\n".join(lines)), read)


def read_written(answer: str) -> Written:
    """Return the prompt in an answer.

    Raises: Unfit for anything but one JSON object with a prompt and its keypoints.
    """
    try:
        values = dict(json_object(answer))
    except BrokenJson as error:
        raise Unfit("broken_json", str(error)) from error
    prompt, keypoints, text = (values.get(name) for name in ("prompt", "keypoints", "text"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise Unfit("wrong_fields", '"prompt" is not a string with words')
    if not isinstance(keypoints, list) or not all(isinstance(one, str) and one.strip() for one in keypoints):
        raise Unfit("wrong_fields", '"keypoints" is not a list of strings with words')
    if not isinstance(text, str | None):
        raise Unfit("wrong_fields", '"text" is not a string')
    stripped = (text or "").strip().strip("\"'")
    return Written(" ".join(prompt.split()), tuple(one.strip() for one in keypoints), stripped or None)


class _Writing:
    """A set while it grows, in the order of its subjects."""

    def __init__(
        self, settings: TaxonomySet, benchmarks: Benchmarks, asking: Asking, on_progress: OnProgress
    ):
        self._settings, self._benchmarks, self._asking, self._tell = settings, benchmarks, asking, on_progress
        self._similar = Similar()
        self.prompts: list[RLPrompt] = []
        self.fallen: list[dict[str, Any]] = []
        self.tokens = (0, 0)
        self.num_asked = self.num_tries = 0

    def go_on(self, batch: Sequence[Subject]) -> None:
        """Ask about the next subjects, and take in what came once all are there."""
        tasks = (task_of(subject, self._settings, self._benchmarks) for subject in batch)
        outcomes: dict[str, Outcome[Written]] = {}
        for name, outcome in self._asking.outcomes(tasks):
            outcomes[name] = outcome
            self._tell("prompts", len(self.prompts) + len(outcomes), self._settings.count)
        for subject in batch:
            self._take(subject, outcomes[subject.name])
        self.num_asked += len(batch)

    def _take(self, subject: Subject, outcome: Outcome[Written]) -> None:
        asked, written = self.tokens
        self.tokens = asked + outcome.prompt_tokens, written + outcome.completion_tokens
        self.num_tries += outcome.tries
        item, reason = subject.item, outcome.reason
        if outcome.result is not None:
            similarity, _ = self._similar.nearest(outcome.result.prompt)
            reason = "near_duplicate" if similarity >= self._settings.max_similarity else ""
        if outcome.result is None or reason:
            self.fallen.append({"reason": reason, "subject": subject.name, "item": item.name})
            return
        prompt, keypoints, text = outcome.result
        self._similar.add(prompt)
        text = text if "text" in subject.dimensions else None
        self.prompts.append(
            RLPrompt(
                prompt=prompt, category=item.category, item=item.name, dimensions=subject.dimensions,
                keypoints=keypoints, text=text,
            )
        )  # fmt: skip


def _nano(settings: NanoSet) -> list[RLPrompt]:
    return nano_prompts(
        settings.count, settings.seed, settings.kinds, settings.dense_share, settings.new_share
    )


def _finished(
    settings: NanoSet | TaxonomySet,
    prompts: list[RLPrompt],
    fallen: list[dict[str, Any]],
    benchmarks: Benchmarks,
    facts: dict[str, Any],
    num_calls: int,
) -> Built:
    """Write a set; the summary last."""
    if not prompts:
        reasons = Counter(one["reason"] for one in fallen)
        raise LensError(f"No prompt came out right; what was wrong with them: {dict(reasons)}.")
    write_prompts(prompts, settings.prompts_file)
    lines = (json.dumps(one, ensure_ascii=False) for one in fallen)
    (settings.out / "fallen.jsonl").write_text("".join(f"{line}\n" for line in lines))
    # In the nano world a test prompt differs by one thing or colour: only the same words are an overlap.
    likes = (
        benchmarks.same(one.prompt)
        if isinstance(settings, NanoSet)
        else benchmarks.overlap(one.prompt, settings.max_similarity)
        for one in prompts
    )
    pairs = zip(prompts, likes, strict=True)
    overlaps = [{"prompt": one.prompt, "benchmark": like} for one, like in pairs if like]
    summary = {
        "source": settings.source,
        "wanted": settings.count,
        "prompts": len(prompts),
        "fallen": dict(Counter(one["reason"] for one in fallen).most_common()),
        "by_category": dict(Counter(one.category for one in prompts)),
        "by_dimension": dict(Counter(each for one in prompts for each in one.dimensions)),
        "mean_words": round(sum(len(one.prompt.split()) for one in prompts) / len(prompts), 2),
        "benchmark_prompts": len(benchmarks),
        "overlaps": overlaps,
    } | facts
    write_summary(summary, settings.out / "summary.json")
    return Built(settings.prompts_file, summary, num_calls)


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write a summary, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)
