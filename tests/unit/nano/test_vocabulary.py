"""The vocabulary check tells what the world has not, and keeps quiet about what it has."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lens.nano.captions import CaptionMix, nano_caption
from lens.nano.vocabulary import unknown_words, vocabulary_warning
from lens.nano.world.languages.registry import LANGUAGES
from lens.nano.world.objects import OBJECT_CLASSES

PROMPTS = Path(__file__).parents[3] / "recipes" / "nano" / "prompts"
DATA = json.loads(Path(__file__).with_name("vocabulary_prompts.json").read_text(encoding="utf-8"))
OUTSIDE = DATA["outside"] | DATA["in_no_list"] | DATA["in_other_languages"]
"""Prompts that name something outside the world, and the first word that is told."""
DESCRIPTION = (
    "A {} sits on a rock in the middle of the sea. The {} has long hair and a green tail, and beside it a "
    "small fish looks up. The picture is drawn in a flat and friendly style with clean outlines, and "
    "the background is a plain light blue without any clouds."
)


def told(prompt):
    return [word.text for word in unknown_words(prompt)]


@pytest.mark.parametrize(("prompt", "word"), OUTSIDE.items())
def test_what_the_world_has_not_is_told(prompt, word):
    assert told(prompt)[:1] == [word]


@pytest.mark.parametrize(
    "path", sorted(PROMPTS.rglob("*.jsonl")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_no_prompt_of_the_evaluations_is_warned_about(path):
    prompts = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert {prompt: warning for prompt in prompts if (warning := vocabulary_warning(prompt))} == {}


@pytest.mark.parametrize("prompt", DATA["known"])
def test_what_people_write_about_known_things_is_not_told(prompt):
    assert vocabulary_warning(prompt) is None


def test_every_class_and_its_names_are_known():
    pairs = [pair for one in OBJECT_CLASSES.values() for pair in ((one.name, one.plural), *one.synonyms)]
    assert [name for pair in pairs for name in pair if vocabulary_warning(name)] == []


@pytest.mark.parametrize("code", [*LANGUAGES, "dense"])
def test_captions_of_the_world_are_not_warned_about(code):
    mix = CaptionMix(1, 0, 0) if code == "dense" else CaptionMix(0, 0, 1, (code,))
    captions = [nano_caption(3, index, mix).text for index in range(200)]
    assert [caption for caption in captions if vocabulary_warning(caption)] == []


def test_captions_in_peoples_own_words_are_warned_about_only_for_their_pseudo_words():
    captions = [nano_caption(3, index, CaptionMix(0, 0, 0)).text for index in range(400)]
    assert sum(vocabulary_warning(caption) is not None for caption in captions) <= 400 * 0.03


def test_a_description_is_warned_about_for_what_it_introduces():
    assert told(DESCRIPTION.format("mermaid", "mermaid")) == ["mermaid"]
    assert told(DESCRIPTION.format("cat", "cat")) == []


def test_the_warning_names_the_nearest_things_and_where_the_list_is():
    assert vocabulary_warning("a mermaid") == (
        "lens-nano does not know mermaid; it knows fish, shell, octopus, dolphin, turtle: "
        "`lens info lens-nano` lists them"
    )
    assert vocabulary_warning("a blorp", "lens-nano-turbo") == (
        "lens-nano-turbo does not know blorp: `lens info lens-nano-turbo` lists what it knows"
    )
    assert vocabulary_warning("een vos op een blauwe achtergrond") == (
        "lens-nano knows nothing that this prompt names: `lens info lens-nano` lists what it knows"
    )


def test_all_neighbours_are_things_of_the_world():
    near = {name for prompt in OUTSIDE for one in unknown_words(prompt) for name in one.neighbours}
    assert len(near) > 50 and near <= OBJECT_CLASSES.keys()


def test_a_check_takes_less_than_2_ms():
    prompts = [nano_caption(5, index, CaptionMix(0.3, 0, 0.3)).text for index in range(300)]
    vocabulary_warning("ein Fuchs, a fox")
    for caption in prompts[:100]:
        vocabulary_warning(caption)
    started_at = time.process_time()
    for caption in prompts[100:]:
        vocabulary_warning(caption)
    assert (time.process_time() - started_at) / 200 < 0.002


def test_the_check_loads_no_torch():
    code = "import sys, lens.nano.vocabulary as v; v.unknown_words('a fox'); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "False\n"
