"""Scenes of the nano world: objects with places on a background, and images of them.

A scene is its own ground truth: objects with counts, at most one relation, a background colour. Knows nothing
of sentences or models. Lengths are pixels; `base_px` is the square root of the area and scales everything.
Coordinates: x to the right, y down; an object's centre is the centre of its sprite square.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.colours import COLOURS, FIRST_COLOURS
from lens.nano.world.objects import FIRST_CLASSES
from lens.nano.world.placement import place_objects
from lens.nano.world.scene_spec import OPPOSITE, PLACES, RELATIONS, ObjectGroup, SceneSpec, Size
from lens.nano.world.signs import Sign, draw_sign
from lens.nano.world.sprites import opaque_box, sprite

__all__ = [
    "OPPOSITE", "PLACES", "RELATIONS", "Box", "ObjectGroup", "Scene", "SceneObject", "SceneSpec", "Size",
    "arrange_scene", "base_px", "blend_object", "clear_relation", "draw_scene", "held_out_combinations",
    "is_held_out", "random_scene", "scene_kind", "shade_of",
]  # fmt: skip

SCENE_KINDS: dict[str, float] = {
    "single": 0.22, "counting": 0.22, "position": 0.18, "position_counted": 0.14, "two": 0.11, "three": 0.13,
}  # fmt: skip
"""Kinds of scene of the six tasks, and their shares in training on these alone."""

HELD_OUT_SHARE = 0.1

Box = tuple[float, float, float, float]
CountedClass = ObjectGroup | tuple[str, int]
"""A group, or its class and number alone."""


@dataclass(frozen=True)
class SceneObject:
    """An object in an image: its class, and the centre and the side of its sprite."""

    class_name: str
    x_px: int
    y_px: int
    size_px: int
    colour: str | None = None
    """One of OBJECT_COLOURS; None for the colours of the drawing."""

    @property
    def box(self) -> Box:
        """Return the box of the visible part: left, top, right, bottom."""
        left, top, right, bottom = opaque_box(self.class_name)
        x, y = self.x_px - self.size_px // 2, self.y_px - self.size_px // 2
        return (
            x + left * self.size_px,
            y + top * self.size_px,
            x + right * self.size_px,
            y + bottom * self.size_px,
        )


@dataclass(frozen=True)
class Scene:
    """The contents of one image."""

    kind: str
    background: str
    background_rgb: tuple[int, int, int]
    objects: tuple[SceneObject, ...]
    """Objects in the order of `groups`."""
    width_px: int
    height_px: int
    spec: SceneSpec
    """What an image of this scene must show."""
    sign: Sign | None = None

    @property
    def groups(self) -> tuple[ObjectGroup, ...]:
        """Return the groups of objects; their numbers are known."""
        return self.spec.groups

    @property
    def relation(self) -> str | None:
        """Return the relation of the first group to the second."""
        return next((relation for a, relation, b in self.spec.relations if (a, b) == (0, 1)), None)

    def group_objects(self, group: int) -> tuple[SceneObject, ...]:
        """Return the objects of a group."""
        counts = [one.count or 0 for one in self.groups]
        start = sum(counts[:group])
        return self.objects[start : start + counts[group]]

    def place(self, index: int = 0) -> str:
        """Return the place of the centre of an object, one of PLACES."""
        thing = self.objects[index]
        column = ("left", "", "right")[min(2, 3 * thing.x_px // self.width_px)]
        row = ("top", "", "bottom")[min(2, 3 * thing.y_px // self.height_px)]
        return " ".join(filter(None, (row, column))) or "centre"

    def size(self, index: int = 0) -> Size:
        """Return small or large."""
        limit_px = 0.36 * base_px(self.height_px, self.width_px)
        return "small" if self.objects[index].size_px <= limit_px else "large"

    @property
    def has_default_placement(self) -> bool:
        """Return whether the first object is large and in the centre, the default of captions."""
        return self.size() == "large" and self.place() == "centre"


def base_px(height_px: int, width_px: int) -> float:
    """Return the side of the square of the same area."""
    return math.sqrt(height_px * width_px)


def is_held_out(*combination: str | int) -> bool:
    """Return whether a combination, such as two objects or an object and a colour, is held out for tests.

    The hash of a combination selects a tenth of all; the order of its parts does not matter.
    """
    text = "|".join(sorted(map(str, combination)))
    return (
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") < HELD_OUT_SHARE * 2**32
    )


def held_out_combinations(
    groups: Sequence[CountedClass], background: str | None
) -> list[tuple[str | int, ...]]:
    """List the held-out combinations among objects, counts from two up, and the background."""
    things = [group[0] for group in groups]
    found: list[tuple[str | int, ...]] = list(combinations(things, 2))
    found += [(group[0], count) for group in groups if (count := group[1] or 0) > 1]
    found += [(thing, f"on {background}") for thing in things if background]
    return [combination for combination in found if is_held_out(*combination)]


def scene_kind(groups: Sequence[CountedClass], relation: str | None) -> str:
    """Return the kind of a scene with these groups."""
    counted = any(group[1] != 1 for group in groups)
    if len(groups) == 1:
        return "counting" if counted else "single"
    if relation:
        return "position_counted" if counted else "position"
    return "two" if len(groups) == 2 else "three"


def random_scene(
    rng: np.random.Generator, height_px: int, width_px: int, kind: str | None = None,
    class_names: tuple[str, ...] = FIRST_CLASSES, colours: tuple[str, ...] = FIRST_COLOURS,
) -> Scene:  # fmt: skip
    """Return a scene of the kinds of the six tasks, without held-out combinations."""
    kind = kind or str(rng.choice(list(SCENE_KINDS), p=list(SCENE_KINDS.values())))
    assert kind in SCENE_KINDS, kind
    while True:
        groups, relation = _random_content(rng, kind, class_names)
        background = _pick(rng, colours)
        if not held_out_combinations(groups, background):
            return arrange_scene(rng, groups, background, relation, height_px, width_px)


def arrange_scene(
    rng: np.random.Generator,
    groups: Sequence[CountedClass],
    background: str,
    relation: str | None,
    height_px: int,
    width_px: int,
) -> Scene:
    """Return a scene of given content, with the layout of `placement.place_objects`."""
    content = tuple(
        group if isinstance(group, ObjectGroup) else ObjectGroup(group[0], group[1]) for group in groups
    )
    counts = [group.count or 1 for group in content]
    placements = place_objects(rng, counts, relation, height_px, width_px)
    names = [group.class_name for group, count in zip(content, counts, strict=True) for _ in range(count)]
    objects = tuple(SceneObject(name, *spot) for name, spot in zip(names, placements, strict=True))
    spec = SceneSpec(content, background, ((0, relation, 1),) if relation else ())
    kind = scene_kind(content, relation)
    return Scene(kind, background, shade_of(rng, background), objects, width_px, height_px, spec)


def shade_of(rng: np.random.Generator, background: str) -> tuple[int, int, int]:
    """Return a random shade of a background colour."""
    shade = np.array(COLOURS[background]) + rng.integers(-6, 7) + rng.integers(-2, 3, size=3)
    red, green, blue = (int(channel) for channel in shade.clip(0, 255))
    return red, green, blue


def clear_relation(first: Sequence[SceneObject], second: Sequence[SceneObject]) -> str | None:
    """Return the relation of the first objects to the second; None if it is not clear along one axis."""
    middles = [np.mean([(thing.x_px, thing.y_px) for thing in things], axis=0) for things in (first, second)]
    apart = np.abs(middles[0] - middles[1])
    axis = int(apart[1] > apart[0])
    is_first = bool(middles[0][axis] < middles[1][axis])
    before, after = (first, second) if is_first else (second, first)
    edge = max(thing.box[axis + 2] for thing in before)
    if apart[1 - axis] > 0.6 * apart[axis] or edge > min(thing.box[axis] for thing in after):
        return None
    return (("left of", "right of"), ("above", "below"))[axis][not is_first]


def draw_scene(scene: Scene) -> NDArray[np.float32]:
    """Return the image of a scene: (3, height, width) in [-1, 1]."""
    canvas = np.empty((scene.height_px, scene.width_px, 3), dtype=np.float32)
    canvas[:] = np.array(scene.background_rgb, dtype=np.float32) / 255
    for thing in scene.objects:
        blend_object(canvas, thing)
    if scene.sign:
        draw_sign(canvas, scene.sign)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)) * 2 - 1  # (3, H, W)


def blend_object(canvas: NDArray[np.float32], thing: SceneObject) -> None:
    """Draw an object over an image (height, width, 3) in [0, 1], in place; what lies outside is cut."""
    left, top = thing.x_px - thing.size_px // 2, thing.y_px - thing.size_px // 2
    height, width = canvas.shape[:2]
    rows = slice(max(0, top), min(height, top + thing.size_px))
    columns = slice(max(0, left), min(width, left + thing.size_px))
    art = sprite(thing.class_name, thing.size_px, thing.colour)[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    behind = canvas[rows, columns]
    behind += art[..., 3:] * (art[..., :3] - behind)


def _random_content(
    rng: np.random.Generator, kind: str, names: tuple[str, ...]
) -> tuple[list[tuple[str, int]], str | None]:
    num_groups = {"single": 1, "counting": 1, "three": 3}.get(kind, 2)
    things = [names[index] for index in rng.choice(len(names), num_groups, replace=False)]
    counts = [1] * num_groups
    if kind == "counting":
        counts = [int(rng.integers(2, 6))]
    if kind == "position_counted":
        counts = list(_pick(rng, ((2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3))))
    relation = _pick(rng, RELATIONS) if kind.startswith("position") else None
    return list(zip(things, counts, strict=True)), relation


def _pick(rng: np.random.Generator, choices: Sequence):
    return choices[int(rng.integers(len(choices)))]
