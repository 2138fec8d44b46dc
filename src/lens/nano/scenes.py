"""Scenes of the nano world: what is where on which background, laid out so that captions can be exact.

A scene is its own ground truth: things with counts, at most one relation, a background colour. Knows nothing
of sentences or models. Lengths are pixels; `base_px` is the square root of the area and scales everything.
Coordinates: x to the right, y down; a thing's centre is the centre of its sprite square.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lens.nano.art import opaque_box, sprite
from lens.nano.things import COLOURS, THINGS

KINDS: dict[str, float] = {
    "single": 0.22, "counting": 0.22, "position": 0.18, "position_counted": 0.14, "two": 0.11, "three": 0.13,
}  # fmt: skip
"""Kinds of scene and how often training draws them."""

RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

SIDES: dict[str, tuple[float, float]] = {"small": (0.21, 0.28), "large": (0.4, 0.55)}
"""Side of a thing, as fractions of base_px."""

CROWD_SIDES: dict[int, tuple[float, float]] = {
    2: (0.21, 0.55), 3: (0.21, 0.55), 4: (0.21, 0.3), 5: (0.21, 0.3),
}  # fmt: skip
"""Sides of things in company, as fractions of base_px, by how many there are; less where room is short."""

SMALLEST_SIDE = 0.205
"""Of base_px; at base 128 a thing has at least 32 px, two latent cells."""

GRID_PX = 16
SIDE_STEP_PX = 32
"""From base 96 on, corners lie on whole latent cells; at base 128 sides are pairs of them, 32 or 64 px.

A thing then has two looks in latents, 20 tokens to learn by heart. With sides of 32 to 96 px in steps of a
cell it has 90, and with corners anywhere thousands of looks: more than two CPU cores teach in hours.
"""

LATTICE_PX = {32: 40, 64: 32}
"""At base 128, the least distance between the places along an axis where a thing of this side may stand.

