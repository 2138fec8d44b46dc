"""What a picture of the nano world shows, and whether that is what was asked for; no learned judge.

Counts are exact, as in GenEval: a thing too many, of whatever kind, fails a picture as one too few does.
Regions come from regions.py, their names from matching.py. Knows nothing of models or how a picture was made.
Units: positions and sizes are pixels, x right, y down; a thing's place is the centre of its sprite square.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.errors import ShapeError
from lens.nano.scoring.segmentation import Group, Look, background_of, groups_in, softened
from lens.nano.scoring.template_matching import UNKNOWN, gallery_on
from lens.nano.world.objects import COLOURS
from lens.nano.world.scenes import Expected, base_px

if TYPE_CHECKING:
    from lens.nano.tasks import TaskPrompt

Picture = NDArray[np.uint8]

_LEAST_SIMILARITY = 0.6
"""What is less like every thing than this is unknown."""
_SMALLEST_SIDE = 0.16
"""Smallest side of a thing as a fraction of base_px; scenes go down to 0.205."""
_DEBRIS = 0.35
"""Unknown parts below this fraction of the smallest thing's square are dirt, not objects."""
_COVERED = 0.6
"""An unknown part with this share inside a found thing's square belongs to that thing."""
_RELATION_MARGIN = 0.1
"""Centres of things in a relation differ by at least this fraction of the sum of their sides."""


class Found(NamedTuple):
    """One thing in a picture; its name is UNKNOWN where nothing of the world fits."""

    thing: str
    x_px: float
    y_px: float
    size_px: float
    similarity: float


class Detections(NamedTuple):
    """Everything that a picture shows."""

    background: str
    background_rgb: tuple[int, int, int]
    found: tuple[Found, ...]


class Verdict(NamedTuple):
    """Whether a picture shows what was expected, why not, and what it shows."""

    passed: bool
    reasons: tuple[str, ...]
    detections: Detections


def detect(picture: Picture) -> Detections:
    """Return the background's colour and all things of an 8-bit picture, (H, W, 3).

    Raises: ShapeError for anything but an 8-bit colour picture.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise ShapeError(f"A picture is uint8 (height, width, 3), not {picture.dtype} {picture.shape}.")
    pixels = picture.astype(np.float32) / 255
    background = background_of(pixels)
    height, width = picture.shape[:2]
    smallest = _SMALLEST_SIDE * base_px(height, width)
    look = Look(softened(pixels) - np.asarray(background, np.float32), gallery_on(background), smallest)
    red, green, blue = (round(255 * channel) for channel in background)
    found = tuple(_found(groups_in(look), smallest))
    return Detections(colour_name((red, green, blue)), (red, green, blue), found)


def score(picture: Picture, expected: Expected) -> Verdict:
    """Compare a picture with what it must show: things and exact counts, relations, background."""
    return judge(detect(picture), expected)


def judge(detections: Detections, expected: Expected) -> Verdict:
    """Compare what a picture shows with what it must show; reasons are empty when it passes."""
    reasons = [*_wrong_counts(detections, expected), *_wrong_relations(detections, expected)]
    if expected.background not in (None, detections.background):
        reasons.append(f"the background is {detections.background}, not {expected.background}")
    return Verdict(not reasons, tuple(reasons), detections)


def score_pictures(
    pictures: Iterable[Picture], prompts: "Sequence[tuple[str, TaskPrompt]]"
) -> dict[str, float]:
    """Return the fraction of pictures that pass, by task, in the order in which the tasks first come.

    Prompts are pairs of a task and what it asks, one for each picture.
    Raises: ValueError when there are not as many pictures as prompts.
    """
    passed: defaultdict[str, list[bool]] = defaultdict(list)
    for picture, (task, prompt) in zip(pictures, prompts, strict=True):
        passed[task].append(score(picture, prompt.expected).passed)
    return {task: sum(results) / len(results) for task, results in passed.items()}


def is_related(detections: Detections, first: str, relation: str, second: str) -> bool:
    """Return whether all of one thing lie so to all of another, both of which are there."""
    one, other = ([found for found in detections.found if found.thing == name] for name in (first, second))
    return bool(one and other) and _is_related(one, other, relation)


def colour_name(rgb: tuple[int, int, int]) -> str:
    """Return the background colour whose middle shade is nearest to an 8-bit colour."""
    return min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], rgb, strict=True)))


def _found(groups: list[Group], smallest_px: float) -> list[Found]:
    """Name the groups, drop dirt and leftovers of found things; largest first."""
    known = [group for group in groups if group.match.similarity >= _LEAST_SIMILARITY]
    found = [Found(*group.match[:5]) for group in known]
    for group in groups:
        if group.match.similarity >= _LEAST_SIMILARITY or group.mask.sum() < _DEBRIS * smallest_px**2:
            continue
        if all(_share_inside(group, thing) < _COVERED for thing in found[: len(known)]):
            found.append(Found(UNKNOWN, *group.match[1:5]))
    return sorted(found, key=lambda thing: -thing.size_px)


def _share_inside(group: Group, thing: Found) -> float:
    """Return the fraction of a group's pixels that lie in a thing's square."""
    rows, columns = np.nonzero(group.mask)
    half = thing.size_px / 2
    return float(((np.abs(rows - thing.y_px) <= half) & (np.abs(columns - thing.x_px) <= half)).mean())


def _wrong_counts(detections: Detections, expected: Expected) -> list[str]:
    counts = Counter(thing.thing for thing in detections.found)
    wanted = Counter(dict(expected.groups))
    return [
        f"{counts[thing]} x {thing} found, {wanted[thing]} expected"
        for thing in sorted({*counts, *wanted})
        if counts[thing] != wanted[thing]
    ]


def _wrong_relations(detections: Detections, expected: Expected) -> list[str]:
    shown = {thing.thing for thing in detections.found}
    wrong = []
    for first, relation, second in expected.relations:
        names = expected.groups[first][0], expected.groups[second][0]
        # What is missing the counts tell.
        if shown.issuperset(names) and not is_related(detections, names[0], relation, names[1]):
            wrong.append(f"{names[0]} is not {relation} {names[1]}")
    return wrong


def _is_related(first: list[Found], second: list[Found], relation: str) -> bool:
    """Return whether all of one group lie so to all of the other, and mostly in that direction."""
    axis = 0 if relation in ("left of", "right of") else 1
    before, after = (first, second) if relation in ("left of", "above") else (second, first)
    is_ordered = all(
        _place(b)[axis] - _place(a)[axis] > _RELATION_MARGIN * (a.size_px + b.size_px)
        for a in before
        for b in after
    )
    middles = [np.mean([_place(thing) for thing in group], axis=0) for group in (first, second)]
    apart = np.abs(middles[0] - middles[1])
    return is_ordered and bool(apart[1 - axis] <= apart[axis])


def _place(thing: Found) -> tuple[float, float]:
    return thing.x_px, thing.y_px
