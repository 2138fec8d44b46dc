"""What an image of the nano world must show: groups of objects, relations, colours, a text.

A spec has no layout. A caption states a spec, and the scorer compares an image with one. Knows nothing of
pixels or sentences.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Size = Literal["small", "large"]

RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

PLACES = (
    "centre", "left", "right", "top", "top left", "top right", "bottom", "bottom left", "bottom right",
)  # fmt: skip
"""The places of an image: combinations of its thirds."""

MAX_COUNT = 8
"""Most objects of a kind."""
MAX_GROUPS = 3
"""Most kinds of objects."""
MAX_TEXT_LENGTH = 8
"""Most characters on a sign."""
SIGN_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class ObjectGroup(NamedTuple):
    """Objects of one class. None stands for any value."""

    class_name: str
    count: int | None = 1
    colour: str | None = None
    """One of OBJECT_COLOURS; None for the colours of the drawing."""
    size: Size | None = None
    place: str | None = None
    """One of PLACES, of a single object."""


@dataclass(frozen=True)
class SceneSpec:
    """What an image must show; None and () stand for no requirement."""

    groups: tuple[ObjectGroup, ...] = ()
    background: str | None = None
    relations: tuple[tuple[int, str, int], ...] = ()
    """(index of a group, relation, index of the group it is related to)."""
    text: str | None = None
    """Characters of SIGN_CHARACTERS on a sign; a sign is no object."""

    def reordered(self, order: tuple[int, ...]) -> "SceneSpec":
        """Return the same requirements with the groups in another order: `order[k]` becomes group k."""
        place_of = {old: new for new, old in enumerate(order)}
        relations = tuple((place_of[a], relation, place_of[b]) for a, relation, b in self.relations)
        groups = tuple(self.groups[old] for old in order)
        return SceneSpec(groups, self.background, relations, self.text)
