"""The date in the conversation around a prompt: the pinned one, and dates as they are given.

Free of torch. Spec: section 4.
"""

import re
from datetime import date

from lens.errors import SettingError

PINNED_DATE = "2026-05-01"
"""The date in the conversation. Tokens attend to it: with another date, a seed gives another image."""
TODAY = "today"


def parse_prompt_date(value: object, setting: str = "prompt_date") -> str:
    """Return a date in the form YYYY-MM-DD; "today" is the date of this machine, from now on fixed.

    Raises: SettingError for anything else.
    """
    text = value.isoformat() if type(value) is date else value  # YAML reads a date as one
    if text == TODAY:
        return date.today().isoformat()
    if isinstance(text, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            pass
    raise SettingError(setting, value, f'a date as in {PINNED_DATE}, or "{TODAY}"')
