"""The search: draw, tell the failures in words, have the system prompt rewritten, keep what is better.

A proposal has to pass gates before a picture, beat its parent on a minibatch by a paired bound, and is then
drawn on the whole selection split. Every step depends on the settings, on the number of the proposal and on
the answers in the ledger alone, so that a stopped search resumes exactly.
"""

import json
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.llm.client import ChatError, ChatResponse
from lens.reasoner.language_model import Message, ReasoningStoppedError
from lens.reasoner.search.archive import Comparison, compare, parent_weights
from lens.reasoner.search.candidates import Candidate, write_log
from lens.reasoner.search.evaluation import (
    RESUME,
    Evaluator,
    PromptResult,
    SearchParts,
    broken_gate,
    scores_of,
)
from lens.reasoner.search.final import Finalist, compare_finalists, finalists_of, winner_of
from lens.reasoner.search.ledger import Ledger, Made, Spent, key_of, seed_of
from lens.reasoner.search.prompts import SearchPrompt, Splits
from lens.reasoner.search.proposal import (
    MAX_REQUESTS,
    InvalidAnswer,
    Rewritten,
    Tried,
    failure_summary,
    parse_rewritten,
    repair_messages,
    rewrite_messages,
)
from lens.reasoner.search.settings import SearchSettings
from lens.text_files import TextError, parse_json

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


class SearchResult(NamedTuple):
    """What a search found."""

    settings: SearchSettings
    candidates: list[Candidate]
    finalists: list[Finalist]
    """The start, then the best candidates by their selection scores."""
    stopped_by: str
    spent: Spent
    num_calls: int
    """Answers and pictures that were not in the ledger already."""

    @property
    def winner(self) -> Finalist:
        return winner_of(self.finalists)


def search(
    settings: SearchSettings, start: str, splits: Splits, parts: SearchParts,
    on_progress: OnProgress = lambda *_: None,
) -> SearchResult:  # fmt: skip
    """Search for a better system prompt than `start`, or resume the search of the folder.

    Writes `candidates.jsonl` as it goes, and `best.txt` at the end.
    Raises: SettingError for a folder with another search; ReasoningStoppedError where no answer comes.
    """
    _claim_folder(settings, start, splits, parts)
    ledger = Ledger(settings.out / "ledger.jsonl")
    try:
        return _Search(settings, splits, parts, ledger, on_progress).run(start)
    finally:
        ledger.close()


