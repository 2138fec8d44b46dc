"""The search for a system prompt, in a world whose truth is known."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lens.errors import SettingError
from lens.llm.client import ChatError
from lens.reasoner.language_model import ReasoningStoppedError
from lens.reasoner.outcome import Reasoned
from lens.reasoner.search.loop import search
from lens.reasoner.search.prompts import split_by_prompt
from lens.reasoner.search.result import format_result, result_to_dict
from lens.reasoner.search.settings import SearchSettings
from lens.reasoner.search.simulated import BREAKS, START, SimulatedWorld, true_score

SMALL = {
    "splits": {"feedback": 16, "selection": 24, "test": 24}, "final": {"images_per_prompt": 2},
    "budget": {"pictures": 900, "proposals": 24}, "concurrency": 1,
}  # fmt: skip


SEED = 2
"""Of a world in which the small budget is enough to find something."""


class Killed(BaseException):
    """The end of a process."""


class Counting:
    """A simulated world that keeps what was asked of it and answered, and is killed before some calls."""

    def __init__(self, seed: int = SEED, killed_before: tuple[int, ...] = ()):
        self.world, self.killed_before, self.num_calls = SimulatedWorld(seed), killed_before, 0
        self.answered: list[object] = []

    def parts(self):
        def counted(name, facts, call):
            self.num_calls += 1
            if self.num_calls in self.killed_before:
                raise Killed
            result = call()
            self.answered.append((name, *facts))
            return result

        parts, world = self.world.parts(), self.world

        class Rewriter:
            name = world.name

            def complete(self, messages, *, max_tokens, seed, choices=(), should_stop=None):
                facts = (json.dumps(messages), seed)
                return counted(
                    "rewrite", facts, lambda: world.complete(messages, max_tokens=max_tokens, seed=seed)
                )

        def reasoner_of(text):
            reasoner = world.reasoner_of(text)
            return lambda prompt, *, seed=0, should_stop=None: counted(
                "reason", (text, prompt, seed), lambda: reasoner(prompt, seed=seed)
            )

        def draw_and_score(requests):
            facts = tuple((one.prompt.prompt, one.drawn, one.seed) for one in requests)
            return counted("draw", facts, lambda: world.draw_and_score(requests))

        return parts._replace(rewriter=Rewriter(), reasoner_of=reasoner_of, draw_and_score=draw_and_score)


def run(folder: Path, world=None, **settings):
    values = SMALL | {"out": folder} | settings
    world = world or SimulatedWorld(SEED)
    found = SearchSettings.of(values)
    simulated = world.world if isinstance(world, Counting) else world
    return search(found, START, split_by_prompt(simulated.prompts(), found.splits), world.parts())


def told(result) -> str:
    """Return all that a search found, without what depends on the speed of the machine."""
    values = result_to_dict(result)
    for one in (*values["candidates"], values["spent"]):
        del one["seconds"]
    del values["calls_of_this_run"]
    return json.dumps(values)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing stopped, with its world and its folder."""
    folder, world = tmp_path_factory.mktemp("whole") / "search", Counting()
    return run(folder, world), world, folder


def test_it_finds_a_system_prompt_that_is_truly_better(whole):
    result, _, folder = whole
    best = result.winner.candidate
    assert true_score(best.text) >= true_score(START) + 0.1
    assert (folder / "best.txt").read_text() == best.text
    assert f"Candidate {best.number} is better than the start" in format_result(result)


def test_every_candidate_is_logged_with_its_parent_and_what_it_took(whole):
    result, _, folder = whole
    lines = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(len(result.candidates)))
    assert lines[0]["status"] == "start" and all(line["parent"] < line["number"] for line in lines[1:])
    kept = next(line for line in lines if line["status"] == "kept")
    assert len(kept["hash"]) == 64 and len(kept["selection"]) == 24 and kept["pictures"] >= 2 * 24
    assert kept["tokens"] > 1000 and kept["seconds"] > 0 and kept["text"].startswith(START)
    spent = result.spent
    assert sum(line["pictures"] for line in lines) + sum(
        len(one.results) * 2 for one in result.finalists
    ) == spent.pictures


def test_two_searches_of_one_seed_are_the_same_and_of_another_seed_are_not(whole, tmp_path):
    result, _, _ = whole
    assert told(run(tmp_path / "again")) == told(result)
    assert told(run(tmp_path / "other", seed=1)) != told(result)


def test_a_search_that_is_killed_again_and_again_ends_as_if_it_had_not_been(whole, tmp_path):
    result, world, _ = whole
    rng = np.random.default_rng(0)
    places = tuple(int(place) for place in rng.choice(np.arange(2, len(world.answered)), 6, replace=False))
    killed = Counting(killed_before=places)
    num_kills, resumed = 0, None
    while resumed is None:
        try:
            resumed = run(tmp_path / "killed", killed)
        except Killed:
            num_kills += 1
    assert num_kills >= 4  # a kill can hit calls that wait beside each other
    assert told(resumed) == told(result)
    assert max(Counter(killed.answered).values()) == 1
    assert Counter(killed.answered) == Counter(world.answered)


KILLED_PROCESS = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_search import Counting, Killed, run
try:
    run(Path({folder!r}), Counting(killed_before=({place},)))
