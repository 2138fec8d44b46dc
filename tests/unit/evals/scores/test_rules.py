"""The rules of each benchmark, by small cases whose scores follow from the rule by hand."""

import json

import numpy as np
import pytest

from lens.benchmarks.geneval import COLOURS
from lens.errors import SettingError
from lens.evals.scores.geneval import relations
from lens.evals.scores.registry import score_file

RED_CUP = {"class": "cup", "count": 1, "color": "red"}


@pytest.fixture
def score(tmp_path):
    """Return a function that scores lines of a benchmark."""

    def run(benchmark, *lines):
        file = tmp_path / "observations.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return score_file(benchmark, file)

    return run


def detection(name, confidence=0.95, box=(10, 10, 50, 50), colour=None):
    scores = {one: 0.3 if one == colour else 0.2 for one in COLOURS} if colour else None
    return {"class": name, "score": confidence, "box": list(box), "color_scores": scores}


def geneval(detections, include, exclude=(), tag="two_object", prompt_id=0):
    return {
        "prompt_id": prompt_id, "tag": tag, "include": list(include), "exclude": list(exclude),
        "width": 512, "height": 512, "detections": list(detections),
    }  # fmt: skip


def is_correct(score, *arguments, **options):
    return score("geneval", geneval(*arguments, **options)).cases[0]["correct"]


@pytest.mark.parametrize(
    ("tag", "confidence", "stays"),
    [
        ("colors", 0.31, True),
        ("colors", float(np.float32(0.3)), False),
        ("colors", 0.3, False),
        ("counting", 0.9, False),
        ("counting", 0.91, True),
        ("counting", 0.5, False),
    ],
)
def test_an_object_stays_only_above_the_threshold_of_its_task(score, tag, confidence, stays):
    assert is_correct(score, [detection("cup", confidence)], [{"class": "cup", "count": 1}], tag=tag) is stays


def test_counting_is_exact_by_what_is_excluded(score):
    asked = [{"class": "cup", "count": 2}], [{"class": "cup", "count": 3}]
    correct = [is_correct(score, [detection("cup")] * count, *asked) for count in (1, 2, 3)]
    assert correct == [False, True, False]


def test_only_sixteen_objects_of_a_class_are_kept(score):
    many = [detection("cup")] * 20
    assert is_correct(score, many, [{"class": "cup", "count": 16}], [{"class": "cup", "count": 17}])
    assert not is_correct(score, many, [{"class": "cup", "count": 17}])


def test_of_equal_scores_the_later_object_comes_first(score):
    two = [detection("cup", 0.8, colour="red"), detection("cup", 0.8, colour="blue")]
    assert is_correct(score, two, [{"class": "cup", "count": 1, "color": "blue"}])
    assert not is_correct(score, two, [{"class": "cup", "count": 1, "color": "red"}])


def test_of_equal_cosines_the_first_colour_counts(score):
    grey = detection("cup") | {"color_scores": dict.fromkeys(reversed(COLOURS), 0.25)}
    assert is_correct(score, [grey], [RED_CUP])


def test_a_relation_to_a_clause_that_failed_fails_too(score):
    dog, cup = detection("dog", box=(0, 0, 40, 40)), detection("cup", box=(200, 0, 240, 40), colour="red")
    right_of = {"class": "cup", "count": 1, "position": ["right of", 0]}
    assert is_correct(score, [dog, cup], [{"class": "dog", "count": 1}, right_of])
    assert not is_correct(score, [dog, cup], [{"class": "dog", "count": 2}, right_of])


def test_every_pair_has_to_hold_a_relation(score):
    dogs = [detection("dog", box=(0, 0, 40, 40)), detection("dog", box=(400, 0, 440, 40))]
    cup = detection("cup", box=(200, 0, 240, 40))
    right_of = {"class": "cup", "count": 1, "position": ["right of", 0]}
    assert is_correct(score, [dogs[0], cup], [{"class": "dog", "count": 1}, right_of])
    assert not is_correct(score, [*dogs, cup], [{"class": "dog", "count": 2}, right_of])


@pytest.mark.parametrize(
    ("offset", "held"),
    [
        ((100, 0), {"right of"}),
        ((-100, 0), {"left of"}),
        ((0, 100), {"below"}),
        ((0, -100), {"above"}),
        ((100, 100), {"right of", "below"}),
        ((8, 0), set()),  # 0.1 x (40 + 40) is taken off
        ((16, 0), set()),  # half of the offset is left, and exactly a half is no relation
        ((17, 0), {"right of"}),
        ((0, 0), set()),
    ],
)
def test_a_relation_holds_by_what_is_left_of_the_offset(offset, held):
    b = np.array([100, 100, 140, 140], np.float32)
    assert relations(b + np.array([*offset, *offset], np.float32), b) == held


