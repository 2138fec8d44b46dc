"""Prompts of a run rewritten by a reasoner before they are drawn; scores use the published facts.

A prompt that the reasoner leaves, refuses or fails at is drawn as it was published, and counted.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from lens.benchmarks.base import BenchmarkPrompt
from lens.evals.suite.generation import OnProgress
from lens.evals.suite.run_folder import Rewriting
from lens.reasoner.outcome import Reasoned, Reasoner
from lens.reasoner.rewriter import RewritingReasoner

SCORER_FACTS = ("include", "exclude", "text", "questions")
"""Facts that a rewriter gets which sees the scorer's metadata."""


class RewrittenPrompts(NamedTuple):
    """Prompts to draw, and how they were made."""

    prompts: list[BenchmarkPrompt]
    rewriting: Rewriting


def rewrite_prompts(
    prompts: Sequence[BenchmarkPrompt], reasoner: Reasoner, on_progress: OnProgress
) -> RewrittenPrompts:
    """Ask the reasoner once about each prompt; a system prompt that sees metadata gets the scorer's facts."""
    system_prompt = reasoner.system_prompt if isinstance(reasoner, RewritingReasoner) else None
    sees_metadata = system_prompt is not None and system_prompt.sees_metadata
    found: list[BenchmarkPrompt] = []
    model = ""
    for number, prompt in enumerate(prompts):
        on_progress("rewriting prompts", number, len(prompts))
        if sees_metadata:
            assert isinstance(reasoner, RewritingReasoner)
            answer = reasoner(prompt.prompt, metadata=_metadata(prompt))
        else:
            answer = reasoner(prompt.prompt)
        model = answer.model or model
        drawn = answer.prompt if answer.outcome == "refined" else prompt.prompt
        facts = prompt.facts | {"rewriting": _record(prompt, answer)}
        found.append(prompt._replace(prompt=drawn, facts=facts))
    on_progress("rewriting prompts", len(prompts), len(prompts))
    name, digest = (system_prompt.name, system_prompt.hash) if system_prompt else ("rules", "")
    return RewrittenPrompts(
        found,
        Rewriting(model=model, system_prompt=name, system_prompt_hash=digest, sees_metadata=sees_metadata),
    )


def _metadata(prompt: BenchmarkPrompt) -> str:
    facts = {name: prompt.facts[name] for name in SCORER_FACTS if prompt.facts.get(name)}
    return json.dumps(facts, ensure_ascii=False)


def _record(prompt: BenchmarkPrompt, answer: Reasoned) -> dict[str, Any]:
    return {"original": prompt.prompt, "outcome": answer.outcome, "reason": answer.reason}
