"""The search for system prompts in a world whose truth is known: does it find the best, and does noise win.

Each row is a way to search, over the same seeds. A seed has its own prompts, rewriter and luck; budgets are
equal. Pictures are dice, so a search takes a second.

    python benchmarks/prompt_search.py [--seeds 10] [--pictures 2000] [--ways margin plain ...] [--noise]
    python benchmarks/prompt_search.py --ways gepa gepa-margin     (needs: pip install gepa==0.1.4)

winner: true score of what the search returned, with the standard error of the mean. leader: of the best one
by its selection score. best seen: of the truly best text that was drawn. false kept: of the proposals that
are truly no better than their parent, those that got into the archive. lost: of those that are truly better,
the ones that did not. noise won: searches whose leader is truly no better than the start, and those whose
winner is. curse: gain of the leader where it was chosen, less its true gain. found at: pictures until the
winner was in the archive. With --noise no rule of the rewriter helps, so that whatever seems better is noise.
"""

import argparse
import tempfile
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from lens.reasoner.search.archive import compare
from lens.reasoner.search.candidates import Candidate
from lens.reasoner.search.evaluation import Evaluator
from lens.reasoner.search.final import Finalist, compare_finalists, finalists_of, winner_of
from lens.reasoner.search.ledger import Ledger
from lens.reasoner.search.loop import search
from lens.reasoner.search.prompts import split_by_prompt
from lens.reasoner.search.proposal import (
    InvalidAnswer,
    failure_summary,
    parse_rewritten,
    rewrite_messages,
)
from lens.reasoner.search.settings import SearchSettings
from lens.reasoner.search.simulated import GAINS, KINDS, NO_GAINS, START, SimulatedWorld, true_score

WAYS: dict[str, dict[str, Any]] = {
    "margin": {},
    "plain": {"confidence": 0.5, "max_minibatches": 1},
    "plain-3": {"confidence": 0.5, "max_minibatches": 1, "minibatch": 3},
    "fewer-at-last": {"final": {"images_per_prompt": 2}},
    "strict": {"confidence": 0.95},
    "one-picture": {"images_per_prompt": 1, "splits": {"feedback": 80, "selection": 96, "test": 48},
                    "minibatch": 16},
    "all-parents": {"parent_confidence": 0.9999},
    "best-parent": {"parent_confidence": 0.5},
}  # fmt: skip
"""Ways to search with the loop of Lens, each with the settings that it changes."""
GEPA_WAYS = ("gepa", "gepa-margin")


class Compared(NamedTuple):
    """A proposal that was drawn, and whether it got into the archive."""

    parent: str
    text: str
    is_kept: bool