def test_the_headline_is_the_mean_of_tasks_not_of_images(score):
    cup, nothing = [{"class": "cup", "count": 1}], []
    found = score(
        "geneval",
        geneval([detection("cup")], cup, tag="single_object", prompt_id=1),
        geneval(nothing, cup, tag="colors", prompt_id=2),
        geneval(nothing, cup, tag="colors", prompt_id=2),
        geneval([detection("cup")], cup, tag="colors", prompt_id=2),
    )
    assert found.headline == pytest.approx((1 + 1 / 3) / 2)
    assert found.parts["share_of_images"] == 0.5 and found.parts["share_of_prompts"] == 1.0


def longtext(ocr, *texts, language="en"):
    return {"prompt_id": 1, "repeat": 0, "language": language, "text": list(texts), "ocr": ocr}


@pytest.mark.parametrize(
    ("ocr", "texts", "matched", "reference"),
    [
        ("Fresh BREAD", ["fresh bread"], 2, 2),
        ("state of the art", ["state-of-the-art"], 0, 1),
        ("to to to", ["to be to"], 2, 3),
        ("No text recognized.", ["text"], 0, 1),
        ("No text recognized", ["text"], 1, 1),
        ("creme brulee", ["cr\u00e8me br\u00fbl\u00e9e"], 0, 2),
        ("a\u3000b\nc", ["a b", "c"], 3, 3),
    ],
)
def test_long_text_counts_words_that_both_have(score, ocr, texts, matched, reference):
    assert score("longtext", longtext(ocr, *texts)).cases == [{"matched": matched, "reference": reference}]


def test_chinese_long_text_counts_characters_and_keeps_case(score):
    found = score("longtext", longtext("\u5f00\u95e8 a", "\u5f00\u95e8A", language="zh"))
    assert found.cases == [{"matched": 2, "reference": 3}] and found.headline == pytest.approx(2 / 3)


def oneig_text(text, ocr, language="en", prompt_id="001"):
    return {"prompt_id": prompt_id, "repeat": 0, "language": language, "text": text, "ocr": ocr}


def test_the_printed_form_of_a_list_leaves_an_n_for_a_line_break(score):
    found = score("oneig_text", oneig_text(r"['open\ndaily']", "open daily"))
    assert found.cases == [{"edit_distance": 1, "matched": 0, "reference": 1}]  # openndaily


def test_text_of_oneig_follows_its_formula(score):
    found = score("oneig_text", oneig_text("['one two']", "one two"), oneig_text("['one two']", "one tw"))
    assert found.parts == {"en": 1 - 0.5 * 0.5 * 0.25 / 100, "en/ED": 0.5, "en/CR": 0.5, "en/WAC": 0.75}


def test_units_follow_the_reference_not_the_language(score):
    found = score("oneig_text", oneig_text("['\u5f00 ab']", "\u5f00ab", language="en"))
    assert found.cases == [{"edit_distance": 0, "matched": 3, "reference": 3}]


def alignment(answers, dependency, category="anime", prompt_id="1", language="en"):
    return {
        "prompt_id": prompt_id, "repeat": 0, "language": language, "category": category,
        "answers": answers, "dependency": dependency,
    }  # fmt: skip


def test_only_direct_parents_make_a_question_of_oneig_fail(score):
    chain = {"1": [0], "2": [1], "3": [2]}
    found = score("oneig_alignment", alignment({"1": "No", "2": "Yes", "3": "Yes"}, chain))
    assert found.cases == [{"score": pytest.approx(1 / 3)}], "the third rests on the second's raw answer"


@pytest.mark.parametrize("answer", ["yes", "Yes.", " Yes", "YES", "No", None])
def test_only_yes_itself_is_right(score, answer):
    assert score("oneig_alignment", alignment({"1": answer}, {"1": [0]})).headline == 0


def test_prompts_of_all_categories_are_averaged_at_once(score):
    yes, no = {"1": "Yes"}, {"1": "No"}
    lines = [alignment(yes, {"1": [0]}, "anime", "1"), alignment(yes, {"1": [0]}, "anime", "2")]
    found = score("oneig_alignment", *lines, alignment(no, {"1": [0]}, "human", "1"))
    assert found.headline == pytest.approx(2 / 3)
    assert found.prompts == {"en/anime_1": 1.0, "en/anime_2": 1.0, "en/human_1": 0.0}


def test_a_style_scores_the_best_cosine_of_each_encoder(score):
    line = {"prompt_id": "5", "repeat": 0, "language": "en"}
    styled = line | {"style": "Chinese ink painting", "csd": [0.61, 0.4], "se": [-0.1, -0.3]}
    found = score("oneig_style", styled, line | {"style": None, "csd": [1.0], "se": [1.0], "prompt_id": "6"})
    assert found.cases == [{"score": pytest.approx(0.305)}, {"score": None}]
    assert found.parts.keys() == {"en", "en/chinese_ink_painting"} and found.prompts.keys() == {"en/5"}


def test_a_category_without_pairs_has_no_diversity(score):
    line = {"prompt_id": "1", "language": "zh"}
    found = score(
        "oneig_diversity",
        line | {"category": "human", "distances": [0.2, 0.4]},
        line | {"category": "text", "distances": []},
    )
    assert found.parts == {"zh": pytest.approx(0.3), "zh/human": pytest.approx(0.3), "zh/text": None}
    assert found.headline == pytest.approx(0.3) and found.prompts is None


