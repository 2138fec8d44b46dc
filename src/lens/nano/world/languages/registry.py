"""The languages of captions, each imported when it is first asked for."""

from functools import cache
from importlib import import_module

from lens.nano.world.languages.base import Language

LANGUAGES: dict[str, str] = {
    "de": "german:German",
    "fr": "french:French",
    "it": "italian:Italian",
    "es": "spanish:Spanish",
    "pt": "portuguese:Portuguese",
    "ru": "russian:Russian",
    "ja": "japanese:Japanese",
    "ko": "korean:Korean",
    "hi": "hindi:Hindi",
    "ar": "arabic:Arabic",
    "zh": "chinese:Chinese",
}
"""Module and class by ISO 639-1 code."""


@cache
def language(code: str) -> Language:
    """Return a language by its code."""
    module, _, name = LANGUAGES[code].partition(":")
    return getattr(import_module(f"lens.nano.world.languages.{module}"), name)()
