"""The date in the conversation around a prompt, as people write it."""

from datetime import date

import pytest

from lens.errors import SettingError
from lens.models.prompt_date import PINNED_DATE, parse_prompt_date


def test_a_date_stays_as_it_is_and_today_becomes_one():
    assert parse_prompt_date("2024-02-29") == "2024-02-29"
    assert parse_prompt_date(date(2031, 7, 4)) == "2031-07-04", "YAML reads a date as one"
    before, today, after = date.today(), parse_prompt_date("today"), date.today()
    assert before.isoformat() <= today <= after.isoformat()
    assert parse_prompt_date(PINNED_DATE) == PINNED_DATE == "2026-05-01"


@pytest.mark.parametrize(
    "value", ["2025-02-29", "2026-5-1", "20260501", "2026-W18-5", "yesterday", "", 20260501]
)
def test_anything_else_is_refused_under_the_name_of_its_setting(value):
    with pytest.raises(SettingError, match=r"--prompt-date is .*needs a date as in 2026-05-01"):
        parse_prompt_date(value, "--prompt-date")
