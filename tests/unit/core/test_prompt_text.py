"""What may be a prompt: any text that can be encoded, up to one length; and what is told of a cut one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens.core.prompt_text import MAX_PROMPT_CHARACTERS, TokenCount, check_prompt_text
from lens.errors import SettingError

ANY_CHARACTER = st.characters(codec=None, exclude_categories=())
"""Halves of surrogate pairs and NUL among them."""


@given(st.text(ANY_CHARACTER, max_size=30))
def test_a_text_is_accepted_if_and_only_if_it_is_utf_8_without_nul(text):
    is_text = "\0" not in text and text.encode("utf-8", "ignore").decode() == text
    try:
        check_prompt_text(text)
        is_accepted = True
    except SettingError as error:
        is_accepted = False
        str(error).encode()  # can be printed
    assert is_accepted == is_text


def test_the_length_has_one_limit_and_its_message_is_short():
    check_prompt_text("x" * MAX_PROMPT_CHARACTERS)
    with pytest.raises(SettingError, match="at most 32000 characters") as caught:
        check_prompt_text("x" * 600_000, "--negative")
    assert str(caught.value).startswith("--negative is 'xxx") and len(str(caught.value)) < 200


def test_a_message_shows_the_place_of_what_cannot_be_read():
    with pytest.raises(SettingError, match=r"fox \\udcff in the snow"):
        check_prompt_text(f"{'a ' * 1000}fox \udcff in the snow{' and' * 1000}")


def test_a_prompt_that_fits_to_the_token_is_not_told():
    assert (TokenCount(7, 7).warning(), TokenCount(7, 7).num_read) == (None, 7)
    told = TokenCount(9, 7, "the end").warning("negative prompt") or ""
    assert told.startswith("The negative prompt has 9 tokens, of which 7 fit: the last 2 are dropped")
    assert "'the end'" in told