class Outcome(NamedTuple):
    """What one search did."""

    compared: list[Compared]
    finalists: list[Finalist]
    num_proposals: int
    pictures: int
    found_at: int

    def measures(self, gains: Sequence[float]) -> dict[str, float]:
        def true(text: str) -> float:
            return true_score(text, gains)

        start = true(START)
        leader, winner = self.finalists[min(1, len(self.finalists) - 1)], winner_of(self.finalists)
        leads, wins = true(leader.candidate.text), true(winner.candidate.text)
        better = [one for one in self.compared if true(one.text) > true(one.parent) + 1e-9]
        worse = [one for one in self.compared if one not in better]
        gain = leader.selection.value - self.finalists[0].selection.value
        return {
            "winner": wins, "leader": leads,
            "best seen": max([start, *(true(one.text) for one in self.compared)]),
            "proposals": self.num_proposals, "false": len(worse), "false kept": _num_kept(worse),
            "better": len(better), "lost": len(better) - _num_kept(better),
            "leader is noise": leader.candidate.number != 0 and leads <= start + 1e-9,
            "winner is noise": winner.candidate.number != 0 and wins <= start + 1e-9,
            "curse": gain - (leads - start), "pictures": self.pictures, "found at": self.found_at,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=2000, help="budget of each search")
    parser.add_argument("--ways", nargs="+", default=["margin", "plain"], choices=[*WAYS, *GEPA_WAYS])
    parser.add_argument("--noise", action="store_true", help="a world in which no rule helps")
    options = parser.parse_args()
    gains = NO_GAINS if options.noise else GAINS
    best = "\n".join(f"Mind the {kind} in way 0." for kind in KINDS)
    print(f"start {true_score(START):.3f}, best possible {true_score(best, gains):.3f}")
    heads = ("winner", "leader", "best seen", "proposals", "false kept", "lost", "noise won", "curse",
             "pictures", "found at")  # fmt: skip
    print(f"{'way':<14}" + "".join(f"{head:>13}" for head in heads))
    for way in options.ways:
        rows = [run(way, seed, options.pictures, gains).measures(gains) for seed in range(options.seeds)]
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        error = float(np.std([row["winner"] for row in rows], ddof=1)) / len(rows) ** 0.5
        total = {name: int(sum(row[name] for row in rows)) for name in rows[0]}
        cells = (
            f"{mean['winner']:.3f}+-{error:.3f}", f"{mean['leader']:.3f}", f"{mean['best seen']:.3f}",
            f"{mean['proposals']:.1f}", f"{total['false kept']}/{total['false']}",
            f"{total['lost']}/{total['better']}", f"{total['leader is noise']}, {total['winner is noise']}",
            f"{mean['curse']:+.3f}", f"{mean['pictures']:.0f}", f"{mean['found at']:.0f}",
        )  # fmt: skip
        print(f"{way:<14}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


def run(way: str, seed: int, pictures: int, gains: Sequence[float]) -> Outcome:
    """Search once."""
    with tempfile.TemporaryDirectory() as folder:
        changes = WAYS.get(way, {}) | {"budget": {"pictures": pictures}}
        settings = SearchSettings.of({"out": folder, "seed": seed, "concurrency": 1, **changes})
        if way in GEPA_WAYS:
            return run_gepa(settings, way == "gepa-margin", gains)
        world = SimulatedWorld(seed, gains=gains)
        result = search(settings, START, split_by_prompt(world.prompts(), settings.splits), world.parts())
        compared = [
            Compared(result.candidates[one.parent].text, one.text, one.status == "kept")
            for one in result.candidates
            if one.minibatch is not None and one.parent is not None
        ]
        number = result.winner.candidate.number
        found_at = sum(one.cost.pictures for one in result.candidates[: number + 1]) if number else 0
        num_proposals = len(result.candidates) - 1
        return Outcome(compared, result.finalists, num_proposals, result.spent.pictures, found_at)


def run_gepa(settings: SearchSettings, has_margin: bool, gains: Sequence[float]) -> Outcome:
    """Search once with the library gepa: the same prompts, pictures, rewriter and last comparison."""
    gepa, adapter = import_module("gepa"), import_module("gepa.core.adapter")  # no dependency of Lens

    world = SimulatedWorld(settings.seed, gains=gains)
    splits = split_by_prompt(world.prompts(), settings.splits)
    ledger = Ledger(settings.out / "ledger.jsonl")
    evaluator = Evaluator(settings, world.parts(), ledger)
    compared: list[Compared] = []
    num_asked = 0

    class Adapter:
        propose_new_texts = None

        def evaluate(self, batch: Any, candidate: dict[str, str], capture_traces: bool = False) -> Any:
            results = evaluator.evaluate(candidate["text"], batch)
            scores = [result.score for result in results]
            return adapter.EvaluationBatch(results, scores, results if capture_traces else None)

        def make_reflective_dataset(self, candidate: Any, batch: Any, components: Any) -> Any:
            return {"text": [{"summary": failure_summary(batch.trajectories)}]}

    class Acceptance:
        def should_accept(self, proposal: Any, state: Any) -> bool:
            before, after = np.array(proposal.subsample_scores_before), proposal.subsample_scores_after
            comparison = compare(before, np.array(after), settings.confidence)
            is_kept = comparison.bound > settings.margin if has_margin else comparison.gain > 0
            parent = state.program_candidates[proposal.parent_program_ids[0]]["text"]
            compared.append(Compared(parent, proposal.candidate["text"], is_kept))
            return is_kept

    def propose(candidate: dict[str, str], dataset: Any, components: Any) -> dict[str, str]:
        nonlocal num_asked
        num_asked += 1
        summary = dataset["text"][0]["summary"]
        answer = world.complete(
            rewrite_messages(candidate["text"], summary, [], 900), max_tokens=1, seed=num_asked
        )
        try:
            return {"text": parse_rewritten(answer).text}
        except InvalidAnswer:
            return candidate

    in_search = settings.budget.pictures - settings.num_final_pictures
    found = gepa.optimize(
        {"text": START}, list(splits.feedback), list(splits.selection), adapter=Adapter(),
        custom_candidate_proposer=propose, max_metric_calls=in_search // settings.images_per_prompt,
        reflection_minibatch_size=settings.minibatch if has_margin else 3, cache_evaluation=True,
        acceptance_criterion=Acceptance(), seed=settings.seed, logger=_Silent(),
    )  # fmt: skip
    candidates = [
        Candidate(number, 0, one["text"], selection=evaluator.evaluate(one["text"], splits.selection))
        for number, one in enumerate(found.candidates)
    ]
    finalists = compare_finalists(
        finalists_of(candidates, settings.final.candidates),
        lambda text: evaluator.evaluate(text, splits.test, "final"),
        settings.seed,
    )
    ledger.close()
    return Outcome(compared, finalists, num_asked, ledger.spent.pictures, 0)


class _Silent:
    def log(self, message: str) -> None:
        pass


def _num_kept(compared: Sequence[Compared]) -> int:
    return sum(one.is_kept for one in compared)


if __name__ == "__main__":
    main()
