import pytest

from lens.nano.tasks import task_prompts
from lens.rl.prompts.taxonomy import PromptSubject, TaxonomyItem
from lens.rl.prompts.validation import (
    Decontamination,
    GeneratedPrompt,
    NearDuplicateIndex,
    content_words,
    mentions,
    validate_prompt,
)

FOX = PromptSubject(TaxonomyItem("animal", "wolves and foxes", "red fox"), 0, ("count", "colour"))
PROMPT = "Three red foxes rest on pale blue snow near a dark pine forest at noon."
GOOD = GeneratedPrompt(PROMPT, ("Three red foxes", "pale blue snow"), None)


def reasons(
    written: GeneratedPrompt, subject: PromptSubject = FOX, min_words: int = 10, max_words: int = 20
) -> list[str]:
    return [fault.reason for fault in validate_prompt(written, subject, min_words, max_words)]


def test_a_prompt_as_it_was_asked_for_has_no_fault():
    assert reasons(GOOD) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"prompt": "Three red foxes, pale blue snow."}, ["too_short"]),
        ({"prompt": f"{PROMPT} {PROMPT}"}, ["too_long"]),
        ({"keypoints": ("Three red foxes", "green snow")}, ["keypoint_missing"]),
        ({"keypoints": ("Three red fox", "pale blue snow")}, ["keypoint_missing"]),
        ({"keypoints": ("pale blue snow",)}, ["too_few_keypoints"]),
        ({"prompt": PROMPT.replace("foxes", "cars"), "keypoints": ("Three", "blue")}, ["item_missing"]),
        ({"prompt": PROMPT.replace("Three", "Some"), "keypoints": ("red", "blue")}, ["count_missing"]),
    ],
)
def test_what_is_wrong_with_a_prompt_is_named(change, found):
    assert reasons(GOOD._replace(**change)) == found


def test_all_faults_are_told_with_what_to_mend():
    faults = validate_prompt(GeneratedPrompt("A car.", ("bus",), None), FOX, 10, 20)
    assert [fault.reason for fault in faults] == [
        "too_short", "keypoint_missing", "too_few_keypoints", "item_missing", "count_missing",
    ]  # fmt: skip
    assert "has 2 words, and must have from 10 to 20" in faults[0].message and "bus" in faults[1].message


def test_writing_stands_in_the_prompt_letter_by_letter():
    subject = FOX._replace(dimensions=("text",))
    sign = 'Red foxes rest on snow beside a sign that says "NO ENTRY" in white.'
    assert reasons(GeneratedPrompt(sign, (), "NO ENTRY"), subject) == []
    assert reasons(GeneratedPrompt(sign, (), "No entry"), subject) == ["text_missing"]
    assert reasons(GeneratedPrompt(sign, (), None), subject) == ["text_missing"]


@pytest.mark.parametrize(
    ("item", "prompt", "is_named"),
    [
        ("red fox", "two red foxes", True),
        ("red fox", "a grey fox", False),
        ("strawberries", "one ripe strawberry", True),
        ("bookshelf", "two bookshelves", True),
        ("child blowing bubbles", "a child blows bubbles", True),
        ("chef's knife", "the chef's knife", True),
        ("mother with a baby", "a mother holds her baby", True),
        ("hot air balloon launch", "a hot air balloon rises", True),
        ("hot air balloon launch", "a red balloon rises", False),
    ],
)
def test_an_object_is_named_in_any_form_of_its_words(item, prompt, is_named):
    assert mentions(prompt, item) == is_named


def test_the_most_similar_prompt_is_found_with_shared_words_over_all_words():
    similar = NearDuplicateIndex(["a fox on snow", "the fox in the snow at night", "three lemons"])
    similarity, nearest = similar.nearest("Snow and fox, at night")
    assert (similarity, nearest) == (1.0, "the fox in the snow at night")
    shared = {"fox", "snow"} & content_words("a fox beside snow")
    assert similar.nearest("a fox beside snow") == (len(shared) / 3, "a fox on snow")
    assert similar.nearest("a house") == (0.0, "")
    assert NearDuplicateIndex().nearest("a fox") == (0.0, "")


def test_similarity_is_that_of_a_literal_count_on_many_prompts():
    prompts = [one.prompt for one in task_prompts("combined", 60)]
    similar = NearDuplicateIndex(prompts[:40])
    for one in prompts[40:]:
        ratios = [len(content_words(one) & content_words(two)) / len(content_words(one) | content_words(two))
                  for two in prompts[:40]]  # fmt: skip
        assert similar.nearest(one) == (pytest.approx(max(ratios)), prompts[ratios.index(max(ratios))])


def test_an_overlap_is_a_similar_prompt_or_one_whose_words_stand_in_another(tmp_path):
    path = tmp_path / "benchmark.txt"
    path.write_text("a photo of a bench\n\nTwo cats sleeping on one red sofa.\n")
    benchmarks = Decontamination.from_files([str(path)])
    assert len(benchmarks) == 2
    inside = "In the evening light two cats sleeping on one red sofa are seen through a tall window."
    assert benchmarks.find_overlap(inside, 0.6) == "Two cats sleeping on one red sofa."
    assert benchmarks.find_overlap("on one red sofa: two sleeping cats", 0.6) is not None
    assert (
        benchmarks.find_overlap("A photo of a bench in a quiet park beside an old oak tree", 0.6) is not None
    )
    assert benchmarks.find_overlap("A weathered bench in a quiet park, photographed from above", 0.6) is None


def test_our_own_test_prompts_are_a_benchmark():
    benchmarks = Decontamination.from_files(["nano"])
    one = task_prompts("position", 1)[0].prompt
    assert len(benchmarks) == 600
    assert benchmarks.exact_match(one.upper()) == one and benchmarks.exact_match("a fox") is None
