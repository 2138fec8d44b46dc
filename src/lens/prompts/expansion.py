"""Alternatives and wildcards: `{red|blue}` and `__colour__` in a prompt become one of their texts.

The seed of an image decides, so each image of a request gets texts of its own, and the same ones again. A
backslash before a character leaves it as it is; `syntax` takes the backslash away.

    {red|blue|}          one of three texts, of which one is empty
    {3::red|blue}        red three times as often
    {2$$red|blue|green}  two of them, joined by a comma; {1-2$$ and $$...} one or two, joined by " and "
"""

import random
import re

from lens.core.prompt_text import MAX_PROMPT_CHARACTERS
from lens.errors import SettingError
from lens.prompts.brackets import Brackets, find_brackets
from lens.prompts.wildcards import WILDCARD, Wildcards

MAX_DEPTH = 20
_COUNT = re.compile(r"\s*(\d{1,2})(?:-(\d{1,2}))?\$\$(?:([^${]*)\$\$)?")
_SHARE = re.compile(r"\s*(\d{1,6}(?:\.\d{1,6})?)::")


def expand(text: str, seed: int, wildcards: Wildcards) -> str:
    """Return a prompt with one text for each of its alternatives and wildcards; the seed decides which.

    Raises: SettingError for a wildcard without a file, for a circle, or for a text that becomes too long.
    """
    return _Expansion(random.Random(f"prompt {seed}"), wildcards).expand(text, 0)


class _Expansion:
    """The choices of one prompt, in the order of the text."""

    def __init__(self, numbers: random.Random, wildcards: Wildcards):
        self._numbers, self._wildcards = numbers, wildcards
        self._length = 0

    def expand(self, text: str, depth: int) -> str:
        if depth > MAX_DEPTH:
            needs = f"at most {MAX_DEPTH} alternatives and wildcards inside one another"
            raise SettingError("prompt", text, needs, "A wildcard may name itself in a circle.")
        braces = find_brackets(text, "{", "}")
        parts, place = [], 0
        while place < len(text):
            if text[place] == "\\":
                part, end = text[place : place + 2], place + 2
            elif place in braces and braces[place].separators:
                part, end = self._choose(braces[place], text, depth), braces[place].closing + 1
            elif found := WILDCARD.match(text, place):
                lines = self._wildcards.lines(found[1])
                part, end = self.expand(lines[self._index(len(lines))], depth + 1), found.end()
                self._count(part)
            else:
                part, end = text[place], place + 1
            parts.append(part)
            place = end
        return "".join(parts)

    def _choose(self, braces: Brackets, text: str, depth: int) -> str:
        options = braces.parts(text)
        low, high, joiner, options[0] = _count_of(options[0])
        shares, texts = zip(*map(_share_of, options), strict=True)
        left = list(range(len(options)))
        num_chosen = low + self._index(max(1, high - low + 1))
        chosen = []
        while left and len(chosen) < num_chosen:
            chosen.append(left.pop(self._weighted_index([shares[index] for index in left])))
        part = joiner.join(self.expand(texts[index], depth + 1).strip() for index in chosen)
        self._count(part)
        return part

    def _count(self, part: str) -> None:
        self._length += len(part)
        if self._length > MAX_PROMPT_CHARACTERS:
            shown = f"{part[:40]}..."
            raise SettingError("prompt", shown, f"at most {MAX_PROMPT_CHARACTERS} characters of choices")

    # Of this class, only the numbers of `random` are promised to be the same in every version of Python.
    def _index(self, size: int) -> int:
        return int(self._numbers.random() * size)

    def _weighted_index(self, shares: list[float]) -> int:
        point = self._numbers.random() * sum(shares)
        for index, share in enumerate(shares):
            point -= share
            if point < 0:
                return index
        return len(shares) - 1


def _count_of(first: str) -> tuple[int, int, str, str]:
    """Return how many alternatives are taken (fewest, most), what joins them, and the first alternative."""
    found = _COUNT.match(first)
    if found is None:
        return 1, 1, "", first
    low = int(found[1])
    return low, int(found[2] or low), ", " if found[3] is None else found[3], first[found.end() :]


def _share_of(option: str) -> tuple[float, str]:
    found = _SHARE.match(option)
    return (float(found[1]), option[found.end() :]) if found else (1.0, option)
