"""Syntax of other programs inside a prompt: LoRAs, weights, and what is not understood here.

`<lora:ink:0.8>` is taken out of the text and applied. `(word:1.3)` and `((word))` are read as the word, since
weights of words do not act here: the denoiser normalizes each token's features, which takes away any factor.
A backslash before a character of the syntax draws that character. Text in single brackets stays as it is.
"""

import re
from typing import NamedTuple

from lens.errors import SettingError
from lens.prompts.brackets import find_brackets
from lens.prompts.wildcards import WILDCARD

SPECIAL = re.escape("(){}[]<>|_:\\")
"""Characters that a backslash makes plain."""
MAX_WEIGHT = 10.0
"""Of a word; a larger number after a colon is a time or a ratio."""
MAX_LORA_WEIGHT = 100.0
_LORA = re.compile(r"(?<!\\)<lora:([^<>:]{1,200}):?([^<>]{0,40})>", re.IGNORECASE)
_ESCAPED = re.compile(rf"\\([{SPECIAL}])")
_WEIGHT = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)\s*")
_QUOTED = re.compile("\"[^\"]*\"|\u201c[^\u201d]*\u201d")
_NOT_UNDERSTOOD = (
    re.compile(r"(?<!\\)<[a-z]{3,20}:[^<>]{1,80}>", re.IGNORECASE),  # hypernetworks, lyco, random
    re.compile(r"(?<!\\)\[[^\[\]\\]{1,80}\]"),  # less weight, editing by steps, alternation
    re.compile(r"(?<!\\)\{[^{}|\\:\"]{1,80}\}"),  # more weight
    re.compile(r"\bembedding:[\w.-]+"),
    re.compile(r"(?:\w|\))(?:\+{2,}|-{2,})(?=[\s,.]|$)"),
    re.compile(r"\bBREAK\b|(?<=\s)AND(?=\s)"),
)
MAX_TOLD = 3
"""Places of one prompt that a warning names."""


class InlineLora(NamedTuple):
    """A LoRA that a prompt names, and its weight."""

    name: str
    weight: float


class PlainText(NamedTuple):
    """A text without syntax, and what to tell about what was in it."""

    text: str
    warnings: tuple[str, ...] = ()


def take_loras(text: str) -> tuple[str, tuple[InlineLora, ...]]:
    """Return a prompt without its LoRAs, and the LoRAs.

    Raises: SettingError for a weight that is no number, or a LoRA that is named twice.
    """
    found = [(match[0], match[1].strip(), match[2]) for match in _LORA.finditer(text)]
    loras = tuple(InlineLora(name, _lora_weight(whole, weight)) for whole, name, weight in found)
    names = [lora.name for lora in loras]
    for name in names:
        if names.count(name) > 1:
            raise SettingError("prompt", f"<lora:{name}>", "each LoRA once", "Add the two weights.")
    return (_tidied(_LORA.sub("", text)) if loras else text), loras


def named_loras(text: str) -> set[str]:
    """Return the names of all LoRAs in a prompt, those of its alternatives too."""
    return {match[1].strip() for match in _LORA.finditer(text)}


def plain_text(text: str) -> PlainText:
    """Return a prompt as the model reads it, without weights and backslashes, and what to tell about it."""
    unweighted, weighted = _without_weights(text)
    warnings = []
    if weighted:
        shown = ", ".join(f"{whole} is read as {words}" for whole, words in weighted[:MAX_TOLD])
        warnings.append(f"weights of words have no effect on this model: {shown}")
    unquoted = _QUOTED.sub(" ", unweighted)
    unknown = [match[0] for pattern in _NOT_UNDERSTOOD for match in pattern.finditer(unquoted)]
    if unknown:
        shown = ", ".join(list(dict.fromkeys(unknown))[:MAX_TOLD])
        warnings.append(f"syntax of other programs that is not understood here is read as words: {shown}")
    return PlainText(_ESCAPED.sub(r"\1", unweighted), tuple(warnings))


def escape(text: str) -> str:
    """Return a text that is read as it is: with backslashes where it has syntax, else unchanged."""
    has_choices = WILDCARD.search(text) or any(
        braces.separators for braces in find_brackets(text, "{", "}").values()
    )
    is_plain = plain_text(text).text == text and not _LORA.search(text) and not has_choices
    return text if is_plain else re.sub(rf"([{SPECIAL}])", r"\\\1", text)


def _without_weights(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return a text without weights, and (as written, without) of each outermost weight."""
    pairs = find_brackets(text, "(", ")", ":")
    removed: set[int] = set()
    weighted: list[tuple[int, int]] = []
    end = 0
    for opening in sorted(pairs):
        pair = pairs[opening]
        inner = pairs.get(opening + 1)
        if pair.separators and _is_weight(text, pair.separators[-1], pair.closing):
            removed |= {opening, *range(pair.separators[-1], pair.closing + 1)}
        elif inner is not None and inner.closing == pair.closing - 1:
            removed |= {opening, opening + 1, pair.closing - 1, pair.closing}
        else:
            continue
        if opening >= end:
            end = pair.closing + 1
            weighted.append((opening, end))

    def kept(start: int, stop: int) -> str:
        return "".join(text[place] for place in range(start, stop) if place not in removed)

    return kept(0, len(text)), [(text[start:stop], kept(start, stop)) for start, stop in weighted]


def _is_weight(text: str, colon: int, stop: int) -> bool:
    """Return whether a weight stands behind a colon: no time such as 12:30, and no ratio such as 16:9."""
    if not _WEIGHT.fullmatch(text, colon + 1, stop):
        return False
    is_ratio = text[colon - 1].isdecimal() and "." not in text[colon:stop]
    return not is_ratio and abs(float(text[colon + 1 : stop])) <= MAX_WEIGHT


def _lora_weight(whole: str, text: str) -> float:
    if not text.strip():
        return 1.0
    weight = float(text) if _WEIGHT.fullmatch(text) else None
    if weight is None or abs(weight) >= MAX_LORA_WEIGHT:
        needs = f"one weight between -{MAX_LORA_WEIGHT:g} and {MAX_LORA_WEIGHT:g}"
        raise SettingError("prompt", whole, needs, "For example <lora:ink:0.8>.")
    return weight


def _tidied(text: str) -> str:
    """Return a text without the commas and blanks that stood around what was taken out."""
    text = re.sub(r"\s*,(?:\s*,)+", ",", re.sub(r"[ \t]{2,}", " ", text))
    return re.sub(r"\s+([,.])", r"\1", text).strip(" \t\n,")
