"""Typing noise: what it may change and what it must keep."""

import random
import re
import unicodedata

import numpy as np
import pytest

from lens.nano.world.languages.text_noise import misspell, typing_noise, world_words

TEXT = 'Three small foxes to the left of two owls, a sign that says "HELLO9", on a plain blue background.'


def noisy(text: str, count: int, **settings) -> list[str]:
    rng = np.random.default_rng(5)
    return [typing_noise(text, rng, **settings) for _ in range(count)]


def letters(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).lower()
    return "".join(letter for letter in folded if letter.isalnum())


def test_noise_keeps_protected_text():
    for text in noisy(TEXT, 500, protected=("HELLO9",)):
        assert '"HELLO9"' in text


def test_a_protected_letter_is_no_part_of_words():
    texts = noisy('An Apple Ad with a sign "A"', 300, protected=("A",), typos=False)
    assert all('"A"' in text for text in texts)
    assert any(text.startswith("an apple ad") for text in texts)


CHINESE = "\u4e09\u53ea\u72d0\u72f8\uff0c\u84dd\u8272\u80cc\u666f\u3002"


@pytest.mark.parametrize("text", [TEXT, "drei F\u00fcchse, blauer Hintergrund", CHINESE])
def test_without_typos_only_case_punctuation_and_spaces_change(text):
    for noise in noisy(text, 300, typos=False, full_width=True):
        assert letters(noise) == letters(text)


def test_every_kind_of_case_and_end_occurs():
    texts = noisy(TEXT, 1000, typos=False)
    assert any(text.startswith("three small") for text in texts)
    assert any(text.startswith("THREE SMALL") for text in texts)
    assert any("Three Small Foxes" in text for text in texts)
    assert {"!!", ".."} <= {text.strip()[-2:] for text in texts}
    assert any("," not in text for text in texts) and any("  " in text for text in texts)
    assert 300 < sum(text.lower() == TEXT.lower() for text in texts) < 700


def test_about_one_word_in_eight_of_one_text_in_seven_has_a_typo():
    words = re.findall(r"[a-z]{4,}", TEXT.lower().replace("hello9", ""))
    changed = [
        sum(word not in text.lower() for word in words) for text in noisy(TEXT, 2000, protected=("HELLO9",))
    ]
    assert 0.06 < np.mean([count > 0 for count in changed]) < 0.15
    assert 0.01 < np.sum(changed) / (2000 * len(words)) < 0.03


def test_typos_never_make_words_of_the_world():
    choice = random.Random(3)
    for word in sorted(world_words()):
        if len(word) > 3:
            for typo in (misspell(word, choice) for _ in range(20)):
                assert typo == word or typo not in world_words()
                assert typo[0] == word[0]


def test_words_of_three_letters_have_no_typos():
    for text in noisy("a fox on a red car and one owl", 500):
        assert letters(text) == "afoxonaredcarandoneowl"


def test_full_width_punctuation_comes_and_goes():
    assert any("," in text for text in noisy(CHINESE, 300, full_width=True, typos=False))
    half = CHINESE.replace("\uff0c", ", ")
    assert any("\uff0c" in text for text in noisy(half, 300, full_width=True, typos=False))
