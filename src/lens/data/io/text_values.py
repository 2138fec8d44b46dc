"""Texts in values of JSON and of tables that others wrote.

A text that cannot be read is an error with the reason: a guess would put wrong characters into captions.
"""

import hashlib
import math
from typing import Any

from lens.text_files import TextError, check_text, decode_text

CAPTION_KEYS = ("caption", "captions", "text", "prompt", "description", "title")
"""Names of JSON keys and of columns that may hold the caption; the first one that is not empty counts."""
LICENCE_KEYS = ("licence", "license")


def escape_surrogates(text: str) -> str:
    r"""Return a text that can be stored: what is not a character becomes an escape such as `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def escape_controls(text: str) -> str:
    """Return a text that is safe on a terminal: characters that show nothing become escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def text_value(value: Any, draw_key: str) -> str:
    """Return a value of JSON or of a table as text, stripped; empty for none, which NaN is too.

    Of a list one text is drawn; the draw depends on `draw_key` alone.
    Raises: TextError for a value that is not text, and for a text that cannot be stored.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return visible_text(decode_text(value))
    if isinstance(value, str):
        return visible_text(check_text(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple):
        texts = [text for one in value if (text := text_value(one, draw_key))]
        return texts[_draw(len(texts), draw_key)] if texts else ""
    if isinstance(value, dict):
        return first_text(value, (*CAPTION_KEYS, "raw"), draw_key)
    raise TextError(f"holds a value of type {type(value).__name__} where a text is needed")


def visible_text(text: str) -> str:
    """Return a text, stripped; empty where it has no character that shows."""
    return text.strip() if any(one.isprintable() and not one.isspace() for one in text) else ""


def tags_text(value: Any, draw_key: str) -> str:
    """Return tags, a list or a text, as a text with commas. Raises: TextError."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (text_value(one, draw_key) for one in value)))
    return text_value(value, draw_key)


def first_text(values: dict[Any, Any], keys: tuple[str, ...], draw_key: str) -> str:
    """Return the text of the first key that has one; keys are compared without regard to case."""
    folded = {str(key).lower(): value for key, value in reversed(values.items())}
    return next((text for key in keys if (text := text_value(folded.get(key), draw_key))), "")


def _draw(count: int, draw_key: str) -> int:
    digest = hashlib.sha256(draw_key.encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:8]) % count
