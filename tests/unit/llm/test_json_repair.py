import pytest

from lens.llm.json_repair import JsonRepairError, parse_json_object

WHOLE = [("red_fox", "The fox is red."), ("two", "There are two.")]
GOOD = '{"red_fox": "The fox is red.", "two": "There are two."}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here it is:\n{GOOD}\nI hope that helps.",
        f"<think>maybe {{\"a\": 1}}?</think>{GOOD}",
        f"In the form {{name: what}}, as asked: {GOOD}",
        '{"red_fox": "The fox is red.", "two": "There are two.",}',
        '{"red_fox": "The fox is red."\n "two": "There are two."\n}',
        '{"red_fox": "The fox is red.", // its colour\n "two": "There are two."}',
        "{'red_fox': 'The fox is red.', 'two': 'There are two.'}",
        "{\u201cred_fox\u201d: \u201cThe fox is red.\u201d, \u201ctwo\u201d: \u201cThere are two.\u201d}",
        '{"red_fox": "The fox is red.", "two": "There are two."',
        '{"red_fox": "The fox is red.", "two": "There are two.",\n',
        f"\ufeff  {GOOD}",
    ],
)
def test_slips_that_leave_no_doubt_are_mended(answer):
    assert parse_json_object(answer) == WHOLE


def test_strings_are_left_as_they_are():
    answer = '{"a": "a comma, } and // True\nover \\"two\\" lines",}'
    assert parse_json_object(answer) == [("a", 'a comma, } and // True\nover "two" lines')]


def test_a_name_that_stands_twice_is_there_twice():
    assert parse_json_object('{"a": "one", "a": "two"}') == [("a", "one"), ("a", "two")]


def test_other_values_than_strings_are_kept():
    assert parse_json_object('{"a": [1, 2,], "b": None, "c": {"d": True}}') == [
        ("a", [1, 2]), ("b", None), ("c", [("d", True)])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "empty"),
        ("I cannot help with that.", "no JSON object"),
        ("{name: what}", "no JSON object"),
        (f"[{GOOD}]", "array"),
        (f"{GOOD}\n{GOOD}", "2 JSON objects"),
        ('{"a": "the sign says "OPEN" in red"}', "broken: Expecting ',' delimiter"),
        ('{"a": "cut off in the mid', "broken: Unterminated string"),
        ('{"a": {"b": "c"}, "d" "e"}', "broken"),
        ('{"a": }', "broken: Expecting value"),
    ],
)
def test_what_leaves_a_doubt_is_refused_with_the_fault(answer, fault):
    with pytest.raises(JsonRepairError, match=fault):
        parse_json_object(answer)
