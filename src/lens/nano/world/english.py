"""English articles, lists, verbs and capitals for captions."""

from collections.abc import Sequence


def capitalize_sentences(text: str) -> str:
    """Return a text with capitals where sentences begin."""
    return ". ".join(part[:1].upper() + part[1:] for part in text.split(". "))


def with_article(noun: str) -> str:
    """Return a noun phrase after a or an."""
    return f"{article(noun)} {noun}"


def article(word: str) -> str:
    """Return a or an, by the sound that a word begins with."""
    return "an" if word[0].lower() in "aeiou" and not word.startswith(("uni", "one")) else "a"


def join_phrases(parts: Sequence[str], last: str = " and ") -> str:
    """Join phrases with commas and a last word."""
    return ", ".join(parts[:-1]) + last + parts[-1] if len(parts) > 1 else parts[0]


def be_verb(is_plural: bool) -> str:
    """Return is or are."""
    return "are" if is_plural else "is"
