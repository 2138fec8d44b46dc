"""Proposals: what failed is told in words, and a language model writes the next system prompt.

The words come from pictures and checks by program. Knows nothing of how candidates are chosen.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lens.llm.client import ChatResponse
from lens.reasoner.language_model import Message
from lens.reasoner.search.evaluation import PromptResult

MAX_EXAMPLES, MAX_REASONS, MAX_TRIED = 6, 8, 4
MAX_REQUESTS = 2
"""Of the rewriter for one proposal: its answer, and one repair of it."""

INSTRUCTIONS = """\
You improve a system prompt. It tells a language model how to rewrite the request of a user into one prompt \
for an image generator. You get the system prompt, what failed in pictures that were drawn with it, and \
changes that were tried before. Find what the failures have in common. Change the system prompt so that they \
become rarer.

Rules:
- Change what the failures call for, and keep the rest. Remove what does not help.
- State general rules. Never name requests of the examples: the requests of users are others.
- What the user said stays: quoted text letter by letter, numbers, colours, and the language of the request.
- The answer of the model that reads your system prompt must be the prompt for the generator, nothing else.
- At most {max_words} words.

Answer in this form:
<change>One sentence: what you changed, and which failure it is for.</change>
<system_prompt>
The whole new system prompt.
</system_prompt>"""

_ANSWER = re.compile(r"<system_prompt>\s*(.*?)\s*</system_prompt>", re.DOTALL)
_CHANGE = re.compile(r"<change>\s*(.*?)\s*</change>", re.DOTALL)


class Tried(NamedTuple):
    """An earlier change of the same system prompt."""

    change: str
    result: str
    """What became of it, in words."""


class Rewritten(NamedTuple):
    """A new system prompt."""

    text: str
    change: str
    """What was changed, in the words of the rewriter."""


class InvalidAnswer(Exception):
    """An answer of the rewriter that holds no system prompt; the message says why."""


def failure_summary(results: Sequence[PromptResult]) -> str:
    """Return in words what failed: how often, for which reasons, and examples."""
    pictures = [(result, picture) for result in results for picture in result.pictures]
    failed = [(result, picture) for result, picture in pictures if picture.score < 1]
    lines = [f"{len(failed)} of {len(pictures)} pictures failed."]
    reasons = Counter(reason for _, picture in failed for reason in picture.failures)
    lines += [f"- {count} x {reason}" for reason, count in reasons.most_common(MAX_REASONS)]
    broken = Counter(check for result in results for check in result.broken)
    if broken:
        lines.append("Rules that the rewritten prompts broke, so that the request was drawn as it was:")
        lines += [f"- {count} x {check}" for check, count in broken.most_common(MAX_REASONS)]
    examples = {result.prompt.prompt: (result, picture) for result, picture in reversed(failed)}
    for result, picture in [*examples.values()][::-1][:MAX_EXAMPLES]:
        lines += ["", f"Request: {result.prompt.prompt}", f"Drawn from: {picture.drawn or 'nothing'}"]
        failures = "; ".join(picture.failures) or f"score {picture.score:.2f}"
        lines.append(f"Failed: {failures}")
    return "\n".join(lines)


def rewrite_messages(text: str, summary: str, tried: Sequence[Tried], max_words: int) -> list[Message]:
    """Return the conversation that asks for the next system prompt."""
    parts = [f"<system_prompt>\n{text}\n</system_prompt>", f"<failures>\n{summary}\n</failures>"]
    if tried:
        lines = "\n".join(f"- {one.change} Result: {one.result}" for one in tried[-MAX_TRIED:])
        parts.append(f"<tried>\n{lines}\n</tried>")
    return [
        {"role": "system", "content": INSTRUCTIONS.format(max_words=max_words)},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def repair_messages(answer: str, problem: str) -> list[Message]:
    """Return what continues a conversation after an answer that cannot be used."""
    wording = f"That cannot be used: {problem}. Answer again, whole, in the form that was asked for."
    return [{"role": "assistant", "content": answer or "(nothing)"}, {"role": "user", "content": wording}]


def parse_rewritten(response: ChatResponse) -> Rewritten:
    """Return the system prompt of an answer; what a model thinks before is ignored.

    Raises: InvalidAnswer.
    """
    if response.is_refused:
        raise InvalidAnswer("it was declined")
    texts = _ANSWER.findall(response.text)
    if not texts or not texts[-1]:
        cut = "it was cut at the limit of its length and " if response.is_cut else "it "
        raise InvalidAnswer(f"{cut}has no text between <system_prompt> and </system_prompt>")
    changes = _CHANGE.findall(response.text)
    return Rewritten(texts[-1], " ".join(changes[-1].split()) if changes else "")
