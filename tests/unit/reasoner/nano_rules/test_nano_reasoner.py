"""Tests of the rule engine of lens-nano: what it reads, what it writes, and what it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lens.nano.captions import CaptionMix, nano_caption
from lens.nano.evaluation_prompts import is_stated
from lens.nano.tasks import TASKS, task_prompts
from lens.nano.world.languages.registry import LANGUAGES
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.reasoner.nano_rules import FIRST_WORLD, GROWN_WORLD, NanoReasoner, world_of
from lens.reasoner.nano_rules.reading import read_prompt
from lens.reasoner.nano_rules.spelling import mended

WORDINGS = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
"""By kind: a request and what it becomes: itself where it is plain, null where something else keeps it."""
NUM_CAPTIONS = 40


@pytest.fixture(scope="module")
def reasoner() -> NanoReasoner:
    return NanoReasoner(GROWN_WORLD)


@pytest.fixture(scope="module")
def first_reasoner() -> NanoReasoner:
    return NanoReasoner(FIRST_WORLD)


def is_kept(wanted: SceneSpec, prompt: str) -> bool:
    """Return whether a prompt states a spec; a thing in its own colour is that thing, and places are free."""
    return is_stated(_plain(wanted), _plain(read_prompt(prompt).spec()))


def _plain(spec: SceneSpec) -> SceneSpec:
    groups = tuple(
        group._replace(place=None, colour=None if group.colour == _own_colour(group) else group.colour)
        for group in spec.groups
    )
    return replace(spec, groups=groups)


def _own_colour(group: ObjectGroup) -> str | None:
    return COLOURABLE.get(group.class_name)


@pytest.mark.parametrize("kind", WORDINGS)
def test_wordings_of_a_kind_become_the_plainest_prompt(kind: str, reasoner: NanoReasoner):
    wrong = {}
    for request, wanted in WORDINGS[kind]:
        answer = reasoner(request)
        if answer.outcome == "refined":
            is_right = answer.prompt == wanted
        else:
            is_right = wanted in (request, None) and answer.prompt == request
            is_right = is_right and (wanted is None or answer.outcome == "unchanged")
        if not is_right:
            wrong[request] = answer
    assert not wrong


@pytest.mark.parametrize("kind", WORDINGS)
def test_rewriting_twice_is_rewriting_once(kind: str, reasoner: NanoReasoner):
    for request, _ in WORDINGS[kind]:
        prompt = reasoner(request).prompt
        assert reasoner(prompt).prompt == prompt


@pytest.mark.parametrize("task", TASKS)
def test_prompts_of_the_six_tasks_keep_their_scene(task: str, first_reasoner: NanoReasoner):
    for prompt, spec in task_prompts(task, NUM_CAPTIONS, seed=5):
        answer = first_reasoner(prompt)
        assert answer.outcome in ("unchanged", "refined"), answer
        assert is_kept(spec, answer.prompt), answer


def test_captions_in_peoples_own_words_keep_their_scene_or_are_left_alone(reasoner: NanoReasoner):
    lost = _lost(reasoner, CaptionMix(dense=0, tasks=0), 150)
    assert len(lost) <= 150 * 0.06, lost


@pytest.mark.parametrize("code", LANGUAGES)
def test_captions_of_other_languages_keep_their_scene(code: str, reasoner: NanoReasoner):
    lost = _lost(reasoner, CaptionMix(dense=0, tasks=0, others=1, languages=(code,)), NUM_CAPTIONS)
    assert len(lost) <= NUM_CAPTIONS * 0.2, lost


def test_descriptions_are_left_alone_unless_all_of_them_is_understood(reasoner: NanoReasoner):
    lost = _lost(reasoner, CaptionMix(dense=1, tasks=0), NUM_CAPTIONS)
    assert len(lost) <= NUM_CAPTIONS * 0.05, lost


def _lost(reasoner: NanoReasoner, mix: CaptionMix, num_captions: int) -> list[tuple[str, str]]:
    """Return captions that became another scene, with what they became."""
    lost = []
    for index in range(num_captions):
        caption = nano_caption(23, index, mix)
        answer = reasoner(caption.text)
        if answer.outcome == "refined" and not is_kept(caption.spec, answer.prompt):
            lost.append((caption.text, answer.prompt))
    return lost


@pytest.mark.parametrize("name", OBJECT_CLASSES)
def test_every_name_is_read_in_every_case_and_number(name: str, reasoner: NanoReasoner):
    thing = OBJECT_CLASSES[name]
    for text in (thing.name, thing.name.upper(), f"the {thing.name.title()}"):
        assert [group.class_name for group in read_prompt(text).groups] == [name], text
    (group,) = read_prompt(f"4 {thing.plural}!").groups
    assert (group.class_name, group.count) == (name, 4)


def test_a_model_gets_only_names_that_it_knows(first_reasoner: NanoReasoner):
    answer = first_reasoner("a zebra and two foxes on white")
    assert (answer.outcome, answer.prompt) == ("refined", "two foxes on a white background")
    assert answer.reason is not None and "zebra" in answer.reason
    answer = first_reasoner("zebra")
    assert (answer.outcome, answer.prompt) == ("failed", "zebra")


def test_what_a_model_cannot_draw_is_kept_and_told(first_reasoner: NanoReasoner):
    for request, prompt, told in (
        ("A GREEN CAR", "a green car", "own colours"),
        ("owls, exactly seven", "seven owls", "at most 5"),
        ("teal background, a fox", "a fox on a turquoise background", "turquoise"),
        ("sign: HI", 'a sign that says "HI"', "cannot write"),
    ):
        answer = first_reasoner(request)
        assert answer.prompt == prompt
        assert answer.reason is not None and told in answer.reason


def test_unknown_words_are_told_with_known_things_that_are_near(reasoner: NanoReasoner):
    told = {"a mermaid": "mermaid", "a fox and two dwarves": "two dwarves", "a griffin!": "griffin"}
    for request, words in told.items():
        answer = reasoner(request)
        assert answer.reason is not None and words in answer.reason
    failed = reasoner("a mermaid")
    assert failed.outcome == "failed" and failed.prompt == "a mermaid"
    assert failed.reason is not None and "fish" in failed.reason


def test_a_prompt_without_end_is_left_alone_at_once(reasoner: NanoReasoner):
    answer = reasoner("a fox and " * 1000)
    assert answer.outcome == "unchanged"
    assert answer.reason is not None and "10000 characters" in answer.reason


MARKS = ('""', "''", "\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb", "\u300c\u300d", "``")


@pytest.mark.parametrize("marks", MARKS)
def test_quoted_text_is_kept_letter_by_letter(marks: str, reasoner: NanoReasoner):
    answer = reasoner(f"Please draw a board that reads {marks[0]}Ab9 cD{marks[1]}")
    assert answer.prompt == 'a sign that says "Ab9 cD"'
    assert all(check.is_kept for check in answer.checks)


def test_names_in_quotation_marks_are_a_text_and_no_thing(reasoner: NanoReasoner):
    assert reasoner('a dog beside a sign saying "two cats on blue"').prompt == (
        'a dog and a sign that says "two cats on blue"'
    )


def test_an_ordinary_word_is_never_taken_for_a_slip():
    ordinary = "coat hose boar fort loin moose hare stair beard cart growl brook fight pain belt bull bow"
    for word in ordinary.split():
        assert mended(word) == word
    slips = {"pengiun": "penguin", "girafe": "giraffe", "buterfly": "butterfly", "elefant": "elephant"}
    for word, meant in slips.items():
        assert mended(word) == meant


def test_letters_at_random_are_no_slip_of_a_name():
    for word in ("crokie", "bzllon", "xowl"):
        assert mended(word) == word


def test_prompts_with_two_readings_are_left_alone_and_the_reason_is_told(reasoner: NanoReasoner):
    for request in ("a car, blue", "fox car", "three or two owls are here: 4 5", 'signs "A1" and "B2"'):
        answer = reasoner(request)
        assert (answer.outcome, answer.prompt) == ("unchanged", request), answer
        assert answer.reason


def test_the_tokenizer_of_the_weights_tells_what_they_know():
    weights = Path(read_prompt.__code__.co_filename).parents[2] / "nano/weights/lens-nano/tokenizer"
    assert world_of(weights / "tokenizer.json") == NanoReasoner().world


def test_a_tokenizer_with_all_names_is_of_the_grown_world(tmp_path: Path):
    words = {f"\u0120{word}": 0 for name in OBJECT_CLASSES for word in name.split()}
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    whole.write_text(json.dumps({"model": {"vocab": words}}))
    words.pop("\u0120zebra")
    part.write_text(json.dumps({"model": {"vocab": words}}))
    assert world_of(whole) is GROWN_WORLD
    assert world_of(part) is FIRST_WORLD