class _Search:
    def __init__(
        self, settings: SearchSettings, splits: Splits, parts: SearchParts, ledger: Ledger,
        on_progress: OnProgress,
    ):  # fmt: skip
        self.settings, self.splits, self.parts, self.ledger = settings, splits, parts, ledger
        self.on_progress = on_progress
        self.evaluator = Evaluator(settings, parts, ledger)
        self.candidates: list[Candidate] = []

    @property
    def archive(self) -> list[Candidate]:
        return [one for one in self.candidates if one.selection]

    def run(self, start: str) -> SearchResult:
        first = Candidate(0, None, start)
        self._add(first, lambda: self._select(first))
        while not (stopped_by := self._end()):
            number = len(self.candidates)
            parent = self._draw_parent(number)
            candidate = Candidate(number, parent.number, status="kept")
            self._add(candidate, lambda one=candidate, above=parent: self._propose(one, above))
        self.on_progress("last comparison", self.ledger.spent.pictures, self.settings.budget.pictures)
        finalists = compare_finalists(
            finalists_of(self.archive, self.settings.final.candidates),
            lambda text: self.evaluator.evaluate(text, self.splits.test, "final"),
            self.settings.seed,
        )
        best = winner_of(finalists).candidate
        write_bytes_atomic(self.settings.out / "best.txt", best.text.encode())
        return SearchResult(
            self.settings, self.candidates, finalists, stopped_by, self.ledger.spent, self.ledger.num_calls
        )

    def _add(self, candidate: Candidate, fill: Callable[[], None]) -> None:
        before = self.ledger.spent
        fill()
        candidate.cost = self.ledger.spent.plus(before, sign=-1)
        self.candidates.append(candidate)
        write_log(self.candidates, self.settings.out / "candidates.jsonl")
        score = candidate.selection_score
        told = f"selection score {score:.3f}" if score is not None else candidate.reason
        logger.info("Candidate %d (%s): %s", candidate.number, candidate.status, told)
        self.on_progress("search", self.ledger.spent.pictures, self.settings.budget.pictures)

    def _end(self) -> str:
        """Return what ends the search; empty while it goes on."""
        settings, spent, num_proposals = self.settings, self.ledger.spent, len(self.candidates) - 1
        if num_proposals >= settings.budget.proposals:
            return "proposals"
        needed = settings.num_proposal_pictures + settings.num_final_pictures
        if spent.pictures + needed > settings.budget.pictures:
            return "pictures"
        return "tokens" if spent.tokens >= settings.budget.tokens else ""

    def _draw_parent(self, number: int) -> Candidate:
        archive = self.archive
        weights = parent_weights(np.stack([one.scores for one in archive]), self.settings.parent_confidence)
        rng = np.random.default_rng([self.settings.seed, number])
        return archive[int(rng.choice(len(archive), p=weights))]

    def _propose(self, candidate: Candidate, parent: Candidate) -> None:
        """Fill in a candidate as far as it gets."""
        settings, number = self.settings, candidate.number
        order = np.random.default_rng([settings.seed, number, 1]).permutation(len(self.splits.feedback))
        shuffled = [self.splits.feedback[place] for place in order]
        first = shuffled[: settings.minibatch]
        before = self.evaluator.evaluate(parent.text, first)
        if all(result.score == 1 for result in before):
            candidate.status, candidate.reason = "not better", "nothing failed on its minibatch"
            return
        try:
            rewritten = self._rewrite(parent, before, number)
        except InvalidAnswer as error:
            candidate.status, candidate.reason = "invalid", f"the rewriter's answer: {error}"
            return
        candidate.text, candidate.change = rewritten
        if twin := next((one for one in self.candidates if one.text == candidate.text), None):
            candidate.status, candidate.reason = "repeated", f"the text of candidate {twin.number}"
            return
        if self._is_gated(candidate, first):
            return
        candidate.minibatch = comparison = self._race(candidate.text, parent.text, shuffled)
        if comparison.bound <= settings.margin:
            told = f"{comparison.before:.3f} to {comparison.after:.3f}"
            candidate.status, candidate.reason = "not better", f"{told} on {comparison.num_prompts} prompts"
        elif not self._is_gated(candidate, self.splits.selection):
            self._select(candidate)

    def _race(self, text: str, parent: str, prompts: Sequence[SearchPrompt]) -> Comparison:
        """Return a comparison with the parent: on one minibatch, or on more while the gain is not sure."""
        settings = self.settings
        for number in range(1, settings.max_minibatches + 1):
            some = prompts[: number * settings.minibatch]
            before, after = (scores_of(self.evaluator.evaluate(one, some)) for one in (parent, text))
            comparison = compare(before, after, settings.confidence)
            is_sure = comparison.bound > settings.margin
            if is_sure or comparison.gain <= settings.margin or len(some) == len(prompts):
                break
        return comparison

    def _select(self, candidate: Candidate) -> None:
        candidate.selection = self.evaluator.evaluate(candidate.text, self.splits.selection)

    def _is_gated(self, candidate: Candidate, prompts: Sequence[SearchPrompt]) -> bool:
        reasoned = self.evaluator.reason(candidate.text, prompts, "search")
        everything = [prompt for split in self.splits for prompt in split]
        reason = broken_gate(candidate.text, reasoned, self.settings.gates, everything)
        if reason:
            candidate.status, candidate.reason = "gated", reason
        return bool(reason)

    def _rewrite(self, parent: Candidate, results: list[PromptResult], number: int) -> Rewritten:
        """Return a change of a system prompt. Raises: InvalidAnswer after the last try."""
        tried = [
            Tried(one.change, one.reason or f"{parent.selection_score:.3f} to {one.selection_score:.3f}")
            for one in self.candidates
            if one.parent == parent.number and one.change
        ]
        messages = rewrite_messages(
            parent.text, failure_summary(results), tried, self.settings.gates.max_words
        )
        problem = InvalidAnswer("it was not asked")
        for attempt in range(MAX_REQUESTS):
            response = self._ask_rewriter(messages, seed_of(self.settings.seed, "rewrite", number, attempt))
            try:
                return parse_rewritten(response)
            except InvalidAnswer as error:
                problem = error
            messages = [*messages, *repair_messages(response.text, str(problem))]
        raise problem

    def _ask_rewriter(self, messages: list[Message], seed: int) -> ChatResponse:
        model, max_tokens = self.parts.rewriter, self.settings.rewriter_tokens

        def call() -> Made:
            try:
                answer = model.complete(messages, max_tokens=max_tokens, seed=seed)
            except ChatError as error:
                raise ReasoningStoppedError(f"The rewriter does not answer: {error} {RESUME}") from error
            return answer._asdict(), Spent(0, answer.prompt_tokens + answer.completion_tokens, 1)

        return ChatResponse(**self.ledger.ask(["rewrite", model.name, messages, max_tokens, seed], call))


def _claim_folder(settings: SearchSettings, start: str, splits: Splits, parts: SearchParts) -> None:
    """Write what the search is into its folder, or check that it is the one that is there.

    A larger budget continues the same search.
    """
    facts = {
        "settings": settings.model_dump(mode="json", include=set(SearchSettings.model_fields) - _MAY_CHANGE),
        "start": start, "prompts": splits.key, "reasoner": parts.reasoner_name,
        "scorer": parts.scorer_name, "rewriter": parts.rewriter.name, "batch_size": parts.batch_size,
    }  # fmt: skip
    values = {name: key_of([value]) for name, value in facts.items()}
    path = settings.out / "search.json"
    if not path.is_file():
        settings.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(facts | {"hashes": values}, indent=1, ensure_ascii=False)
        write_bytes_atomic(path, text.encode())
        return
    try:
        there = parse_json(path.read_bytes())["hashes"]
    except (TextError, LookupError, TypeError) as error:
        needs = "a folder whose search.json is that of a search"
        raise SettingError("out", str(settings.out), needs, "Name another folder.") from error
    if changed := [name for name, value in values.items() if there.get(name) != value]:
        needs = f"a folder without another search; it differs in {', '.join(changed)}"
        raise SettingError("out", str(settings.out), needs, "Name another folder, or delete this one.")


_MAY_CHANGE = {"out", "budget", "concurrency"}
"""Settings that a search may resume with."""
