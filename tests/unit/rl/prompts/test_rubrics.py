import json

import pytest

from lens.llm.batch import InvalidResponse
from lens.rl.prompts.dataset import GLOBAL_CRITERION, GLOBAL_RUBRIC, RLPrompt
from lens.rl.prompts.rubrics import parse_rubric, rubric_task
from lens.rl.prompts.settings import TaxonomyPromptSetSettings

FOX, LEMONS, SNOW = "The fox is red all over.", "There are exactly three lemons.", "The ground is snow."
GLOBAL = {GLOBAL_CRITERION: GLOBAL_RUBRIC}


def rubric_of(values: object, least: int = 1, most: int = 10) -> dict[str, str]:
    return parse_rubric(values if isinstance(values, str) else json.dumps(values), least, most)


def test_the_global_criterion_is_always_there_and_stands_last():
    rubric = rubric_of({"fox": FOX, "lemons": LEMONS})
    assert list(rubric.items()) == [("fox", FOX), ("lemons", LEMONS), *GLOBAL.items()]


def test_names_become_snake_case_and_differ():
    rubric = rubric_of({"Fox Colour": FOX, "foxColour": LEMONS, "3 lemons!": SNOW})
    assert list(rubric) == ["fox_colour", "fox_colour_2", "criterion_3_lemons", GLOBAL_CRITERION]
    assert list(rubric_of({"\u00e9t\u00e9": FOX, "\u96ea": SNOW})) == ["ete", "criterion", GLOBAL_CRITERION]


def test_a_name_that_stands_twice_loses_no_criterion():
    rubric = rubric_of(f'{{"fox": "{FOX}", "fox": "{LEMONS}"}}')
    assert rubric == {"fox": FOX, "fox_2": LEMONS} | GLOBAL


def test_a_criterion_of_the_global_ones_name_does_not_take_its_place():
    assert rubric_of({"coherent": FOX}) == {"coherent_2": FOX} | GLOBAL


def test_of_two_criteria_that_say_the_same_one_stays():
    assert rubric_of({"fox": FOX, "again": FOX.upper()}) == {"fox": FOX} | GLOBAL


def test_of_too_many_criteria_the_first_stay():
    many = {f"point_{number}": f"There is thing number {number}." for number in range(14)}
    assert list(rubric_of(many)) == [*list(many)[:10], GLOBAL_CRITERION]


@pytest.mark.parametrize(
    "answer",
    [
        f'```json\n{{"fox": "{FOX}", "lemons": "{LEMONS}",}}\n```',
        f'Sure! {{"fox": "{FOX}", "lemons": "{LEMONS}"}} Good luck.',
        f'{{"fox": "{FOX}"\n "lemons": "{LEMONS}"',
    ],
)
def test_an_untidy_answer_is_read(answer):
    assert rubric_of(answer) == {"fox": FOX, "lemons": LEMONS} | GLOBAL


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("no", "broken_json"),
        ([{"name": "fox", "verify": FOX}], "broken_json"),
        ({"fox": FOX}, "too_few_criteria"),
        ({"fox": FOX, "again": FOX}, "too_few_criteria"),
        ({"fox": FOX, "lemons": 3}, "wrong_fields"),
        ({"fox": FOX, "lemons": {"verify": LEMONS}}, "wrong_fields"),
        ({"fox": FOX, "lemons": "yes"}, "wrong_fields"),
    ],
)
def test_what_is_no_rubric_is_refused_with_the_reason(answer, reason):
    with pytest.raises(InvalidResponse) as refused:
        rubric_of(answer, least=2)
    assert refused.value.reason == reason


def test_a_model_is_told_all_that_a_prompt_must_show(tmp_path):
    model = {"endpoint": {"url": "http://127.0.0.1:9/v1", "model": "writer"}}
    settings = TaxonomyPromptSetSettings.of({"out": tmp_path, "count": 1, "model": model, "max_criteria": 7})
    prompt = RLPrompt(
        prompt="A fox by a door.", category="animal", item="red fox", keypoints=("by a door",), text="OPEN"
    )
    asked = rubric_task(prompt, settings).messages[1]["content"]
    assert all(told in asked for told in ("A fox by a door.", "by a door", '"OPEN"', "3 to 7 criteria"))
