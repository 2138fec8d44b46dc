"""Reading: what a prompt says about its scene, as labels of the tokens that close the prompt.

The text encoder of lens-nano is trained to tell the scene at the scaffold, the fixed tokens after the prompt,
which have seen all of it: the background at the first one, then the groups in the order of their mention, the
relations of each pair, and the letters of a sign. A language model of billions of parameters learns to
understand a prompt from its data; this one has too few, so it is taught. Knows nothing of pixels or models.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import (
    MAX_COUNT,
    MAX_GROUPS,
    MAX_TEXT_LENGTH,
    OPPOSITE,
    PLACES,
    RELATIONS,
    SIGN_CHARACTERS,
    ObjectGroup,
    SceneSpec,
)

SEVERAL = MAX_COUNT + 1
"""Label of a count that is not stated: a bare plural."""
PAIRS = ((0, 1), (1, 2), (0, 2))
"""Pairs of groups that can be related."""


class Label(NamedTuple):
    """One fact that is read."""

    name: str
    """Its kind, and of what it is a fact: the number of a group, of a pair of groups, or of a letter."""
    token: int
    """The token that tells it, counted from the end of the prompt."""
    values: tuple[str | int | None, ...]
    """None, which stands for no such fact, and all others."""

    @property
    def kind(self) -> str:
        """The name without a number."""
        return self.name.rpartition("_")[0] or self.name


def _group_labels(group: int) -> tuple[Label, ...]:
    token = 1 + group
    return (
        Label(f"class_{group}", token, (None, *OBJECT_CLASSES)),
        Label(f"count_{group}", token, (None, *range(1, SEVERAL + 1))),
        Label(f"colour_{group}", token, (None, *OBJECT_COLOURS)),
        Label(f"size_{group}", token, (None, "small", "large")),
        Label(f"place_{group}", token, (None, *PLACES)),
    )


LABELS: tuple[Label, ...] = (
    Label("background", 0, (None, *COLOURS)),
    *(label for group in range(MAX_GROUPS) for label in _group_labels(group)),
    *(
        Label(f"relation_{a}{b}", 1 + MAX_GROUPS + pair, (None, *RELATIONS))
        for pair, (a, b) in enumerate(PAIRS)
    ),
    *(
        Label(f"letter_{place}", 1 + MAX_GROUPS + len(PAIRS) + place, (None, *SIGN_CHARACTERS))
        for place in range(MAX_TEXT_LENGTH)
    ),
)
"""All facts, in a fixed order."""

NUM_SCAFFOLD_TOKENS = 1 + max(label.token for label in LABELS)
"""Tokens after the prompt that tell something; the scaffold has more."""

_INDEX = [{value: index for index, value in enumerate(label.values)} for label in LABELS]


def reading_of(spec: SceneSpec) -> NDArray[np.int64]:
    """Return the labels of a spec whose groups are in the order of their mention: (len(LABELS),).

    Raises: ValueError for more groups or letters than there are labels.
    """
    if len(spec.groups) > MAX_GROUPS or len(spec.text or "") > MAX_TEXT_LENGTH:
        raise ValueError(f"at most {MAX_GROUPS} groups and {MAX_TEXT_LENGTH} letters can be read: {spec}")
    values: list[str | int | None] = [spec.background]
    for group in (*spec.groups, *[None] * (MAX_GROUPS - len(spec.groups))):
        values += [None] * 5 if group is None else _group_values(group)
    values += [_relation_of(spec, *pair) for pair in PAIRS]
    values += [*(spec.text or ""), *[None] * (MAX_TEXT_LENGTH - len(spec.text or ""))]
    return np.array([known[value] for known, value in zip(_INDEX, values, strict=True)])


def _first_mentions() -> tuple[dict[str, int], int]:
    """Return the place of the first value of each kind of fact but letters, and the number of all values."""
    first, num_values = {}, 0
    for label in LABELS:
        if label.kind not in ("letter", *first):
            first[label.kind] = num_values
            num_values += len(label.values) - 1
    return first, num_values


_FIRST_MENTION, NUM_MENTIONS = _first_mentions()
"""`NUM_MENTIONS`: values of all facts but letters, of whichever group or pair."""


def mentions_of(reading: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return which values a text mentions: (len(LABELS),) -> (NUM_MENTIONS,) of 0 and 1.

    A count of one, and one that is not stated, have no word of their own.
    """
    mentioned = np.zeros(NUM_MENTIONS, np.float32)
    for label, index in zip(LABELS, reading, strict=True):
        is_silent = label.kind == "count" and label.values[index] in (1, SEVERAL)
        if index and label.kind in _FIRST_MENTION and not is_silent:
            mentioned[_FIRST_MENTION[label.kind] + index - 1] = 1
    return mentioned


NUM_FACTS = sum(len(label.values) - 1 for label in LABELS)
"""Values of all labels, apart from none."""
_FIRST_FACT = np.cumsum([0, *(len(label.values) - 1 for label in LABELS)])


def facts_of(reading: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return which values of which label are read: (len(LABELS),) -> (NUM_FACTS,) of 0 and 1."""
    facts = np.zeros(NUM_FACTS, np.float32)
    told = np.flatnonzero(reading)
    facts[_FIRST_FACT[told] + reading[told] - 1] = 1
    return facts


def spec_of(reading: Sequence[int] | NDArray[np.int64]) -> SceneSpec:
    """Return the spec that labels tell: (len(LABELS),); facts of groups without a class are left out."""
    value: dict[str, Any] = {
        label.name: label.values[int(index)] for label, index in zip(LABELS, reading, strict=True)
    }
    groups, places = [], {}
    for group in range(MAX_GROUPS):
        if (name := value[f"class_{group}"]) is None:
            continue
        places[group] = len(groups)
        count, *others = (value[f"{fact}_{group}"] for fact in ("count", "colour", "size", "place"))
        groups.append(ObjectGroup(name, None if count == SEVERAL else count or 1, *others))
    relations = tuple(
        (places[a], relation, places[b])
        for a, b in PAIRS
        if (relation := value[f"relation_{a}{b}"]) is not None and a in places and b in places
    )
    text = "".join(value[f"letter_{place}"] or "" for place in range(MAX_TEXT_LENGTH))
    return SceneSpec(tuple(groups), value["background"], relations, text or None)


def _group_values(group: ObjectGroup) -> list[str | int | None]:
    count = SEVERAL if group.count is None else group.count
    return [group.class_name, count, group.colour, group.size, group.place]


def _relation_of(spec: SceneSpec, first: int, second: int) -> str | None:
    for a, relation, b in spec.relations:
        if (a, b) == (first, second):
            return relation
        if (b, a) == (first, second):
            return OPPOSITE[relation]
    return None
