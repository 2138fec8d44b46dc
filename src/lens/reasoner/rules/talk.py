"""Talk about a prompt, refusals in words, and several prompts in one answer."""

import re
from collections.abc import Sequence
from functools import cache

from lens.reasoner.rules.quotes import without_quotes
from lens.reasoner.rules.tables import is_unspaced, normal, pattern_of, tables, words_of

MAX_LABEL = 160
"""Characters of a sentence that leads to a prompt."""
LIST_ITEMS = re.compile(r"(?:^|\s)(?:\*\*)?1[.):]\s*\S.{15,}?\s(?:\*\*)?2[.):]\s*\S", re.DOTALL)
BULLETS = re.compile(r"\A[-*\u2022]\s+\S.*\s[-*\u2022]\s+\S", re.DOTALL)
MARKUP = re.compile(r"```|<\|[\w/]+\|>|</?(?:think|answer|prompt)\b|\{\s*\"\w+\"\s*:|^#{1,6}\s")
MIN_PARAGRAPH_WORDS = 6
MIN_LIKENESS = 0.45
"""Share of common words at which two paragraphs are two prompts of one scene."""


@cache
def _leading() -> tuple[re.Pattern[str], ...]:
    pointing, nouns = tables()["pointing"], tables()["nouns"]
    end, inside = r"(?:[:\uff1a]|[.!\u3002](?=\s|$|\S)|\n)", r"[^:\uff1a\n.!\u3002]"
    bold, before_colon = r"(?:\*\*|__|#{1,6}\s*|[-*>]\s+)?", r"[\s*_]*"
    marks = r"(?:(?:\*\*|__)(?=\s))?\s*"
    adjectives, after = tables()["label_words"], tables()["trailing_label_words"]
    label = rf"(?:(?:{adjectives})\s?){{0,4}}(?:{nouns})(?:\s?(?:{after}))?(?:\s?[#\d]+)?"
    sources = (
        rf"{bold}\u00a1?(?:{tables()['agreement']})(?:\s?[!,.:\uff0c\uff01\u3002\u060c\u3001\u0964]+{marks}|\s*\n\s*)",
        rf"{bold}(?:{pointing}){inside}{{0,{MAX_LABEL}}}?(?:\b|(?<=\s)|(?=\S))(?:{nouns}){inside}{{0,80}}{end}{marks}",
        rf"{bold}(?:{pointing}){inside}{{0,60}}[:\uff1a]{marks}",
        rf"{bold}{inside}{{0,80}}(?:{nouns}){inside}{{0,40}}[:\uff1a]{marks}\n\s*",
        rf"{bold}{label}{before_colon}(?:[:\uff1a]{marks}|\n\s*)",
    )
    return tuple(re.compile(rf"\A\s*{source}", re.IGNORECASE) for source in sources)


@cache
def _label_of_line() -> re.Pattern[str]:
    """Return what names a prompt on a line of its own, after other lines: "Final prompt:"."""
    adjectives, nouns, marks = tables()["label_words"], tables()["nouns"], r"[\s*_]*"
    label = rf"(?:(?:{adjectives})\s?){{1,4}}(?:{nouns}){marks}[:\uff1a]{marks}"
    return re.compile(rf"\n[ \t]*(?:\*\*|__|#+\s*)?{label}", re.IGNORECASE)


def without_leading_talk(text: str) -> str:
    """Return a text without what is said before the prompt, such as "Sure, here is the prompt:"."""
    labels = list(_label_of_line().finditer(text))
    if len(labels) == 1 and text[labels[0].end() :].strip():
        text = text[labels[0].end() :].strip()
    for _ in range(4):
        before = text
        for pattern in _leading():
            match = pattern.match(text)
            if match and text[match.end() :].strip():
                text = text[match.end() :].strip()
        if text == before:
            break
    return text


def talk_in(original: str, refined: str) -> str | None:
    """Return the words of a prompt that talk about it; the words of the request are none."""
    return _found(pattern_of("talk"), original, refined)


def refusal_in(original: str, refined: str) -> str | None:
    """Return the words of an answer that refuse the request."""
    return _found(pattern_of("refusals"), original, refined)


def is_several(original: str, refined: str, paragraphs: Sequence[str] = ()) -> bool:
    """Return whether an answer holds several prompts, or one in a form that is no plain text."""
    plain = without_quotes(refined)
    if LIST_ITEMS.search(plain) or BULLETS.search(plain):
        return True
    if any(match[0] not in original for match in MARKUP.finditer(refined)):
        return True
    if any(re.fullmatch(r"[-*_=]{3,}", one.strip()) for one in paragraphs[1:]):
        return True
    sets = [set(_units(one)) for one in paragraphs]
    return any(
        len(first) >= MIN_PARAGRAPH_WORDS
        and len(second) >= MIN_PARAGRAPH_WORDS
        and len(first & second) / len(first | second) > MIN_LIKENESS
        for at, first in enumerate(sets)
        for second in sets[at + 1 :]
    )


def _units(text: str) -> list[str]:
    """Return words, or pairs of letters where a script has no spaces."""
    if not is_unspaced(text):
        return words_of(text)
    letters = re.sub(r"\W", "", text)
    return [letters[at : at + 2] for at in range(len(letters) - 1)]


def _found(pattern: re.Pattern[str], original: str, refined: str) -> str | None:
    asked = normal(original).casefold()
    for match in pattern.finditer(normal(without_quotes(refined)).strip()):
        words = match[0].strip()
        if words and words.casefold() not in asked:
            return words
    return None
