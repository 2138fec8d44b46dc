"""Random scenes of the grown world, and what captions state of them.

What a caption will state is drawn first, and then a composition that agrees with it; what it leaves open
varies. Held-out combinations of the six tasks never occur. Knows nothing of
sentences or models.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.compositions import (
    has_two_sizes,
    is_clear_place,
    place_alone,
    place_chain,
    place_corner,
    place_related,
    place_two_sizes,
    place_unrelated,
)
from lens.nano.world.objects import FIRST_CLASSES, OBJECT_CLASSES
from lens.nano.world.placement import Canvas, Placement
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import (
    MAX_TEXT_LENGTH,
    OPPOSITE,
    RELATIONS,
    SIGN_CHARACTERS,
    ObjectGroup,
    SceneSpec,
    Size,
)
from lens.nano.world.scenes import Scene, SceneObject, held_out_combinations, shade_of
from lens.nano.world.signs import Sign, sign_board

FULL_SCENE_KINDS: dict[str, float] = {
    "single": 0.16, "counting": 0.17, "two": 0.09, "related": 0.13, "related_counted": 0.08, "three": 0.06,
    "three_related": 0.05, "coloured": 0.10, "two_sizes": 0.06, "sign": 0.05, "sign_with_thing": 0.04,
    "empty": 0.01,
}  # fmt: skip
"""Kinds of scene, and their shares in training."""

BACKGROUND_SHARE = 0.75
"""Share of captions that state the background."""
BARE_PLURAL_SHARE = 0.06
"""Share of groups of two to five objects whose number a caption leaves open."""
SIZE_SHARE, PLACE_SHARE = 0.35, 0.4
"""Shares of single objects whose size and whose place are stated."""
PLACES_SHARE = 0.1
"""Share of two or three single objects without a relation whose places are stated."""
NEW_CLASS_WEIGHT = 2
"""A class that the six tasks lack is drawn so many times as often as one of theirs."""
WORD_SHARE = 0.4
"""Share of texts on signs that are words; the others are random characters."""
MIN_CONTRAST = 90
"""Smallest distance in RGB of a re-coloured object from the background."""

_WORD_LIST = (
    "HELLO OPEN CLOSED SALE STOP EXIT WELCOME CAFE BAKERY HOTEL TAXI BUS ZOO PARK FARM SHOP MENU PIZZA "
    "TEA MILK BREAD BOOKS FREE NEW YES NO OK HI BYE LOVE PEACE HOME HAPPY PARTY MUSIC SUMMER WINTER "
    "SPRING AUTUMN SUN MOON STAR LENS NANO ART CAKE FISH CAT DOG FOX KEEP OUT PUSH PULL DANGER SCHOOL "
    "BEACH TRAIN GATE ROOM EAST WEST NORTH SOUTH LEFT RIGHT START FINISH WIN GO NOW FOOD DRINK WATER "
    "COFFEE LEMON FLOWERS TOYS GAMES GARAGE MUSEUM"
)
WORDS = tuple(_WORD_LIST.split())
"""Words on signs."""


class _Content(NamedTuple):
    """What a scene must show, apart from the background, and a function that places its objects."""

    spec: SceneSpec
    place: Callable[[], list[Placement]]
    sign: Sign | None = None


def random_full_scene(
    rng: np.random.Generator, height_px: int, width_px: int, classes: Sequence[str] = tuple(OBJECT_CLASSES),
    kind: str | None = None,
) -> Scene:  # fmt: skip
    """Return a training scene of the grown world, without held-out combinations of the six tasks."""
    kind = kind or str(rng.choice(list(FULL_SCENE_KINDS), p=list(FULL_SCENE_KINDS.values())))
    sampler = _Sampler(rng, Canvas(height_px, width_px), tuple(classes))
    while True:
        content: _Content = getattr(sampler, kind)()
        background = _pick(rng, tuple(COLOURS))
        groups = content.spec.groups
        if not _is_held_out(groups, background) and _is_visible(groups, background):
            break
    objects = tuple(
        SceneObject(group.class_name, *placement, group.colour)
        for group, placement in zip(_each(groups), content.place(), strict=True)
    )
    shade = shade_of(rng, background)
    spec = replace(content.spec, background=background)
    scene = Scene(kind, background, shade, objects, width_px, height_px, spec, content.sign)
    return _with_places(scene, rng)


def stated_spec(scene: Scene, rng: np.random.Generator) -> SceneSpec:
    """Return what a caption states: some leave out the background, and few the number of objects."""
    spec = scene.spec
    is_empty = not spec.groups and spec.text is None
    background = spec.background if is_empty or rng.random() < BACKGROUND_SHARE else None
    groups = tuple(
        group._replace(count=None)
        if 2 <= (group.count or 0) <= 5 and rng.random() < BARE_PLURAL_SHARE
        else group
        for group in spec.groups
    )
    return replace(spec, groups=groups, background=background)


def complete_spec(scene: Scene) -> SceneSpec:
    """Return what a caption can state at most: also all sizes, and clear places of single objects."""
    canvas, groups = Canvas(scene.height_px, scene.width_px), []
    sizes = [scene.size(index) for index in range(len(scene.objects))]
    first = 0
    for index, group in enumerate(scene.groups):
        things = scene.group_objects(index)
        placement = Placement(things[0].x_px, things[0].y_px, things[0].size_px)
        has_place = len(things) == 1 and is_clear_place(placement, canvas)
        place = place_name(placement, canvas) if has_place else None
        groups.append(group._replace(size=sizes[first], place=group.place or place))
        first += len(things)
    return replace(scene.spec, groups=tuple(groups))


class _Sampler:
    """Draws of what a scene shows, one method for each kind."""

    def __init__(self, rng: np.random.Generator, canvas: Canvas, classes: tuple[str, ...]):
        self.rng, self.canvas, self.classes = rng, canvas, classes
        first = set(FIRST_CLASSES)
        weights = np.array([1 if name in first else NEW_CLASS_WEIGHT for name in classes], float)
        self.shares = weights / weights.sum()

    def single(self) -> _Content:
        """Draw one object, with or without its size and place."""
        size: Size | None = _pick(self.rng, ("small", "large")) if self.rng.random() < SIZE_SHARE else None
        return self._alone(ObjectGroup(self._class(), size=size), bool(self.rng.random() < PLACE_SHARE))

    def counting(self) -> _Content:
        """Draw two to eight objects of a class."""
        return self._unrelated(ObjectGroup(self._class(), int(self.rng.integers(2, 9))))

    def two(self) -> _Content:
        """Draw two groups without a relation; a third of them have numbers."""
        counts = (1, 1) if self.rng.random() < 0.65 else self._counts(2)
        return self._unrelated(*map(ObjectGroup, self._classes(2), counts))

    def related(self) -> _Content:
        """Draw two objects with a relation."""
        return self._related(*map(ObjectGroup, self._classes(2)))

    def related_counted(self) -> _Content:
        """Draw two groups with numbers and a relation."""
        return self._related(*map(ObjectGroup, self._classes(2), self._counts(2)))

    def three(self) -> _Content:
        """Draw three groups without a relation; a quarter of them have numbers."""
        counts = (1, 1, 1) if self.rng.random() < 0.75 else self._counts(3)
        return self._unrelated(*map(ObjectGroup, self._classes(3), counts))

    def three_related(self) -> _Content:
        """Draw three objects with two relations, in a line or at a right angle."""
        rng, canvas = self.rng, self.canvas
        groups = tuple(map(ObjectGroup, self._classes(3)))
        first, shared = _pick(rng, RELATIONS), int(rng.integers(2))
        if rng.random() < 0.4:
            # In a line, the third object is beyond the shared one.
            second = first if shared == 1 else OPPOSITE[first]
            order = (0, 1, 2) if shared == 1 else (2, 0, 1)
            place = lambda: place_chain(rng, canvas, order, first)  # noqa: E731
        else:
            is_level = first in ("left of", "right of")
            second = _pick(rng, ("above", "below") if is_level else ("left of", "right of"))
            place = lambda: place_corner(rng, canvas, first, shared, second)  # noqa: E731
        last = (shared, second, 2) if rng.random() < 0.6 else (2, OPPOSITE[second], shared)
        return _Content(SceneSpec(groups, relations=((0, first, 1), last)), place)

    def coloured(self) -> _Content:
        """Draw one group of a colour, or two of which at least one has a colour, some of one class."""
        draw = self.rng.random()
        colours = [str(colour) for colour in self.rng.permutation(list(OBJECT_COLOURS))[:2]]
        if draw < 0.45:
            count = 1 if self.rng.random() < 0.6 else int(self.rng.integers(2, 6))
            group = ObjectGroup(self._colourable(), count, colours[0])
            return self._alone(group, False) if count == 1 else self._unrelated(group)
        first = ObjectGroup(self._colourable(), 1, colours[0])
        if draw < 0.75:
            second = ObjectGroup(first.class_name, 1, colours[1])
        elif self.rng.random() < 0.5:
            second = ObjectGroup(self._colourable(), 1, colours[1])
        else:
            second = ObjectGroup(self._class())
        groups = (first, second) if self.rng.random() < 0.5 else (second, first)
        if self.rng.random() < 0.3:
            counts = self._counts(2)
            groups = groups[0]._replace(count=counts[0]), groups[1]._replace(count=counts[1])
        return (self._related if self.rng.random() < 0.5 else self._unrelated)(*groups)

    def two_sizes(self) -> _Content:
        """Draw a large object and small ones, of two classes or of one."""
        rng, canvas = self.rng, self.canvas
        names = self._classes(2)
        if rng.random() < 0.2:
            names = (names[0], names[0])
        while True:
            count = int(rng.choice((1, 1, 2, 3)))
            relation = _pick(rng, RELATIONS) if rng.random() < 0.5 else None
            if has_two_sizes(canvas, (1, count), relation):
                break
        groups = (ObjectGroup(names[0], 1, size="large"), ObjectGroup(names[1], count, size="small"))
        large = int(rng.integers(2))
        groups = groups[::-1] if large else groups
        relations = ((0, relation, 1),) if relation else ()
        counts = tuple(group.count or 1 for group in groups)
        return _Content(
            SceneSpec(groups, relations=relations),
            lambda: place_two_sizes(rng, canvas, counts, relation, large),
        )

    def sign(self) -> _Content:
        """Draw a sign alone."""
        text = self._text()
        sign = sign_board(text, self.canvas)
        free_px = self.canvas.height_px - sign.height_px
        rows = free_px // self.canvas.grid_px
        row = rows // 2 if self.rng.random() < 0.5 else int(self.rng.integers(rows + 1))
        placed = sign._replace(y_px=row * self.canvas.grid_px + sign.height_px // 2)
        return _Content(SceneSpec(text=text), list, placed)

    def sign_with_thing(self) -> _Content:
        """Draw a sign above or below an object."""
        text = self._text()
        sign = sign_board(text, self.canvas)
        height_px, width_px, grid_px = *self.canvas, self.canvas.grid_px
        rest_px = height_px - sign.height_px
        large_px, small_px = self.canvas.large_px, self.canvas.small_px
        side_px = large_px if rest_px >= large_px and self.rng.random() < 0.7 else small_px
        is_above = bool(self.rng.random() < 0.5)
        # The object is in the middle of what the board at the border leaves.
        gap_px = grid_px * ((rest_px - side_px) // 2 // grid_px)
        xs = self.canvas.thirds(width_px, side_px)
        x_px = xs[1] if self.rng.random() < 0.6 else _pick(self.rng, xs)
        y_px = sign.height_px + gap_px if is_above else rest_px - gap_px - side_px
        placed = sign._replace(y_px=sign.height_px // 2 if is_above else height_px - sign.height_px // 2)
        thing = Placement(x_px + side_px // 2, y_px + side_px // 2, side_px)
        return _Content(SceneSpec((ObjectGroup(self._class()),), text=text), lambda: [thing], placed)

    def empty(self) -> _Content:
        """Draw nothing but a background."""
        return _Content(SceneSpec(), list)

    def _class(self) -> str:
        return self._classes(1)[0]

    def _classes(self, count: int) -> tuple[str, ...]:
        chosen = self.rng.choice(len(self.classes), count, replace=False, p=self.shares)
        return tuple(self.classes[index] for index in chosen)

    def _colourable(self) -> str:
        return _pick(self.rng, [name for name in self.classes if name in COLOURABLE] or list(COLOURABLE))

    def _counts(self, num_groups: int) -> tuple[int, ...]:
        """Draw numbers of objects, at most six in all; not all are one."""
        most = 4 if num_groups == 2 else 3
        while True:
            counts = tuple(int(count) for count in self.rng.integers(1, most + 1, num_groups))
            if num_groups < sum(counts) <= (6 if num_groups == 2 else 7):
                return counts

    def _text(self) -> str:
        if self.rng.random() < WORD_SHARE:
            return _pick(self.rng, WORDS)
        length = int(self.rng.integers(1, MAX_TEXT_LENGTH + 1))
        return "".join(_pick(self.rng, SIGN_CHARACTERS) for _ in range(length))

    def _alone(self, group: ObjectGroup, has_place: bool) -> _Content:
        placement = place_alone(self.rng, self.canvas, group.size, has_place)
        place = place_name(placement, self.canvas) if has_place else None
        return _Content(SceneSpec((group._replace(place=place),)), lambda: [placement])

    def _unrelated(self, *groups: ObjectGroup) -> _Content:
        counts = [group.count or 1 for group in groups]
        return _Content(SceneSpec(groups), lambda: place_unrelated(self.rng, self.canvas, counts))

    def _related(self, *groups: ObjectGroup) -> _Content:
        counts, relation = [group.count or 1 for group in groups], _pick(self.rng, RELATIONS)
        return _Content(
            SceneSpec(groups, relations=((0, relation, 1),)),
            lambda: place_related(self.rng, self.canvas, counts, relation),
        )


def place_name(placement: Placement, canvas: Canvas) -> str:
    """Return the place of the centre of an object, one of PLACES."""
    column = ("left", "", "right")[min(2, 3 * placement.x_px // canvas.width_px)]
    row = ("top", "", "bottom")[min(2, 3 * placement.y_px // canvas.height_px)]
    return " ".join(filter(None, (row, column))) or "centre"


def _with_places(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene whose spec has the places of single objects, for some of those without a relation."""
    groups, canvas = scene.spec.groups, Canvas(scene.height_px, scene.width_px)
    placements = [Placement(thing.x_px, thing.y_px, thing.size_px) for thing in scene.objects]
    has_places = scene.kind in ("two", "three") and len(placements) == len(groups)
    has_places = has_places and all(is_clear_place(placement, canvas) for placement in placements)
    if not has_places or rng.random() >= PLACES_SHARE:
        return scene
    placed = tuple(
        group._replace(place=place_name(placement, canvas))
        for group, placement in zip(groups, placements, strict=True)
    )
    return replace(scene, spec=replace(scene.spec, groups=placed))


def _is_held_out(groups: Sequence[ObjectGroup], background: str) -> bool:
    """Return whether the six tasks hold a combination out; they know nothing of the new classes."""
    first = [group for group in groups if group.class_name in FIRST_CLASSES]
    return bool(held_out_combinations(first, background))


def _is_visible(groups: Sequence[ObjectGroup], background: str) -> bool:
    """Return whether no object has the colour of the background."""
    behind = np.array(COLOURS[background], float)
    colours = [OBJECT_COLOURS[group.colour] for group in groups if group.colour]
    return all(np.linalg.norm(np.array(colour) - behind) >= MIN_CONTRAST for colour in colours)


def _each(groups: Sequence[ObjectGroup]) -> list[ObjectGroup]:
    """Return the group of each object."""
    return [group for group in groups for _ in range(group.count or 1)]


def _pick(rng: np.random.Generator, choices: Sequence):
    return choices[int(rng.integers(len(choices)))]
