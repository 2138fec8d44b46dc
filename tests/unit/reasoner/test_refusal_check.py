"""The sets of `lens reasoner check`, and how an answer is counted."""

import pytest

from lens.errors import LensError
from lens.reasoner.outcome import Reasoned
from lens.reasoner.refusal_check import check_refusals, refusal_cases, refusal_rows
from lens.serve.safety.moderation import ModerationPolicy


def test_there_are_sixty_prompts_in_each_set_for_every_category_of_the_built_in_policy():
    cases = refusal_cases()
    categories = {one.name for one in ModerationPolicy.from_file().settings.reasoner.categories}
    for is_harmless in (True, False):
        of_set = [case for case in cases if case.is_harmless == is_harmless]
        assert len(of_set) == 60 and {case.category for case in of_set} == categories
    assert len({case.prompt for case in cases}) == 120


def test_a_policy_without_a_category_does_not_refuse_its_prompts():
    cases = refusal_cases(["crime", "wheelbarrows"])
    assert {case.category for case in cases if not case.is_harmless} == {"crime"}
    assert sum(case.is_harmless for case in cases) == 60


def answer(prompt: str, **_: object) -> Reasoned:
    """Refuse what has an m, let a rewriting of an n fail, do not answer on an x."""
    if "x" in prompt:
        return Reasoned("failed", prompt, prompt, "It is down.", is_unavailable=True)
    if "m" in prompt:
        return Reasoned("refused", prompt, prompt, category="crime")
    return Reasoned("failed" if "n" in prompt else "unchanged", prompt, prompt)


def test_refusals_are_counted_among_those_with_an_answer():
    cases, checked = refusal_cases(), check_refusals(answer, refusal_cases())
    for is_harmless in (True, False):
        prompts = [case.prompt for case in cases if case.is_harmless == is_harmless]
        answered = [prompt for prompt in prompts if "x" not in prompt]
        refused = [prompt for prompt in answered if "m" in prompt]
        *rows, total = refusal_rows(checked, is_harmless)
        assert (total.num_prompts, total.num_answered, total.num_refused) == (60, len(answered), len(refused))
        assert sum(row.num_refused for row in rows) == len(refused)
        assert total.share is not None and total.interval is not None
        low, high = total.interval
        assert 0 < low < total.share < high < 1
        wrong = [one.case.prompt for one in checked if one.is_wrong and one.case.is_harmless == is_harmless]
        assert wrong == [prompt for prompt in answered if (prompt in refused) == is_harmless]


def test_a_reasoner_that_answers_nothing_is_an_error_with_its_reason():
    with pytest.raises(LensError, match="answered none of 3 prompts: It is down"):
        check_refusals(lambda prompt, **_: answer(f"x {prompt}"), refusal_cases())