Nine places in a square picture, evenly spaced: how many stand where is decided at noise that hides all else.
"""

PLACES = (
    "centre", "left", "right", "top", "top left", "top right", "bottom", "bottom left", "bottom right",
)  # fmt: skip
"""The nine thirds of a picture that a centre can lie in."""

HELD_OUT_SHARE = 0.1

Box = tuple[float, float, float, float]
Group = tuple[str, int]


@dataclass(frozen=True)
class Expected:
    """What a picture must show; None and () ask for nothing."""

    groups: tuple[Group, ...]
    """Things and how many of each."""
    background: str | None
    relations: tuple[tuple[int, str, int], ...]
    """(index of a group, relation, index of the group it is related to)."""


@dataclass(frozen=True)
class Placed:
    """A thing in a picture: the centre and the side of its sprite square."""

    thing: str
    x_px: int
    y_px: int
    size_px: int

    @property
    def box(self) -> Box:
        """Return where the thing is visible: left, top, right, bottom."""
        left, top, right, bottom = opaque_box(self.thing)
        x, y = self.x_px - self.size_px // 2, self.y_px - self.size_px // 2
        return (
            x + left * self.size_px,
            y + top * self.size_px,
            x + right * self.size_px,
            y + bottom * self.size_px,
        )


@dataclass(frozen=True)
class Scene:
    """One picture as facts."""

    kind: str
    background: str
    background_rgb: tuple[int, int, int]
    placed: tuple[Placed, ...]
    """Things in the order of `groups`."""
    width_px: int
    height_px: int
    relation: str | None
    """How the first group lies to the second."""
    groups: tuple[Group, ...]

    @property
    def expected(self) -> Expected:
        """Return everything that a picture of this scene must show."""
        relations = ((0, self.relation, 1),) if self.relation else ()
        return Expected(self.groups, self.background, relations)

    def members(self, group: int) -> tuple[Placed, ...]:
        """Return the placed things of a group."""
        start = sum(count for _, count in self.groups[:group])
        return self.placed[start : start + self.groups[group][1]]

    def place(self, index: int = 0) -> str:
        """Return the third of the picture that holds a thing's centre, one of PLACES."""
        thing = self.placed[index]
        column = ("left", "", "right")[min(2, 3 * thing.x_px // self.width_px)]
        row = ("top", "", "bottom")[min(2, 3 * thing.y_px // self.height_px)]
        return " ".join(filter(None, (row, column))) or "centre"

    def size(self, index: int = 0) -> str:
        """Return small or large."""
        limit_px = 0.36 * base_px(self.height_px, self.width_px)
        return "small" if self.placed[index].size_px <= limit_px else "large"


def base_px(height_px: int, width_px: int) -> float:
    """Return the side of the square of the same area."""
    return math.sqrt(height_px * width_px)


def is_held_out(*combination: str | int) -> bool:
    """Return whether a combination, such as two things or a thing and a colour, is kept for tests.

    A fixed tenth of all combinations, by hash; the order of the parts does not matter.
    """
    text = "|".join(sorted(map(str, combination)))
    return (
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") < HELD_OUT_SHARE * 2**32
    )


def held_out_combinations(groups: Sequence[Group], background: str | None) -> list[tuple[str | int, ...]]:
    """List the held-out combinations among things, counts from two up, and the background."""
    things = [thing for thing, _ in groups]
    found: list[tuple[str | int, ...]] = list(combinations(things, 2))
    found += [(thing, count) for thing, count in groups if count > 1]
    found += [(thing, f"on {background}") for thing in things if background]
    return [combination for combination in found if is_held_out(*combination)]


def kind_of(groups: Sequence[Group], relation: str | None) -> str:
    """Return the kind of scene that shows these groups."""
    counted = any(count > 1 for _, count in groups)
    if len(groups) == 1:
        return "counting" if counted else "single"
    if relation:
        return "position_counted" if counted else "position"
    return "two" if len(groups) == 2 else "three"


def random_scene(rng: np.random.Generator, height_px: int, width_px: int, kind: str | None = None) -> Scene:
    """Draw a training scene: never a held-out combination."""
    kind = kind or str(rng.choice(list(KINDS), p=list(KINDS.values())))
    assert kind in KINDS, kind
    while True:
        groups, relation = _random_content(rng, kind)
        background = _pick(rng, tuple(COLOURS))
        if not held_out_combinations(groups, background):
            return arrange(rng, groups, background, relation, height_px, width_px)


def arrange(
    rng: np.random.Generator,
    groups: Sequence[Group],
    background: str,
    relation: str | None,
    height_px: int,
    width_px: int,
) -> Scene:
    """Lay out a scene of given content: visible boxes inside the picture, disjoint, at least a gap apart."""
    canvas = _Canvas(rng, height_px, width_px)
    kind = kind_of(groups, relation)
    if kind == "single":
        placed = [canvas.place_alone(groups[0][0])]
    elif relation:
        placed = canvas.place_related(groups, relation)
    else:
        placed = canvas.place_apart(groups)
    shade = np.array(COLOURS[background]) + rng.integers(-6, 7) + rng.integers(-2, 3, size=3)
    red, green, blue = (int(channel) for channel in shade.clip(0, 255))
    return Scene(
        kind, background, (red, green, blue), tuple(placed), width_px, height_px, relation, tuple(groups)
    )


def clear_relation(first: Sequence[Placed], second: Sequence[Placed]) -> str | None:
    """Return how the first things lie to the second; None unless apart along the leading axis."""
    middles = [np.mean([(thing.x_px, thing.y_px) for thing in things], axis=0) for things in (first, second)]
    apart = np.abs(middles[0] - middles[1])
    axis = int(apart[1] > apart[0])
    is_first = bool(middles[0][axis] < middles[1][axis])
    before, after = (first, second) if is_first else (second, first)
    edge = max(thing.box[axis + 2] for thing in before)
    if apart[1 - axis] > 0.6 * apart[axis] or edge > min(thing.box[axis] for thing in after):
        return None
    return (("left of", "right of"), ("above", "below"))[axis][not is_first]


def draw(scene: Scene) -> NDArray[np.float32]:
    """Return the picture of a scene: (3, height, width) in [-1, 1]."""
    canvas = np.empty((scene.height_px, scene.width_px, 3), dtype=np.float32)
    canvas[:] = np.array(scene.background_rgb, dtype=np.float32) / 255
    for thing in scene.placed:
        blend(canvas, thing)
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)) * 2 - 1  # (3, H, W)


def blend(canvas: NDArray[np.float32], thing: Placed) -> None:
    """Draw a thing over a picture (height, width, 3) in [0, 1], in place; what lies outside is cut."""
    left, top = thing.x_px - thing.size_px // 2, thing.y_px - thing.size_px // 2
    height, width = canvas.shape[:2]
    rows = slice(max(0, top), min(height, top + thing.size_px))
    columns = slice(max(0, left), min(width, left + thing.size_px))
    art = sprite(thing.thing, thing.size_px)[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    behind = canvas[rows, columns]
    behind += art[..., 3:] * (art[..., :3] - behind)


def _random_content(rng: np.random.Generator, kind: str) -> tuple[list[Group], str | None]:
    num_groups = {"single": 1, "counting": 1, "three": 3}.get(kind, 2)
    names = tuple(THINGS)
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


class _Canvas:
    """Finds room for things in one picture."""

    def __init__(self, rng: np.random.Generator, height_px: int, width_px: int):
        self.rng = rng
        self.height_px, self.width_px = height_px, width_px
        self.base_px = base_px(height_px, width_px)
        # There is no room for a grid in a stamp, and at larger bases five things of two steps do not fit.
        self.grid_px = GRID_PX if self.base_px > 90 else 2
        self.side_step_px = SIDE_STEP_PX if 90 < self.base_px < 160 else self.grid_px
        self.has_lattice = self.side_step_px == SIDE_STEP_PX
        self.gap_px = 2 * max(1, round(self.base_px / 64))
        self.region: Box = (0, 0, width_px, height_px)

    def place_alone(self, thing: str) -> Placed:
        """Put one thing clearly into a third of the picture, with a clear size."""
        side = self._side(*SIDES["large" if self.rng.random() < 0.6 else "small"])
        is_centred = bool(self.rng.random() < 0.3)
        x = self._coordinate(side, self.width_px, is_centred)
        return Placed(thing, x, self._coordinate(side, self.height_px, is_centred), side)

    def place_apart(self, groups: Sequence[Group]) -> list[Placed]:
        """Scatter groups over the whole picture."""
        num_things = sum(count for _, count in groups)
        for shrink in self._shrinking():
            low, high = CROWD_SIDES[num_things]
            placed = self._scatter(groups, self.region, (low * shrink, high * shrink))
            if placed:
                return placed
        raise AssertionError("a picture of this size has no room")

    def place_related(self, groups: Sequence[Group], relation: str) -> list[Placed]:
        """Put two groups on either side of a line, more apart along the relation's axis than across it."""
        low, high = CROWD_SIDES[sum(count for _, count in groups)]
        axis = 0 if relation in ("left of", "right of") else 1
        order = 1 if relation in ("left of", "above") else -1
        for shrink in self._shrinking():
            line = self.rng.uniform(0.42, 0.58) * (self.width_px, self.height_px)[axis]
            halves = [list(self.region), list(self.region)]
            halves[0][axis + 2], halves[1][axis] = line - self.gap_px / 2, line + self.gap_px / 2
            sides = low * shrink, high * shrink
            first, second = (
                self._scatter([group], half, sides)
                for group, half in zip(groups, halves[::order], strict=True)
            )
            if first and second and clear_relation(first, second) == relation:
                return first + second
        raise AssertionError("a picture of this size has no room")

    def _shrinking(self) -> Iterator[float]:
        """Yield the scale of the sides for one attempt after another: the lattice is left last."""
        for attempt in range(400):
            self.has_lattice = self.has_lattice and attempt < 120
            yield max(0.5, 1 - attempt / 60)

    def _side(self, low: float, high: float) -> int:
        """Draw a side between two fractions of base_px, in whole steps, never below the low one."""
        unit = self.base_px / self.side_step_px
        lowest = math.ceil(max(SMALLEST_SIDE, low) * unit)
        return self.side_step_px * int(self.rng.integers(lowest, max(lowest, int(high * unit)) + 1))

    def _coordinate(self, side: int, length_px: int, is_centred: bool) -> int:
        """Draw a centre in the middle of the middle third, or in an outer third when the side leaves room."""
        grid = self.grid_px
        last = (int(0.31 * length_px) - side // 2) // grid
        if is_centred or last < 0 or self.rng.random() < 1 / 3:
            middle = self.rng.uniform(0.44, 0.56) * length_px if side < 0.8 * length_px else length_px / 2
            return grid * round((middle - side / 2) / grid) + side // 2
        from_edge = grid * int(self.rng.integers(0, last + 1)) + side // 2
        return from_edge if self.rng.random() < 0.5 else length_px - from_edge

    def _scatter(
        self, groups: Sequence[Group], region: Sequence[float], sides: tuple[float, float]
    ) -> list[Placed] | None:
        """Place groups, each with one side for all its things, in a region; None when no room was found."""
        placed: list[Placed] = []
        for thing, count in groups:
            side = self._side(*sides)
            for _ in range(count):
                found = self._find_room(thing, side, region, placed)
                if found is None:
                    return None
                placed.append(found)
        return placed

    def _find_room(
        self, thing: str, side: int, region: Sequence[float], placed: list[Placed]
    ) -> Placed | None:
        left, top, right, bottom = (edge * side - side // 2 for edge in opaque_box(thing))
        centres_x = self._centres(region[0] - left, region[2] - right, side, self.width_px)
        centres_y = self._centres(region[1] - top, region[3] - bottom, side, self.height_px)
        if not centres_x or not centres_y:
            return None
        xs, ys = (self.rng.choice(centres, size=24).tolist() for centres in (centres_x, centres_y))
        for x, y in zip(xs, ys, strict=True):
            candidate = Placed(thing, x, y, side)
            if all(self._are_apart(candidate.box, other.box) for other in placed):
                return candidate
        return None

    def _centres(self, lowest: float, highest: float, side: int, length_px: int) -> Sequence[int]:
        """Return the centres between two bounds at which a square of this side may stand."""
        if not self.has_lattice:
            return _on_grid(lowest, highest, side, self.grid_px)
        room = length_px - side
        corners = self.grid_px * np.round(np.linspace(0, room / self.grid_px, room // LATTICE_PX[side] + 1))
        return [int(corner) + side // 2 for corner in corners if lowest <= corner + side // 2 <= highest]

    def _are_apart(self, one: Box, other: Box) -> bool:
        gap = self.gap_px
        return (
            one[2] + gap <= other[0]
            or other[2] + gap <= one[0]
            or one[3] + gap <= other[1]
            or other[3] + gap <= one[1]
        )


def _on_grid(lowest: float, highest: float, side: int, grid_px: int) -> range:
    """Return the centres between two bounds at which a square of this side has its corners on the grid."""
    first = grid_px * math.ceil((lowest - side // 2) / grid_px) + side // 2
    return range(first, math.floor(highest) + 1, grid_px)
