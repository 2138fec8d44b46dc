"""Comparison of detected objects with the groups of a spec: which belongs to which, and what is wrong.

Counts are exact; a count of None is any number from one. Groups of one class differ in colour or size, so
objects are assigned to groups, and relations hold for some assignment. Knows nothing of pixels.
Units: positions and sizes are pixels, x right, y down.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from lens.nano.scoring.detections import DetectedObject, Detections
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

SMALL_SHARE = 0.36
"""Objects up to this fraction of the base are small, as in Scene.size."""
_SIZE_RATIO = 1.25
"""Large objects are at least that many times as large as the small ones of their image."""
_RELATION_MARGIN = 0.1
"""Centres of objects in a relation differ by at least this fraction of the sum of their sides."""

Objects = Sequence[DetectedObject]
Assignment = tuple[tuple[DetectedObject, ...], ...]
"""The objects of each group."""


def scene_errors(detections: Detections, spec: SceneSpec) -> list[str]:
    """Return what is wrong with the objects of an image: counts, colours, sizes, relations."""
    groups = tuple(ObjectGroup(*group) for group in spec.groups)
    wrong = _count_errors(detections.objects, groups)
    valid = [] if wrong else list(assignments(detections, spec))
    if not wrong and not valid:
        wrong = _attribute_errors(detections, groups)
    if valid:
        errors = [_relation_errors(assignment, spec) for assignment in valid]
        return min(errors, key=len)
    return wrong + _relation_errors([_of_class(detections.objects, group) for group in groups], spec)


def assignments(detections: Detections, spec: SceneSpec) -> Iterator[Assignment]:
    """Yield the ways to assign all objects to groups that agree in class, colour, size and count."""
    groups = tuple(ObjectGroup(*group) for group in spec.groups)
    if {thing.class_name for thing in detections.objects} - {group.class_name for group in groups}:
        return
    by_class: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        by_class.setdefault(group.class_name, []).append(number)
    ways = []
    for numbers in by_class.values():
        things = _of_class(detections.objects, groups[numbers[0]])
        ways.append(list(_partitions(things, numbers, groups, detections.base_px)))
    for chosen in product(*ways):
        merged = {number: things for way in chosen for number, things in way.items()}
        assignment = tuple(tuple(merged[number]) for number in range(len(groups)))
        if _differ_in_size(assignment, groups):
            yield assignment


def has_colour(thing: DetectedObject, colour: str | None) -> bool:
    """Return whether an object has a colour; the drawing has its natural one. None stands for any."""
    return colour in (None, thing.colour or COLOURABLE.get(thing.class_name))


def has_size(thing: DetectedObject, size: str | None, base_px: float) -> bool:
    """Return whether an object is small or large; None stands for any size."""
    return size in (None, "small" if thing.size_px <= SMALL_SHARE * base_px else "large")


def group_objects(detections: Detections, group: ObjectGroup) -> list[DetectedObject]:
    """Return the objects of the class and the colour of a group, whatever their sizes."""
    return [thing for thing in _of_class(detections.objects, group) if has_colour(thing, group.colour)]


def are_related(first: Objects, second: Objects, relation: str) -> bool:
    """Return whether all of one group have the relation to all of the other, mostly along its axis."""
    axis = 0 if relation in ("left of", "right of") else 1
    before, after = (first, second) if relation in ("left of", "above") else (second, first)
    is_ordered = all(
        _centre(b)[axis] - _centre(a)[axis] > _RELATION_MARGIN * (a.size_px + b.size_px)
        for a in before
        for b in after
    )
    middles = [np.mean([_centre(thing) for thing in group], axis=0) for group in (first, second)]
    apart = np.abs(middles[0] - middles[1])
    return is_ordered and bool(apart[1 - axis] <= apart[axis])


def _partitions(
    things: Objects, numbers: Sequence[int], groups: Sequence[ObjectGroup], base_px: float
) -> Iterator[dict[int, list[DetectedObject]]]:
    """Yield the ways to give each object of a class to one of the groups of that class."""
    fitting = [
        [
            number
            for number in numbers
            if has_colour(thing, groups[number].colour) and has_size(thing, groups[number].size, base_px)
        ]
        for thing in things
    ]
    for choice in product(*fitting):
        counts = Counter(choice)
        if all(_is_count(counts[number], groups[number].count) for number in numbers):
            yield {
                number: [thing for thing, owner in zip(things, choice, strict=True) if owner == number]
                for number in numbers
            }


def _is_count(found: int, count: int | None) -> bool:
    return found >= 1 if count is None else found == count


def _differ_in_size(assignment: Assignment, groups: Sequence[ObjectGroup]) -> bool:
    """Return whether large objects are clearly larger than small ones, where an image must show both."""
    sizes = {
        size: [
            thing.size_px
            for things, group in zip(assignment, groups, strict=True)
            for thing in things
            if group.size == size
        ]
        for size in ("small", "large")
    }
    return not all(sizes.values()) or min(sizes["large"]) >= _SIZE_RATIO * max(sizes["small"])


def _count_errors(objects: Objects, groups: Sequence[ObjectGroup]) -> list[str]:
    counts = Counter(thing.class_name for thing in objects)
    wrong = []
    for name in sorted({*counts, *(group.class_name for group in groups)}):
        asked_for = [group.count for group in groups if group.class_name == name]
        least = sum(count or 1 for count in asked_for)
        if counts[name] < least or (counts[name] > least and None not in asked_for):
            more = " or more" if None in asked_for else ""
            wrong.append(f"{counts[name]} x {name} found, {least}{more} expected")
    return wrong


def _attribute_errors(detections: Detections, groups: Sequence[ObjectGroup]) -> list[str]:
    """Return the groups whose colours or sizes no objects have, where the counts of classes are right."""
    wrong = []
    for group in groups:
        things = _of_class(detections.objects, group)
        colours = sorted({thing.colour or COLOURABLE.get(thing.class_name) or "as drawn" for thing in things})
        coloured = [thing for thing in things if has_colour(thing, group.colour)]
        sized = [thing for thing in coloured if has_size(thing, group.size, detections.base_px)]
        if not _has_enough(coloured, group):
            wrong.append(f"{group.class_name} is {' and '.join(colours)}, not {group.colour}")
        elif not _has_enough(sized, group):
            wrong.append(f"{group.class_name} is not {group.size}")
    return wrong or ["colours or sizes are of other objects, or large ones are no larger than small ones"]


def _has_enough(things: Objects, group: ObjectGroup) -> bool:
    return len(things) >= (group.count or 1)


def _relation_errors(assignment: Sequence[Objects], spec: SceneSpec) -> list[str]:
    wrong = []
    for first, relation, second in spec.relations:
        one, other = assignment[first], assignment[second]
        # Missing objects are errors of the counts.
        if one and other and not are_related(one, other, relation):
            names = (_group_name(ObjectGroup(*spec.groups[end]), spec) for end in (first, second))
            wrong.append(f" is not {relation} ".join(names))
    return wrong


def _group_name(group: ObjectGroup, spec: SceneSpec) -> str:
    """Return the class of a group, with its colour and size if another group has the same class."""
    if sum(other[0] == group.class_name for other in spec.groups) == 1:
        return group.class_name
    return " ".join(filter(None, (group.size, group.colour, group.class_name)))


def _of_class(objects: Objects, group: ObjectGroup) -> list[DetectedObject]:
    return [thing for thing in objects if thing.class_name == group.class_name]


def _centre(thing: DetectedObject) -> tuple[float, float]:
    return thing.x_px, thing.y_px
