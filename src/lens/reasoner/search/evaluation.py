"""Candidates of a search on prompts: requests are reasoned about, gated, drawn and scored.

What draws and scores is handed in. All candidates get the same seeds of reasoner and pictures for the same
prompt and phase, so that differences of their scores are those of paired pictures.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.files import write_bytes_atomic
from lens.reasoner.language_model import LanguageModel, ReasoningStoppedError
from lens.reasoner.outcome import Reasoned, Reasoner
from lens.reasoner.search.ledger import Ledger, Made, Spent, key_of, seed_of
from lens.reasoner.search.prompts import SearchPrompt, normalized
from lens.reasoner.search.settings import GateSettings, SearchSettings
from lens.reasoner.system_prompts import MAX_CHARACTERS

Phase = Literal["search", "final"]
RESUME = "Every answer and score is kept. To resume, run the same command again."
REFUSED = "the request is refused"
_MIN_COPIED_WORDS = 3
"""Shorter requests can stand in a system prompt by chance."""


class DrawRequest(NamedTuple):
    """A picture to draw and to score."""

    prompt: SearchPrompt
    drawn: str
    """The prompt that is drawn, from the reasoner."""
    seed: int


class PictureScore(NamedTuple):
    """How well a picture shows what its request asks for."""

    score: float
    """In [0, 1]; 1 where nothing failed."""
    failures: tuple[str, ...] = ()
    """What failed, in words; the rewriter reads them."""
    image: bytes | None = None
    """A small JPEG for the page."""


class SearchParts(NamedTuple):
    """What a search is made of. Names identify parts in the ledger: another part has another name."""

    reasoner_of: Callable[[str], Reasoner]
    """Returns the reasoner with a system prompt."""
    reasoner_name: str
    draw_and_score: Callable[[Sequence[DrawRequest]], Sequence[PictureScore]]
    """Raises LensError where a picture has no score; a missing score is no zero."""
    scorer_name: str
    """Of the model that draws, with its settings, and of the scorer."""
    rewriter: LanguageModel
    """Writes system prompts; does not score."""
    batch_size: int = 16
    """Pictures that are drawn at a time."""


class Picture(NamedTuple):
    """One scored picture."""

    drawn: str
    seed: int
    score: float
    failures: tuple[str, ...]
    file: str | None
    """Name of its JPEG in the folder `pictures`."""


class PromptResult(NamedTuple):
    """What became of one request."""

    prompt: SearchPrompt
    outcome: str
    """Of the reasoner."""
    broken: tuple[str, ...]
    """Checks of the reasoner that its last answer broke."""
    pictures: tuple[Picture, ...]

    @property
    def score(self) -> float:
        return sum(picture.score for picture in self.pictures) / len(self.pictures)


class Evaluator:
    """Reasons, draws and scores, each once."""

    def __init__(self, settings: SearchSettings, parts: SearchParts, ledger: Ledger):
        self._settings, self._parts, self._ledger = settings, parts, ledger

    def reason(self, text: str, prompts: Sequence[SearchPrompt], phase: Phase) -> list[Reasoned]:
        """Return what the reasoner with a system prompt answers to requests."""
        reasoner, hash_ = self._parts.reasoner_of(text), text_hash(text)

        def answer(prompt: SearchPrompt) -> Reasoned:
            seed = seed_of(self._settings.seed, "reason", phase, prompt.prompt)
            facts = ["reason", self._parts.reasoner_name, hash_, prompt.prompt, seed]
            return Reasoned.from_json(self._ledger.ask(facts, lambda: _ask(reasoner, prompt.prompt, seed)))

        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            try:
                return list(pool.map(answer, prompts))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def evaluate(
        self, text: str, prompts: Sequence[SearchPrompt], phase: Phase = "search"
    ) -> list[PromptResult]:
        """Return the scored pictures of a system prompt for each request."""
        settings, parts = self._settings, self._parts
        count = settings.images_per_prompt if phase == "search" else settings.final.images_per_prompt
        reasoned = self.reason(text, prompts, phase)
        requests = [
            DrawRequest(prompt, answer.prompt, seed_of(settings.seed, "picture", phase, prompt.key, index))
            for prompt, answer in zip(prompts, reasoned, strict=True)
            if answer.outcome != "refused"
            for index in range(count)
        ]
        facts = [["picture", parts.scorer_name, one.prompt.key, one.drawn, one.seed] for one in requests]
        scores = self._ledger.ask_together(
            facts, lambda places: self._draw([requests[place] for place in places]), parts.batch_size
        )
        pictures: dict[str, list[Picture]] = {prompt.prompt: [] for prompt in prompts}
        for one, score in zip(requests, scores, strict=True):
            values = score["score"], tuple(score["failures"]), score["file"]
            pictures[one.prompt.prompt].append(Picture(one.drawn, one.seed, *values))
        refused = (Picture("", 0, 0.0, (REFUSED,), None),)
        return [
            PromptResult(
                prompt, answer.outcome, broken_checks(answer), tuple(pictures[prompt.prompt]) or refused
            )
            for prompt, answer in zip(prompts, reasoned, strict=True)
        ]

    def _draw(self, requests: list[DrawRequest]) -> list[Made]:
        scores = self._parts.draw_and_score(requests)
        rows = []
        for request, score in zip(requests, scores, strict=True):
            file = None
            if score.image is not None:
                file = f"{key_of([self._parts.scorer_name, request.prompt.key, *request[1:]])[:20]}.jpg"
                folder = self._settings.out / "pictures"
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(folder / file, score.image)
            content = {"score": score.score, "failures": list(score.failures), "file": file}
            rows.append((content, Spent(pictures=1)))
        return rows


def broken_gate(
    text: str, reasoned: Sequence[Reasoned], gates: GateSettings, prompts: Sequence[SearchPrompt]
) -> str:
    """Return why a system prompt is not worth a picture, in words; empty if nothing speaks against it."""
    if (num_words := len(text.split())) > gates.max_words:
        return f"it has {num_words} words, more than {gates.max_words}"
    if len(text) > MAX_CHARACTERS:
        return f"it has {len(text)} characters, more than {MAX_CHARACTERS}"
    words = normalized(text)
    for one in prompts:
        request = normalized(one.prompt)
        if len(request.split()) >= _MIN_COPIED_WORDS and request in words:
            return f"it repeats a request, {one.prompt!r}"
    if refused := [one.original for one in reasoned if one.outcome == "refused"]:
        return f"{len(refused)} of {len(reasoned)} harmless requests are refused, such as {refused[0]!r}"
    failed = [one for one in reasoned if one.outcome == "failed"]
    if len(failed) > gates.max_failed_share * len(reasoned):
        reasons = Counter(rule for one in failed for rule in broken_checks(one) or (one.reason or "",))
        rules = ", ".join(f"{count} x {rule}" for rule, count in reasons.most_common(3))
        return f"{len(failed)} of {len(reasoned)} requests have no valid prompt ({rules})"
    return ""


def broken_checks(reasoned: Reasoned) -> tuple[str, ...]:
    """Return the checks that the last answer for a request broke, each with its detail."""
    return tuple(
        f"{check.rule}: {check.detail}" if check.detail else check.rule
        for check in reasoned.checks
        if not check.is_kept
    )


def scores_of(results: Sequence[PromptResult]) -> NDArray[np.float64]:
    """Return the mean score of each prompt."""
    return np.array([result.score for result in results])


def text_hash(text: str) -> str:
    """Return the hash of a system prompt, as the reasoner records it."""
    return hashlib.sha256(text.encode()).hexdigest()


def _ask(reasoner: Reasoner, request: str, seed: int) -> Made:
    answer = reasoner(request, seed=seed)
    if answer.is_unavailable:  # kept, it would be a bad score of the system prompt
        raise ReasoningStoppedError(f"The reasoner's model does not answer: {answer.reason} {RESUME}")
    usage = answer.usage
    return answer.to_json(), Spent(0, usage.prompt_tokens + usage.completion_tokens, usage.num_requests)