def cvtg(prompt, ocr, cosine=0.3, group="CVTG", regions=2):
    return {
        "group": group, "regions": regions, "index": 0, "prompt": prompt, "ocr": ocr, "clip_cosine": cosine,
    }  # fmt: skip


def test_a_word_that_was_not_read_gets_almost_nothing_and_a_failed_reader_nothing(score):
    found = score("cvtg", cvtg("a sign 'ab'", []), cvtg("a sign 'ab'", None))
    assert found.cases[0]["ned"] == [pytest.approx(1 - 2 / 2.00001)] and found.cases[0]["ned"][0] > 0
    assert found.cases[1]["ned"] == [0.0]


def test_an_apostrophe_opens_and_closes_quotes_too(score):
    found = score("cvtg", cvtg("it's a 'Big sale!' and 'Open'", ["open", "BIG SALE"], cosine=-0.2))
    assert found.cases[0]["words"] == 3, "the apostrophe opens a quote: 's a ', then ' and '"
    assert found.cases[0]["clipscore"] == 0


def test_a_word_read_once_serves_any_number_of_times(score):
    found = score("cvtg", cvtg("'to' and 'to' and 'be'", ["to"]))
    assert (found.cases[0]["correct"], found.headline) == (2, pytest.approx(2 / 3))


def dpg(answers, dependency, category=None, crop=0, prompt_id="a"):
    category = category or dict.fromkeys(answers, "entity - whole")
    return {
        "prompt_id": prompt_id, "crop": crop, "answers": answers, "dependency": dependency,
        "category": category,
    }  # fmt: skip


def test_zeros_run_down_where_parents_come_first(score):
    answers = {"1": "no", "2": "yes", "3": "yes"}
    down = score("dpg", dpg(answers, {"1": [0], "2": [1], "3": [2]}))
    up = score("dpg", dpg(answers, {"3": [2], "2": [1], "1": [0]}))
    assert (down.headline, up.headline) == (0, pytest.approx(100 / 3))


def test_a_prompt_with_a_parent_that_is_no_question_is_left_out(score):
    lost = dpg({"1": "yes"}, {"1": [9]}, prompt_id="lost")
    found = score("dpg", lost, dpg({"1": "yes", "2": "no"}, {"1": [0], "2": [0]}))
    assert found.headline == 50 and found.prompts == {"lost": None, "a": 0.5}
    assert found.cases == [{"score": None}, {"score": 0.5}]


def test_categories_count_raw_answers_of_the_last_crop(score):
    category = {"1": "global", "2": "attribute - color"}
    asked = {"1": [0], "2": [1]}, category
    found = score(
        "dpg", dpg({"1": "no", "2": "yes"}, *asked, crop=1), dpg({"1": "yes", "2": "no"}, *asked, crop=0)
    )
    assert found.parts == {
        "L1/attribute": 100, "L1/global": 0, "L2/attribute - color": 100, "L2/global": 0,
    }  # fmt: skip


def tiif(kind, right, wrong, length="short"):
    answers = ["yes"] * (right + wrong)
    return {
        "type": kind, "length": length, "index": 0, "answers": answers,
        "predictions": [" YES "] * right + ["no"] * wrong,
    }  # fmt: skip


def test_types_of_tiif_are_rounded_before_they_are_averaged(score):
    found = score("tiif", tiif("numeracy", 1, 2), tiif("negation", 2, 1), tiif("real_world", 0, 1))
    assert found.parts["short/Reasoning"] == pytest.approx((0.3333 + 0.6667) / 2, abs=1e-12)
    assert found.headline == pytest.approx(0.25), "Reasoning and Complex; absent groups do not count"
    assert found.parts["short/Basic Following"] == pytest.approx(0.5)
    assert "short/Advanced Following" not in found.parts


def test_answers_and_predictions_are_paired_up_to_the_shorter(score):
    line = tiif("text", 2, 0) | {"predictions": ["yes"]}
    assert score("tiif", line).cases == [{"questions": 1, "right": 1}]


@pytest.mark.parametrize(
    ("benchmark", "line", "told"),
    [
        ("geneval", geneval([detection("cup", "high")], []), "score is 'high'"),
        ("geneval", geneval([detection("cup")], [RED_CUP]), "color_scores"),
        ("longtext", longtext("a", "b", language="fr"), "language is 'fr'"),
        ("oneig_alignment", alignment({"1": "Yes"}, {"2": [0]}), "dependency is '2'"),
        ("dpg", dpg({"1": "yes"}, {"1": [0]}, {"7": "global"}), "category is '7'"),
        ("cvtg", cvtg("'a'", "a"), "ocr is 'a'"),
        ("bleu", {}, "BENCHMARK is 'bleu'"),
    ],
)
def test_a_line_that_cannot_be_scored_is_told_by_its_key(score, benchmark, line, told):
    with pytest.raises(SettingError, match=told):
        score(benchmark, line)
