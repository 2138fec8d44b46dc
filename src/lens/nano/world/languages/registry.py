"""The languages of captions, each imported when it is first asked for."""

from functools import cache
from importlib import import_module

from lens.nano.world.languages.base import Language

LANGUAGES: dict[str, str] = {
    "de": "european.german:German",
    "fr": "european.french:French",
    "it": "european.italian:Italian",
    "es": "european.spanish:Spanish",
    "pt": "european.portuguese:Portuguese",
    "ru": "european.russian:Russian",
    "ja": "asian.japanese:Japanese",
    "ko": "asian.korean:Korean",
    "hi": "asian.hindi:Hindi",
    "ar": "asian.arabic:Arabic",
    "zh": "asian.chinese:Chinese",
}
"""Module and class by ISO 639-1 code."""


@cache
def language(code: str) -> Language:
    """Return a language by its code."""
    module, _, name = LANGUAGES[code].partition(":")
    return getattr(import_module(f"lens.nano.world.languages.{module}"), name)()
