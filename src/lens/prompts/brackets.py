"""Pairs of brackets in a text, found in one pass: prompts of strangers may hold thousands of them."""

from itertools import pairwise
from typing import NamedTuple


class Brackets(NamedTuple):
    """A pair of brackets: the places of both, and of the separators that stand directly inside."""

    opening: int
    closing: int
    separators: tuple[int, ...]

    def parts(self, text: str) -> list[str]:
        """Return what stands inside, split at the separators."""
        places = [self.opening, *self.separators, self.closing]
        return [text[start + 1 : stop] for start, stop in pairwise(places)]


def find_brackets(text: str, left: str, right: str, separator: str = "|") -> dict[int, Brackets]:
    """Return the pairs by the place of the opening one; none begins or ends behind a backslash."""
    pairs: dict[int, Brackets] = {}
    open_pairs: list[tuple[int, list[int]]] = []
    is_escaped = False
    for place, character in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        elif character == left:
            open_pairs.append((place, []))
        elif character == right and open_pairs:
            opening, separators = open_pairs.pop()
            pairs[opening] = Brackets(opening, place, tuple(separators))
        elif character == separator and open_pairs:
            open_pairs[-1][1].append(place)
    return pairs
