"""Captions that are unfit for training have an error, good ones pass."""

import pytest

from lens.data.captions.prompts import CAPTION_PROMPTS
from lens.data.captions.validation import CaptionRules, caption_error, text_recall
from lens.errors import SettingError

GOOD = (
    "A red fox with a white-tipped tail sits on the left of a low wooden fence, facing two green apples that "
    'lie in the snow to its right. Behind them a pale blue sky fades to white. A board on the fence says "No '
    'Entry" in black capitals.'
)
LOOSE = CaptionRules(min_words=1)


def test_a_good_caption_passes_with_the_text_that_was_read():
    assert caption_error(GOOD, CaptionRules()) is None
    assert caption_error(GOOD, CaptionRules(), ocr_words=["NO", "entry"]) is None


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("  ", "empty"),
        ("I'm sorry, but I can't help with identifying the person.", "refusal"),
        ("As an AI, I have no eyes.", "refusal"),
        ("A fox.", "too_short"),
        ("word " * 501, "too_long"),
        (f"The image shows {GOOD}", "about_the_task"),
        (f"Here is a detailed caption: {GOOD}", "about_the_task"),
        (f"{GOOD} There is no visible text in the picture.", "no_text_remark"),
        (f"{GOOD} The wall is without any writing, and no legible words stand on it.", "no_text_remark"),
    ],
)
def test_each_fault_has_its_reason(caption, reason):
    assert caption_error(caption, CaptionRules()) == reason


def test_quotations_from_the_image_are_no_error():
    sign = 'A hand-painted sign reads "I can\'t swim, and no text messages please" above a muddy green pond.'
    assert (
        caption_error(
            "A wide river bank at dusk, seen from a boat with two rowers in yellow coats who look up "
            "at a grey heron on a branch; " + sign,
            CaptionRules(),
        )
        is None
    )


def test_ocr_text_that_is_not_quoted_is_an_error_from_a_few_words_on():
    assert caption_error(GOOD, CaptionRules(), ocr_words=["SALE", "TODAY", "ONLY"]) == "text_missed"
    assert caption_error(GOOD, CaptionRules(), ocr_words=["SALE"]) is None
    assert caption_error(GOOD, CaptionRules(min_text_recall=0), ocr_words=["SALE", "TODAY"]) is None


def test_a_caption_that_was_cut_off_is_a_fault():
    assert caption_error(GOOD, CaptionRules(), is_cut=True) == "cut_off"


def test_recall_counts_words_of_quotations_without_case_accents_or_marks():
    curly = "\N{LEFT DOUBLE QUOTATION MARK}noir\N{RIGHT DOUBLE QUOTATION MARK}"
    caption = f'A shop sign "Caf\N{LATIN SMALL LETTER E WITH ACUTE} Noir!" and a mat that says {curly}.'
    assert text_recall(caption, ["CAFE", "noir", "NOIR", "open"]) == pytest.approx(3 / 4)
    assert text_recall("A cafe.", ["cafe"]) == 0
    assert text_recall("A cafe.", []) == 1


def test_a_caption_as_the_prompt_requests_it_passes_the_rules():
    assert f"at most {CaptionRules().max_words} words" in CAPTION_PROMPTS["dense"].user
    assert caption_error("Two red apples on snow.", LOOSE) is None


def test_an_empty_range_of_lengths_is_refused():
    with pytest.raises(SettingError, match="at most max_words"):
        CaptionRules.of({"min_words": 9, "max_words": 3})
