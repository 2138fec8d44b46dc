"""A world whose truth is known, to measure a search: a scripted rewriter, and pictures that are dice.

A system prompt is a list of rules. Each rule changes the chance of one kind of prompt by a known amount, so
the true score of every system prompt is known. Two candidates share a part of the luck of a picture, as
pictures of one seed do.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from statistics import NormalDist

from lens.llm.client import ChatResponse
from lens.reasoner.language_model import Message
from lens.reasoner.outcome import Check, Reasoned, Reasoner, Usage
from lens.reasoner.search.evaluation import DrawRequest, PictureScore, SearchParts, text_hash
from lens.reasoner.search.prompts import SearchPrompt

KINDS = ("counts", "colours", "places", "texts")
GAINS = (0.4, 0.2, 0.0, 0.0, -0.2)
"""What a rule adds to the chance of its kind, by its variant; where rules help, the best one counts."""
NO_GAINS = (0.0, 0.0, 0.0, 0.0, -0.2)
"""Those of a world in which no rule helps, so that whatever seems better is noise."""
CHANCES = (0.1, 0.6)
"""Chances of pictures without rules, least and largest; they are evenly spread."""
START = "Describe one scene."
BREAKS = "Quote nothing."
"""A rule that makes every answer of the reasoner invalid."""
_RULE = re.compile(r"^Mind the (\w+) in way (\d+)\.$", re.MULTILINE)
_FAILURE = re.compile(r"^- (\d+) x the (\w+) are wrong", re.MULTILINE)
_NORMAL = NormalDist()


class SimulatedWorld:
    """Pictures, reasoner and rewriter. `shared` is the part of the luck that all candidates share."""

    def __init__(self, seed: int = 0, shared: float = 0.5, gains: Sequence[float] = GAINS):
        self._seed, self._shared, self._gains = seed, shared, tuple(gains)
        self._texts: dict[str, str] = {}

    def prompts(self) -> list[SearchPrompt]:
        """Return prompts of which the kinds alternate."""
        return [
            SearchPrompt(f"request {self._seed} {number}", KINDS[number % len(KINDS)], {"number": number})
            for number in range(1000)
        ]

    def parts(self, batch_size: int = 16) -> SearchParts:
        """Return what a search is made of."""
        name = f"simulated {self._seed} {self._shared:g} {self._gains}"
        return SearchParts(self.reasoner_of, name, self.draw_and_score, name, self, batch_size)

    @property
    def name(self) -> str:
        """Name of the rewriter."""
        return f"scripted {self._seed}"

    def reasoner_of(self, text: str) -> Reasoner:
        """Return a reasoner whose answers tell the system prompt."""
        hash_ = text_hash(text)
        self._texts[hash_[:12]] = text

        def reason(prompt: str, *, seed: int = 0, should_stop: Callable[[], bool] | None = None) -> Reasoned:
            usage = Usage(1, 80, 20)
            if BREAKS in text:
                checks = (Check("quoted_text", False, "a quote is missing"),)
                return Reasoned("failed", prompt, prompt, "a rule is broken", checks=checks, usage=usage)
            return Reasoned("refined", f"{prompt} by {hash_[:12]}", prompt, usage=usage)

        return reason

    def draw_and_score(self, requests: Sequence[DrawRequest]) -> list[PictureScore]:
        """Return a score of 0 or 1 for each picture."""
        return [self._picture(request) for request in requests]

    def complete(
        self, messages: Sequence[Message], *, max_tokens: int, seed: int, choices: Sequence[str] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> ChatResponse:  # fmt: skip
        """Return a change: a rule about what fails, mostly for the most frequent failure, of any variant.

        One in twenty has another form, and one in twenty makes the reasoner's answers invalid.
        """
        text = messages[1]["content"]
        current = text[text.index(">") + 1 : text.index("</system_prompt>")].strip()
        failures = [kind for count, kind in _FAILURE.findall(text) for _ in range(int(count) ** 2)]
        luck = [_uniform(self._seed, "rewrite", seed, place) for place in range(3)]
        if luck[0] < 0.05:
            return ChatResponse("I cannot find anything to change.", False, False, 900, 20)
        kind = failures[int(luck[1] * len(failures))] if failures else KINDS[0]
        rule = BREAKS if luck[0] < 0.1 else f"Mind the {kind} in way {int(luck[2] * len(GAINS))}."
        new = current if rule in current else f"{current}\n{rule}"
        answer = f"<change>{rule}</change>\n<system_prompt>\n{new}\n</system_prompt>"
        return ChatResponse(answer, False, False, 900, 200)

    def _picture(self, request: DrawRequest) -> PictureScore:
        kind, number = request.prompt.kind, request.prompt.facts["number"]
        low, high = CHANCES
        chance = low + (high - low) * _uniform(self._seed, "chance", number)
        chance += rule_gains(self._texts.get(request.drawn[-12:], START), self._gains)[kind]
        luck = self._shared**0.5 * _normal(self._seed, request.prompt.key, request.seed)
        luck += (1 - self._shared) ** 0.5 * _normal(self._seed, request.drawn, request.seed)
        is_passed = _NORMAL.cdf(luck) < chance
        return PictureScore(float(is_passed), () if is_passed else (f"the {kind} are wrong",))


def true_score(text: str, gains: Sequence[float] = GAINS) -> float:
    """Return the expected score of a system prompt over all prompts and pictures."""
    return sum(CHANCES) / 2 + sum(rule_gains(text, gains).values()) / len(KINDS)


def rule_gains(text: str, gains: Sequence[float] = GAINS) -> dict[str, float]:
    """Return what the rules of a system prompt add to the chance of each kind."""
    found = {}
    for kind in KINDS:
        own = [gains[int(variant)] for name, variant in set(_RULE.findall(text)) if name == kind]
        found[kind] = max([0.0, *own]) + sum(gain for gain in own if gain < 0)
    return found


def _uniform(*facts: object) -> float:
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


def _normal(*facts: object) -> float:
    return _NORMAL.inv_cdf(_uniform(*facts))