except Killed:
    os.kill(os.getpid(), 9)
"""


def test_a_process_that_is_killed_leaves_all_its_answers(whole, tmp_path):
    result, world, _ = whole
    tests, folder = str(Path(__file__).parent), str(tmp_path / "search")
    script = KILLED_PROCESS.format(tests=tests, folder=folder, place=60)
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    resumed = Counting()
    assert told(run(tmp_path / "search", resumed)) == told(result)
    assert 300 < len(resumed.answered) <= len(world.answered) - 59


def test_a_file_that_a_kill_cut_off_costs_one_answer(whole, tmp_path):
    result, _, folder = whole
    (tmp_path / "search").mkdir()
    for name in ("search.json", "ledger.jsonl"):
        content = (folder / name).read_bytes()
        (tmp_path / "search" / name).write_bytes(content[:-30] if name == "ledger.jsonl" else content)
    world = Counting()
    assert told(run(tmp_path / "search", world)) == told(result)
    assert len(world.answered) == 1


def test_a_larger_budget_goes_on_without_a_call_made_twice(whole, tmp_path):
    result, _, _ = whole
    world = Counting()
    run(tmp_path / "search", world, budget={"pictures": 900, "proposals": 6})
    longer = run(tmp_path / "search", world)
    assert told(longer) == told(result)
    assert max(Counter(world.answered).values()) == 1


def test_a_folder_with_another_search_is_refused(whole):
    _, _, folder = whole
    with pytest.raises(SettingError, match="it differs in settings, prompts"):
        run(folder, seed=3, splits={"feedback": 16, "selection": 25, "test": 24})


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_folder_with_another_search_json_is_refused(tmp_path, content):
    (tmp_path / "search.json").write_text(content)
    with pytest.raises(SettingError, match=r"a folder whose search\.json is that of a search"):
        run(tmp_path)


def test_no_picture_is_drawn_from_a_prompt_that_breaks_a_rule(whole):
    result, world, _ = whole
    gated = [one for one in result.candidates if BREAKS in one.text]
    assert gated and all(one.status in ("gated", "repeated") for one in gated)
    assert all(one.cost.pictures <= 16 for one in gated)  # those of the parent on the minibatch
    assert "8 of 8 requests have no valid prompt (8 x quoted_text: a quote is missing)" in {
        one.reason for one in gated
    }
    drawn = {one[1] for name, *facts in world.answered if name == "draw" for one in facts}
    assert not any(one.hash[:12] in drawn_from for one in gated for drawn_from in drawn)


def test_all_candidates_get_the_same_seeds_and_the_last_comparison_gets_new_ones(whole):
    result, _, _ = whole
    selected = [one.selection for one in result.candidates if one.selection]
    seeds = {tuple(p.seed for row in rows for p in row.pictures) for rows in selected}
    assert len(selected) > 1 and len(seeds) == 1
    final = {tuple(p.seed for row in one.results for p in row.pictures) for one in result.finalists}
    assert len(final) == 1 and not set(*final) & set(*seeds)
    prompts = [{row.prompt.prompt for row in rows} for rows in (selected[0], result.finalists[0].results)]
    assert not prompts[0] & prompts[1]


def test_the_search_stays_inside_its_budget_of_pictures(whole):
    result, _, _ = whole
    assert result.spent.pictures <= SMALL["budget"]["pictures"]
    assert len(result.finalists) >= 2


def test_a_budget_without_room_for_one_proposal_is_refused_with_what_it_needs(tmp_path):
    with pytest.raises(SettingError, match=r"budget\.pictures is 300, but it needs at least 352: 48 of the"):
        run(tmp_path, budget={"pictures": 300})


def test_tokens_end_a_search_and_the_last_comparison_is_drawn_all_the_same(tmp_path):
    result = run(tmp_path, budget={"pictures": 900, "tokens": 9000})
    assert result.stopped_by == "tokens"
    assert 0 < len(result.candidates) - 1 < 6 and len(result.finalists[0].results) == 24


def test_a_model_that_does_not_answer_stops_the_search_and_is_asked_again_later(whole, tmp_path):
    result, _, _ = whole
    world = SimulatedWorld(SEED)

    def is_down(*_, **__):
        raise ChatError("The endpoint cannot be reached.", is_final=False)

    class Down(SimulatedWorld):
        def parts(self, batch_size=16):
            rewriter = type("Rewriter", (), {"name": self.name, "complete": is_down})()
            return super().parts()._replace(rewriter=rewriter)

    with pytest.raises(ReasoningStoppedError, match=r"rewriter does not answer.*same command again"):
        run(tmp_path, Down(SEED))

    class Unavailable(SimulatedWorld):
        def reasoner_of(self, text):
            reasoner = super().reasoner_of(text)

            def reason(prompt, *, seed=0, should_stop=None):
                if text != START:
                    return Reasoned("failed", prompt, prompt, "It timed out.", is_unavailable=True)
                return reasoner(prompt, seed=seed)

            return reason

    with pytest.raises(ReasoningStoppedError, match="reasoner's model does not answer: It timed out"):
        run(tmp_path, Unavailable(SEED))
    assert told(run(tmp_path, world)) == told(result)
