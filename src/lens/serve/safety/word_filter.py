"""The word filter: rules of words and regular expressions that refuse or allow a prompt.

Case, accents, letter widths, invisible characters, hyphens and underscores make no difference. Other
spellings evade the rules. Knows nothing of images, endpoints or the consequences of a refusal.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, Self

from pydantic import model_validator

from lens.config import Settings
from lens.errors import SettingError

GAP = r"[\s_-]+"
NO_LETTER_BEFORE, NO_LETTER_AFTER = r"(?<![^\W_])", r"(?![^\W_])"
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts that join words or add endings to them: Thai, Lao, Burmese, Khmer, Kana, Han, Hangul."""


class WordRule(Settings):
    """Words and patterns that refuse a prompt, or that are allowed in spite of other rules.

    A rule matches a prompt with one of `words` or `patterns` and, if it has any, one of `and_words` or
    `and_patterns`.
    """

    name: str
    """Name in the audit file."""
    action: Literal["refuse", "allow"] = "refuse"
    """`allow` removes the matches of `words` and `patterns` from the text that the rules below see."""
    reason: str = ""
    """Message to the caller."""
    words: tuple[str, ...] = ()
    """Whole words or phrases."""
    patterns: tuple[str, ...] = ()
    """Python regular expressions, searched in the lower-case prompt without accents."""
    and_words: tuple[str, ...] = ()
    and_patterns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_patterns(self) -> Self:
        if not self.words and not self.patterns:
            raise SettingError(f"prompts.{self.name}", self.name, "words or patterns to look for")
        for word in (*self.words, *self.and_words):
            if not normalize(word).strip():
                raise SettingError(f"prompts.{self.name}.words", word, "words with letters")
        for pattern in (*self.patterns, *self.and_patterns):
            try:
                matches_nothing = re.compile(pattern).match("") is not None
            except re.error as error:
                needs = f"a regular expression ({error})"
                raise SettingError(f"prompts.{self.name}.patterns", pattern, needs) from error
            if matches_nothing:
                needs = "a regular expression that does not match the empty text"
                raise SettingError(f"prompts.{self.name}.patterns", pattern, needs)
        return self

    def matches(self, text: str) -> bool:
        """Return whether a prompt, as `normalize` returns it, matches."""
        and_regex = self._and_regex
        return self._regex.search(text) is not None and (
            and_regex is None or and_regex.search(text) is not None
        )

    def without_matches(self, text: str) -> str:
        """Return a prompt without the matches of `words` and `patterns`."""
        return self._regex.sub(" . ", text)  # a separator that no phrase can span

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return _compile_patterns(self.words, self.patterns)

    @cached_property
    def _and_regex(self) -> re.Pattern[str] | None:
        has_condition = self.and_words or self.and_patterns
        return _compile_patterns(self.and_words, self.and_patterns) if has_condition else None


def find_refusing_rule(rules: Iterable[WordRule], prompt: str) -> WordRule | None:
    """Return the first rule that refuses a prompt; None if no rule does."""
    text = normalize(prompt)
    for rule in rules:
        if rule.matches(text):
            if rule.action == "refuse":
                return rule
            text = rule.without_matches(text)
    return None


def normalize(text: str) -> str:
    """Return a text in lower case, without accents and invisible characters, with single spaces."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    letters = (
        one for one in decomposed if unicodedata.category(one) != "Cf" and not "\u0300" <= one <= "\u036f"
    )
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", "".join(letters)))


def _compile_patterns(words: Sequence[str], patterns: Sequence[str]) -> re.Pattern[str]:
    every = [*map(_word_pattern, words), *(f"(?:{one})" for one in patterns)]
    return re.compile("|".join(every), re.IGNORECASE)


def _word_pattern(word: str) -> str:
    parts = [re.escape(part) for part in re.split(GAP, normalize(word)) if part]
    phrase = GAP.join(parts)
    return phrase if UNSPACED.search(word) else f"{NO_LETTER_BEFORE}{phrase}{NO_LETTER_AFTER}"
