"""Scenes for any spec, such as those of files of prompts: the ground truth that a scorer must pass.

Usual contents have the compositions of training; others are drawn at random until all requirements hold.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np

from lens.errors import LensError
from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.compositions import (
    footprints,
    has_two_sizes,
    place_alone,
    place_related,
    place_two_sizes,
    place_unrelated,
)
from lens.nano.world.full_scenes import MIN_CONTRAST
from lens.nano.world.placement import Canvas, Placement
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.nano.world.scenes import Scene, SceneObject, clear_relation, shade_of
from lens.nano.world.signs import sign_board

_NUM_TRIES = 4000
_LARGE_SHARES = (1.0, 0.9, 0.8)
"""Sizes of large objects that are tried, as fractions of the usual one."""


def scene_of(spec: SceneSpec, rng: np.random.Generator, height_px: int, width_px: int) -> Scene:
    """Return a scene that shows what a spec asks for; what it leaves open varies.

    Raises: LensError if no arrangement is found, as for many large things in a small image.
    """
    canvas, sign, top_px = Canvas(height_px, width_px), None, 0
    groups = tuple(_with_count(group, rng, len(spec.groups)) for group in spec.groups)
    if spec.text is not None:
        sign = sign_board(spec.text, canvas)
        rest_px, is_above = height_px - sign.height_px, bool(rng.random() < 0.5)
        if groups:
            sign = sign._replace(y_px=sign.height_px // 2 + (0 if is_above else rest_px))
            canvas, top_px = Canvas(rest_px, width_px), sign.height_px if is_above else 0
    placements = _place(rng, canvas, groups, spec.relations) if groups else []
    objects = tuple(
        SceneObject(group.class_name, one.x_px, one.y_px + top_px, one.size_px, group.colour)
        for group, one in zip(_each(groups), placements, strict=True)
    )
    background = spec.background or str(rng.choice(_contrasting_backgrounds(groups)))
    shown = replace(spec, groups=groups, background=background)
    return Scene("any", background, shade_of(rng, background), objects, width_px, height_px, shown, sign)


def _with_count(group: ObjectGroup, rng: np.random.Generator, num_groups: int) -> ObjectGroup:
    count = int(rng.integers(2, 6)) if num_groups == 1 else int(rng.integers(1, 3))
    return group if group.count else group._replace(count=count)


def _place(
    rng: np.random.Generator,
    canvas: Canvas,
    groups: Sequence[ObjectGroup],
    relations: Sequence[tuple[int, str, int]],
) -> list[Placement]:
    counts = [group.count or 1 for group in groups]
    sizes = [group.size for group in groups]
    if not any(sizes):
        if not relations and (len(counts) == 1 or sum(counts) <= 8):
            if sum(counts) == 1:
                return [place_alone(rng, canvas, None, False)]
            return place_unrelated(rng, canvas, counts)
        if len(counts) == 2 and len(relations) == 1 and relations[0][0] == 0:
            return place_related(rng, canvas, counts, relations[0][1])
    elif counts == [1]:
        return [place_alone(rng, canvas, groups[0].size, False)]
    elif sorted(map(str, sizes)) == ["large", "small"] and counts[sizes.index("large")] == 1:
        relation = relations[0][1] if relations else None
        is_first = not relations or relations[0][0] == 0
        if is_first and has_two_sizes(canvas, [counts[sizes.index("small")], 1], relation):
            return place_two_sizes(rng, canvas, counts, relation, sizes.index("large"))
    return _place_at_random(rng, canvas, groups, relations)


def _place_at_random(
    rng: np.random.Generator,
    canvas: Canvas,
    groups: Sequence[ObjectGroup],
    relations: Sequence[tuple[int, str, int]],
) -> list[Placement]:
    """Return placements on the grid without overlap that have all relations."""
    large, small, dense = footprints(canvas)
    for share in _LARGE_SHARES:
        for small_px in (small.side_px, dense.side_px):
            sides_px = [
                int(share * large.side_px) if group.size == "large" else small_px for group in _each(groups)
            ]
            for _ in range(_NUM_TRIES // (2 * len(_LARGE_SHARES))):
                placements = [_random_placement(rng, canvas, side_px) for side_px in sides_px]
                if _are_apart(placements) and _have_relations(placements, groups, relations):
                    return placements
    names = ", ".join(f"{group.count} {group.class_name}" for group in groups)
    raise LensError(f"no arrangement of {names} in {canvas.width_px}x{canvas.height_px} pixels")


def _random_placement(rng: np.random.Generator, canvas: Canvas, side_px: int) -> Placement:
    step_px = canvas.grid_px // 2
    x_px, y_px = (
        step_px * int(rng.integers(max(0, length_px - side_px) // step_px + 1)) + side_px // 2
        for length_px in (canvas.width_px, canvas.height_px)
    )
    return Placement(x_px, y_px, side_px)


def _are_apart(placements: Sequence[Placement]) -> bool:
    return all(
        max(abs(a.x_px - b.x_px), abs(a.y_px - b.y_px)) >= (a.size_px + b.size_px) // 2 + 2
        for a, b in combinations(placements, 2)
    )


def _have_relations(
    placements: Sequence[Placement],
    groups: Sequence[ObjectGroup],
    relations: Sequence[tuple[int, str, int]],
) -> bool:
    counts = [group.count or 1 for group in groups]
    starts = [sum(counts[:number]) for number in range(len(counts) + 1)]
    objects = [
        SceneObject(group.class_name, *placement)
        for group, placement in zip(_each(groups), placements, strict=True)
    ]
    parts = [objects[start:end] for start, end in pairwise(starts)]
    return all(clear_relation(parts[a], parts[b]) == relation for a, relation, b in relations)


def _contrasting_backgrounds(groups: Sequence[ObjectGroup]) -> list[str]:
    """Return the backgrounds that no re-coloured object is lost on."""
    colours = [np.array(OBJECT_COLOURS[group.colour]) for group in groups if group.colour]
    return [
        name
        for name, rgb in COLOURS.items()
        if all(np.linalg.norm(colour - np.array(rgb)) >= MIN_CONTRAST for colour in colours)
    ] or list(COLOURS)


def _each(groups: Sequence[ObjectGroup]) -> list[ObjectGroup]:
    """Return the group of each object."""
    return [group for group in groups for _ in range(group.count or 1)]
