"""The vocabulary check of the nano world: which words of a prompt name something that it does not have.

It needs no model. A word is told if a list has it as a thing outside the world, or if no list has it and it
stands where an English noun stands. What is known in any language, misspelt, quoted or negated is never told.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from lens.nano import vocabulary_tables as tables
from lens.nano.vocabulary_english import english_words, unknown_in_english
from lens.nano.vocabulary_scripts import is_of_language, unknown_in_script

MAX_TOLD = 3
"""Words that a warning names."""
MAX_NEIGHBOURS = 5


class UnknownWord(NamedTuple):
    """A word of a prompt that names nothing in the world."""

    text: str
    neighbours: tuple[str, ...]
    """Names of the things of the world that are most like it, the nearest first."""


def vocabulary_warning(prompt: str, model: str = "lens-nano") -> str | None:
    """Return what to tell the writer of a prompt about words that a model does not know, or None."""
    unknown, names_nothing = _check(prompt)
    lists = f"`lens info {model}` lists"
    if unknown:
        told = unknown[:MAX_TOLD]
        ranks = (word.neighbours[rank : rank + 1] for rank in range(MAX_NEIGHBOURS) for word in told)
        near = list(dict.fromkeys(name for names in ranks for name in names))[:MAX_NEIGHBOURS]
        knows = f"; it knows {', '.join(near)}: {lists} them" if near else f": {lists} what it knows"
        return f"{model} does not know {_joined([word.text for word in told])}{knows}"
    if names_nothing:
        return f"{model} knows nothing that this prompt names: {lists} what it knows"
    return None


def unknown_words(prompt: str) -> list[UnknownWord]:
    """Return the words of a prompt that name nothing in the world, those of Latin script first."""
    return list(_check(prompt).unknown)


class _Finding(NamedTuple):
    """What a check finds."""

    unknown: tuple[UnknownWord, ...]
    names_nothing: bool
    """Whether the prompt has words, and none of them is known."""


@lru_cache(maxsize=1024)
def _check(prompt: str) -> _Finding:
    text = _QUOTED.sub(f" {tables.SIGN_TEXT} ", prompt)
    scripts = {code for code, letters in _SCRIPTS.items() if letters.search(text)}
    latin = _NOT_LATIN.sub(" ", text)
    if scripts:  # capitals are the letters of a sign, or TV
        latin = re.sub(r"\b[A-Z0-9]+\b", " ", latin)
    parts = [(code, text) for code in sorted(scripts - {"zh"} if "ja" in scripts else scripts)]
    if re.search(r"[^\W\d_]{2}", latin):
        parts.insert(0, ("en" if scripts else _latin_language(latin), latin))
    told: dict[str, tuple[str, ...]] = {}
    names_known = tables.SIGN_TEXT in text
    for code, part in parts:
        unknown, is_known = unknown_in_english(part) if code == "en" else _unknown_in(part, code)
        told |= unknown
        names_known |= is_known
    words = (UnknownWord(_as_written(word, text), near[:MAX_NEIGHBOURS]) for word, near in told.items())
    return _Finding(tuple(words), not names_known and bool(re.search(r"[^\W\d_]{2}", text)))


_QUOTED = re.compile(
    "\"[^\"]*\"|\u201c[^\u201d]*\u201d|\u201e[^\u201c\u201d]*[\u201c\u201d]|\u00ab[^\u00bb]*\u00bb"
    "|\u00bb[^\u00ab]*\u00ab|`[^`]*`|\u300c[^\u300d]*\u300d|\u300e[^\u300f]*\u300f"
    "|(?<!\\w)'[^']{1,40}'(?![a-z])|(?<!\\w)\u2018[^\u2019]{1,40}\u2019"
)
_NOT_LATIN = re.compile("[\u0370-\u1fff\u3000-\uffee]+")
_SCRIPTS = {
    code: re.compile(f"[{letters}]")
    for code, letters in {
        "ru": "\u0400-\u04ff", "ar": "\u0600-\u06ff", "hi": "\u0900-\u097f", "ko": "\uac00-\ud7af",
        "ja": "\u3041-\u30ff", "zh": "\u4e00-\u9fff",
    }.items()
}  # fmt: skip


def _latin_language(text: str) -> str:
    """Return the language that has most of the words; English where another is no better."""
    words = tables.words_of(text)
    votes = {"en": sum(any(one in english_words() for one in tables.singulars(word)) for word in words)}
    if votes["en"] < len(words):
        for code in tables.LATIN_LANGUAGES[1:]:
            votes[code] = sum(_votes_for(word, code) for word in words)
    return max(votes, key=lambda code: votes[code])


@lru_cache(maxsize=8192)
def _votes_for(word: str, code: str) -> bool:
    return is_of_language(word, code)


def _unknown_in(text: str, code: str) -> tuple[dict[str, tuple[str, ...]], bool]:
    unknown, is_known = unknown_in_script(text, code)
    if code == "zh" and not any(unknown.values()) and (unknown or not is_known):
        in_japanese, is_japanese = unknown_in_script(text, "ja")  # Japanese can do without kana
        if any(in_japanese.values()) or (is_japanese and not in_japanese):
            return in_japanese, is_japanese
    return unknown, is_known


def _as_written(word: str, text: str) -> str:
    """Return a word as it is in the text; in lower case where it is in capitals."""
    found = re.search(r"[\s-]+".join(map(re.escape, word.split())), text, re.IGNORECASE)
    return found.group() if found and not found.group().isupper() else word


def _joined(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
