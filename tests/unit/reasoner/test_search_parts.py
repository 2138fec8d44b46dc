"""Parts of the search for a system prompt: splits, gates, proposals, acceptance, archive, last comparison."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from lens.errors import SettingError
from lens.llm.client import ChatResponse
from lens.reasoner.outcome import Check, Reasoned
from lens.reasoner.search.archive import compare, parent_weights, pareto_front, ranking
from lens.reasoner.search.candidates import Candidate
from lens.reasoner.search.evaluation import DrawRequest, Picture, PromptResult, broken_gate
from lens.reasoner.search.final import compare_finalists, finalists_of, winner_of
from lens.reasoner.search.invented_prompts import NUM_OFFICIAL, geneval_prompts, text_prompts
from lens.reasoner.search.ledger import Ledger, Spent
from lens.reasoner.search.prompts import SearchPrompt, read_excluded, split_by_prompt
from lens.reasoner.search.proposal import (
    InvalidAnswer,
    Tried,
    failure_summary,
    parse_rewritten,
    rewrite_messages,
)
from lens.reasoner.search.settings import GateSettings, SplitSettings
from lens.reasoner.search.simulated import KINDS, START, SimulatedWorld, true_score

SIZES = SplitSettings(feedback=2, selection=3, test=4)


def prompts(*texts: str) -> list[SearchPrompt]:
    return [SearchPrompt(text) for text in texts]


def result(prompt: str, *scores: float, failures: tuple[str, ...] = (), kind="", broken=()) -> PromptResult:
    pictures = tuple(
        Picture(f"drawn {prompt}", seed, score, () if score == 1 else failures, None)
        for seed, score in enumerate(scores)
    )
    return PromptResult(SearchPrompt(prompt, kind), "refined", tuple(broken), pictures)


def test_no_prompt_is_in_two_splits_whatever_its_case_and_spaces():
    many = prompts("A red  fox", "a red fox", *(f"a cat with {n} hats" for n in range(20)))
    splits = split_by_prompt(many, SIZES)
    texts = [" ".join(one.prompt.casefold().split()) for split in splits for one in split]
    assert [len(split) for split in splits] == [2, 3, 4] and len(set(texts)) == 9


def test_prompts_of_benchmarks_are_left_out():
    many = prompts("a photo of a  Bench", *(f"a cat with {n} hats" for n in range(9)))
    splits = split_by_prompt(many, SIZES, excluded=["A photo of a bench"])
    assert "bench" not in str(splits).casefold()
    with pytest.raises(SettingError, match=r"splits is 9, but it needs at most as many .* 8"):
        split_by_prompt(many, SIZES, excluded=["a photo of a bench", "a cat with 3 hats"])


@pytest.mark.parametrize(
    "content", ["a cat\n\na dog\n", '{"tag": "x", "prompt": "a cat"}\n{"prompt": "a dog"}\n']
)
def test_excluded_prompts_are_read_as_lines_or_as_objects(tmp_path, content):
    path = tmp_path / "official"
    path.write_text(content)
    assert read_excluded(path, "benchmarks") == ["a cat", "a dog"]


def test_an_excluded_line_without_a_prompt_is_named(tmp_path):
    path = tmp_path / "official.jsonl"
    path.write_text('{"prompt": "a cat"}\n{"text": "a dog"}\n')
    with pytest.raises(SettingError, match=r"benchmarks \(.*official.jsonl, line 2\)"):
        read_excluded(path, "benchmarks")


@pytest.fixture
def official(tmp_path) -> Path:
    """A file like that of GenEval: 553 prompts of its grammar, drawn with a seed of their own."""
    path = tmp_path / "official.txt"
    others = [f"a photo of thing number {n}" for n in range(NUM_OFFICIAL)]
    path.write_text("\n".join(others))
    drawn = [one.prompt for one in geneval_prompts(7, path)][: NUM_OFFICIAL - 1]
    path.write_text("\n".join([*drawn, "a photo of a dog and a cat"]))
    return path


def test_new_prompts_of_genevals_grammar_are_none_of_the_official_ones(official):
    drawn = [one.prompt for one in geneval_prompts(7, official)]
    assert len(drawn) == len(set(drawn)) > 500
    assert not set(drawn) & set(official.read_text().splitlines())
    assert {one.kind for one in geneval_prompts(7, official)[:5]} == {
        "two_object", "counting", "colors", "position", "color_attr",
    }  # fmt: skip


def test_a_prompt_that_asks_for_the_same_in_another_order_counts_as_official(official):
    for seed in range(2):
        drawn = {one.prompt for one in geneval_prompts(seed, official)}
        assert not drawn & {"a photo of a dog and a cat", "a photo of a cat and a dog"}
        for prompt in drawn:
            if " left of " in prompt:
                first, second = prompt.removeprefix("a photo of ").split(" left of ")
                assert f"a photo of {second} right of {first}" not in drawn


def test_a_file_without_all_official_prompts_is_refused(official):
    official.write_text("\n".join(official.read_text().splitlines()[:-1]))
    with pytest.raises(SettingError, match=r"the 553 prompts of GenEval; it has 552"):
        geneval_prompts(0, official)


def test_invented_texts_are_quoted_in_their_prompts_and_differ_by_seed():
    drawn = text_prompts(0)
    assert len(drawn) > 500 and all(f'"{one.facts["text"]}"' in one.prompt for one in drawn)
    others = {one.facts["text"] for one in text_prompts(1)}
    assert sum(one.facts["text"] in others for one in drawn if one.kind == "3 words") < 5


def answers(count: int, *special: Reasoned) -> list[Reasoned]:
    return [*special, *(Reasoned("refined", "a red fox", "fox") for _ in range(count - len(special)))]


def failed(rule: str) -> Reasoned:
    return Reasoned("failed", "fox", "fox", "It broke a rule.", checks=(Check(rule, False),))


@pytest.mark.parametrize(
    "reasoned, reason",
    [
        (answers(4), ""),
        (answers(4, failed("language")), "1 of 4 requests have no valid prompt (1 x language)"),
        (answers(4, failed("quoted_text"), failed("quoted_text"), failed("length")),
         "3 of 4 requests have no valid prompt (2 x quoted_text, 1 x length)"),
        (answers(4, Reasoned("refused", "fox", "fox", "No.")),
         "1 of 4 harmless requests are refused, such as 'fox'"),
        (answers(4, Reasoned("unchanged", "fox", "fox")), ""),
    ],
)  # fmt: skip
def test_gates_are_told_in_words(reasoned, reason):
    assert broken_gate("Describe one scene.", reasoned, GateSettings(), prompts("a tall blue fox")) == reason


def test_a_system_prompt_may_not_be_long_nor_repeat_a_request():
    some, gates = prompts("a tall Blue fox", "fox"), GateSettings(max_words=20)
    assert "21 words, more than 20" in broken_gate("fox " * 21, answers(2), gates, some)
    assert broken_gate("For example A tall  blue fox.", answers(2), gates, some) == (
        "it repeats a request, 'a tall Blue fox'"
    )
    assert broken_gate("A fox is an animal.", answers(2), gates, some) == ""
    assert "25000 characters" in broken_gate("x" * 25_000, answers(2), gates, some)


def test_some_requests_may_fail_where_the_settings_say_so():
    gates = GateSettings(max_failed_share=0.25)
    assert broken_gate("One scene.", answers(4, failed("length")), gates, []) == ""
    assert broken_gate("One scene.", answers(3, failed("length")), gates, []) != ""


def test_failures_are_summed_up_with_reasons_and_examples():
    summary = failure_summary(
        [
            result("three foxes", 1, 0, failures=("there are 2 foxes",)),
            result("four cats", 0, 0, failures=("there are 2 cats",), broken=("numbers: 4 is missing",)),
            result("a dog", 1, 1),
        ]
    )
    assert summary.startswith("3 of 6 pictures failed.\n- 2 x there are 2 cats\n- 1 x there are 2 foxes\n")
    assert "- 1 x numbers: 4 is missing" in summary
    example = "Request: three foxes\nDrawn from: drawn three foxes\nFailed: there are 2 foxes"
    assert example in summary and "a dog" not in summary and summary.count("Request:") == 2


def test_the_rewriter_reads_the_text_the_failures_and_what_was_tried():
    system, user = rewrite_messages("One scene.", "2 of 4 failed.", [Tried("Count more.", "0.4 to 0.3")], 77)
    assert "At most 77 words" in system["content"]
    assert user["content"] == (
        "<system_prompt>\nOne scene.\n</system_prompt>\n\n<failures>\n2 of 4 failed.\n</failures>\n\n"
        "<tried>\n- Count more. Result: 0.4 to 0.3\n</tried>"
    )


def answer(text: str, **fields) -> ChatResponse:
    return ChatResponse(text, **({"is_refused": False, "is_cut": False} | fields), prompt_tokens=1,
                        completion_tokens=1)  # fmt: skip


def test_what_a_model_thinks_before_its_answer_is_ignored():
    thought = "<think>Maybe <system_prompt>No.</system_prompt>?</think>"
    text = "<change>More\n counting.</change><system_prompt>\nYes.\nTwo lines.\n</system_prompt> Done."
    assert parse_rewritten(answer(f"{thought}\n{text}")) == ("Yes.\nTwo lines.", "More counting.")


@pytest.mark.parametrize(
    "response, problem",
    [
        (answer("Just text."), "has no text between"),
        (answer("<system_prompt> </system_prompt>"), "has no text between"),
        (answer("<system_prompt>Half", is_cut=True), "was cut at the limit"),
        (answer("I cannot help with that.", is_refused=True), "was declined"),
    ],
)
def test_an_answer_without_a_system_prompt_is_told(response, problem):
    with pytest.raises(InvalidAnswer, match=problem):
        parse_rewritten(response)


def accepted_share(confidence: float, gain: float, num_prompts: int = 8) -> float:
    """Return how often a candidate is accepted whose pictures pass with a chance of 0.5 + gain."""
    rng = np.random.default_rng(0)
    num_accepted = 0
    for _ in range(600):
        before = rng.binomial(2, 0.5, num_prompts) / 2
        after = rng.binomial(2, 0.5 + gain, num_prompts) / 2
        num_accepted += compare(before, after, confidence).bound > 0
    return num_accepted / 600


def test_noise_passes_a_margin_as_often_as_its_confidence_says_and_any_gain_far_more_often():
    assert accepted_share(0.8, 0.0) == pytest.approx(0.2, abs=0.05)
    assert accepted_share(0.95, 0.0) == pytest.approx(0.05, abs=0.03)
    assert accepted_share(0.5, 0.0) > 0.38
    assert accepted_share(0.8, 0.3) > 0.75


def test_a_gain_on_every_prompt_is_accepted_and_none_at_all_is_not():
    half = np.full(4, 0.5)
    assert compare(half, half + 0.5, 0.9).bound == 0.5
    assert compare(half, half, 0.9).bound == 0


def test_the_front_holds_whoever_leads_somewhere():
    scores = np.array([[1.0, 0, 0.5, 0.5], [0, 1.0, 0.5, 0.5], [0.5, 0, 0.5, 0.5], [0, 1.0, 0.5, 0.5]])
    assert pareto_front(scores) == [0, 1, 3]
    assert ranking(scores) == [0, 1, 3, 2]


def test_parents_are_leaders_and_never_those_that_the_best_surely_beats():
    scores = np.zeros((3, 40))
    scores[0, :30] = 1
    scores[1, 5:33] = 1  # a little worse, and alone on three prompts
    scores[2, 39] = 1  # alone on one prompt, and bad
    weights = parent_weights(scores, 0.9)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > weights[1] > 0 == weights[2]


def candidate(number: int, scores: list[float], text: str = "") -> Candidate:
    rows = [result(f"prompt {place}", score, kind=str(place % 2)) for place, score in enumerate(scores)]
    return Candidate(number, None if number == 0 else 0, text or f"text {number}", selection=rows)


def final_of(gains: dict[str, float], num_prompts: int = 60):
    """Return a comparison in which the true chance of a text to pass is 0.4 and its gain."""
    rng = np.random.default_rng(3)
    luck = rng.random(num_prompts)
    return lambda text: [
        result(f"test {place}", float(luck[place] < 0.4 + gains[text]), kind=str(place % 2))
        for place in range(num_prompts)
    ]


def test_the_best_by_selection_are_compared_with_the_start():
    archive = [candidate(n, [n % 4 / 4] * 4) for n in range(6)]
    assert [one.number for one in finalists_of(archive, 3)] == [0, 3, 2, 1]
    assert [one.number for one in finalists_of(archive[:1], 3)] == [0]


def test_a_winner_surely_beats_the_start_and_its_gap_is_what_chance_added():
    lucky, better, start = candidate(1, [0.9] * 40), candidate(2, [0.8] * 40), candidate(0, [0.4] * 40)
    gains = {"text 0": 0.0, "text 1": 0.0, "text 2": 0.35}
    finalists = compare_finalists([start, lucky, better], final_of(gains), seed=0)
    assert winner_of(finalists).candidate is better
    gains_found = [one.gain for one in finalists]
    assert gains_found[2].low > 0 and gains_found[1].low <= 0 <= gains_found[1].high
    assert finalists[1].gain_gap == pytest.approx(0.5 - gains_found[1].value)
    assert finalists[1].gap.value == pytest.approx(0.9 - finalists[1].test.value)
    assert finalists[0].gain == (0, 0, 0)


def test_the_start_stays_where_nothing_surely_beats_it():
    start, lucky = candidate(0, [0.4] * 40), candidate(1, [0.9] * 40)
    finalists = compare_finalists([start, lucky], final_of({"text 0": 0.0, "text 1": 0.01}), seed=0)
    assert winner_of(finalists).candidate is start


def test_a_ledger_counts_what_was_made_before_as_its_first_time(tmp_path):
    def call():
        time.sleep(0.002)
        return {"text": "x"}, Spent(0, 30, 1)

    first = Ledger(tmp_path / "ledger.jsonl")
    assert first.ask(["a"], call) == {"text": "x"} == first.ask(["a"], call)
    first.close()
    again = Ledger(tmp_path / "ledger.jsonl")
    assert again.ask(["a"], lambda: pytest.fail("asked twice")) == {"text": "x"}
    assert again.spent == first.spent and again.spent.tokens == 30 and again.spent.seconds > 0.001
    assert (first.num_calls, again.num_calls) == (1, 0)


def test_a_batch_that_was_stopped_is_made_again_whole(tmp_path):
    made: list[list[int]] = []

    def call(places):
        made.append(places)
        return [({"n": place}, Spent(1)) for place in places]

    facts = [[n] for n in range(5)]
    Ledger(tmp_path / "ledger.jsonl").ask_together(facts, call, 2)
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:3]))  # half of a batch
    again = Ledger(path)
    assert [one["n"] for one in again.ask_together(facts, call, 2)] == [0, 1, 2, 3, 4]
    assert made == [[0, 1], [2, 3], [4], [2, 3], [4]] and again.spent.pictures == 5
    assert [one["n"] for one in again.ask_together(facts[3:], call, 2)] == [3, 4] and len(made) == 5


def test_the_simulated_world_draws_what_it_says():
    world = SimulatedWorld(1)
    parts, some = world.parts(), world.prompts()[:400]
    rule = f"{START}\nMind the {KINDS[0]} in way 0."
    for text in (START, rule):
        reasoner = parts.reasoner_of(text)
        requests = [DrawRequest(one, reasoner(one.prompt).prompt, 0) for one in some]
        mean = np.mean([one.score for one in parts.draw_and_score(requests)])
        assert mean == pytest.approx(true_score(text), abs=0.07)
    assert true_score(rule) - true_score(START) == pytest.approx(0.1)
    assert json.dumps([one.facts for one in some[:2]]) == '[{"number": 0}, {"number": 1}]'
