"""Relations among the things of a prompt: by prepositions, by pronouns, and by their sides of the image.

Knows nothing of words.
"""

from itertools import pairwise

from lens.reasoner.nano_rules.scene import SIDES, ReadScene
from lens.reasoner.nano_rules.things import Item

_VERBS = ("verb", "that", "particle")
_ON_TOP = (
    "on", "upon", "placed on", "set on", "auf", "sur", "su", "sul", "\u043d\u0430", "\u0639\u0644\u0649",
)  # fmt: skip
_FRONTS = ("and", "comma", "stop", "with")
_RANK = {"left": 0, "centre": 1, "right": 2, "top": 0, "bottom": 2}


class RelationReader:
    """Reads the items of one prompt into the relations of a scene."""

    def __init__(self, scene: ReadScene, items: list[Item]):
        self.scene, self.items = scene, items
        self.sides: dict[int, str] = {}
        self.topic: int | None = None
        """The thing that a pronoun stands for once a relation was said."""
        self.last_subject: int | None = None
        self.is_prefix_style = False
        """Whether sides come before things: "left: a fox, right: a car"."""

    def read(self) -> None:
        """Read all relations and places."""
        for place, item in enumerate(self.items):
            if item.kind == "relation":
                self._read_relation(place, str(item.value))
            elif item.kind == "aside":
                self._read_aside(place, str(item.value))
            elif item.kind in ("side", "place"):
                self._read_side(place, str(item.value))
            elif item.kind == "landmark":
                self._read_landmark(place, str(item.value))
            elif item.kind == "on":
                self._read_on(place, item.text.lower())
            elif item.kind == "in" and self._thing_at(place + 1) is not None:
                self.scene.unknown.append(item.text)
            elif item.kind == "near":
                self.scene.is_near = True
        self._relate_sides()
        self.scene.is_near &= len(self.scene.groups) == 2 and not self.scene.relations

    def _kind(self, place: int) -> str:
        return self.items[place].kind if 0 <= place < len(self.items) else "stop"

    def _thing_at(self, place: int) -> int | None:
        if self._kind(place) == "ordinal":
            number = int(str(self.items[place].value))
            return number if number < len(self.scene.groups) else None
        return int(str(self.items[place].value)) if self._kind(place) == "thing" else None

    def _skip(self, place: int, kinds: tuple[str, ...], step: int = 1) -> int:
        while 0 <= place < len(self.items) and self.items[place].kind in kinds:
            place += step
        return place

    def _thing_before(self, place: int, *excluded: int | None) -> int | None:
        """Return the last thing that is mentioned before a place."""
        for at in range(place - 1, -1, -1):
            thing = self._thing_at(at)
            if thing is not None and thing not in excluded:
                return thing
        return None

    def _read_relation(self, place: int, relation: str) -> None:
        after = self._skip(place + 1, _VERBS)
        landmark, before = self._thing_at(after), self._skip(place - 1, _VERBS, -1)
        adjacent = self._thing_at(before)
        if landmark is None and self._kind(after) == "pronoun":
            landmark = self._pronoun(place, adjacent)
        side = next(side for side, (name, _) in SIDES.items() if name == relation)
        if landmark is None and self._kind(after) == "unknown":
            return
        if landmark is None:
            if adjacent is not None and self._thing_before(before, adjacent) is not None:
                self._read_aside(place, relation)  # with a tree above
            else:
                self._read_side(place, side)
            return
        if adjacent in self.sides and self.sides[adjacent] == SIDES[side][1]:
            self._read_side(place, side)  # on top a bed, below a cat
            return
        if self._kind(before) == "pronoun" and adjacent is None:
            is_other = self.topic not in (None, landmark)
            adjacent = self.topic if is_other else self._thing_before(place, landmark)
        if adjacent is not None:
            self._relate(adjacent, relation, landmark)
            return
        subject = self._fronted(place, after, landmark)
        if subject is None and self.sides:
            self._read_side(place, side)  # at the top a fox, below a cat
        else:
            self._relate(subject, relation, landmark)

    def _fronted(self, place: int, after: int, landmark: int) -> int | None:
        """Return the subject of a relation that comes before it: "left of a house there is a fox"."""
        front = self._kind(place - 1)
        earlier = self._thing_before(place, landmark)
        breaks = ("comma",) if front == "stop" or place == 0 or earlier is None else ()
        following = self._thing_at(self._skip(after + 1, (*_VERBS, *breaks)))
        if following is not None:
            return following
        if self.sides:
            return None
        return self.last_subject if front == "and" else earlier

    def _pronoun(self, place: int, subject: int | None) -> int | None:
        """Return what a pronoun after a relation stands for."""
        if self.topic is not None and self.topic != subject:
            clause = self.items[:place]
            is_new_sentence = any(item.kind == "stop" for item in clause[-4:])
            if is_new_sentence and self.last_subject not in (None, self.topic, subject):
                self.scene.doubts.append("\"it\" can be one of two things")
            return self.topic
        return self._thing_before(place, subject)

    def _read_aside(self, place: int, relation: str) -> None:
        before = self._skip(place - 1, _VERBS, -1)
        subject = self._thing_at(before)
        landmark = None if subject is None else self._pronoun(place, subject)
        if subject is None or landmark is None:
            following = self._thing_at(self._skip(place + 1, _VERBS))
            landmark = self.topic if self.topic is not None else self._thing_before(place, following)
            subject = following
        self._relate(subject, relation, landmark)

    def _read_landmark(self, place: int, relation: str) -> None:
        """Read a relation to the thing right before it; the other is the next thing, or the one before."""
        landmark = self._thing_at(place - 1)
        if landmark is None and self._kind(place - 1) == "pronoun":
            landmark = self._thing_before(place - 1)
        following = self._thing_at(self._skip(place + 1, (*_VERBS, "comma")))
        if landmark is None:
            self._read_side(place, next(side for side, (name, _) in SIDES.items() if name == relation))
            return
        subject = self._thing_before(place, landmark)
        is_next = following is not None and following != landmark
        if is_next and subject is not None and self._kind(place - 2) != "comma":
            same_clause = self._clause(place) == self._clause_of(subject, place)
            is_next = not same_clause
        self._relate(following if is_next else subject, relation, landmark)

    def _clause(self, place: int) -> int:
        return sum(item.kind in ("comma", "stop") for item in self.items[:place])

    def _clause_of(self, thing: int, before: int) -> int:
        at = max(at for at in range(before) if self._thing_at(at) == thing)
        return self._clause(at)

    def _read_on(self, place: int, word: str) -> None:
        """Read "on a house" as above it; other prepositions name nothing in a flat world."""
        thing, subject = self._thing_at(place + 1), self._thing_at(self._skip(place - 1, _VERBS, -1))
        if thing is None or subject is None:
            return
        if word in _ON_TOP:
            self._relate(subject, "above", thing)
        else:
            self.scene.unknown.append(word)

    def _read_side(self, place: int, side: str) -> None:
        before, after = self._skip(place - 1, _VERBS, -1), place + 1
        while self._kind(after) in _VERBS or (self._kind(after) == "comma" and self.items[after].text == ":"):
            after += 1
        following, previous = self._thing_at(after), self._thing_at(before)
        if previous is None and self._kind(before) == "comma" and following is None:
            previous = self._thing_before(place)
        if self._kind(before) == "pronoun":
            previous = self.topic if self.topic is not None else self._thing_before(place)
        is_prefix = following is not None and (previous is None or self.is_prefix_style)
        if is_prefix:
            self.is_prefix_style = True
        thing = following if is_prefix else previous
        if thing is None:
            self.scene.unknown.append(self.items[place].text)
            return
        if thing in self.sides and self.sides[thing] != side:
            self.scene.doubts.append(f"{self.scene.groups[thing].class_name} has two places")
        self.sides[thing] = side

    def _relate(self, first: int | None, relation: str, second: int | None) -> None:
        if (first is None or second is None) and self.scene.unknown:
            return  # a relation to what is not known
        if first is None or second is None or first == second:
            self.scene.doubts.append(f"it is not clear what is {relation} what")
            return
        self.scene.relate(first, relation, second)
        self.topic, self.last_subject = second, first

    def _relate_sides(self) -> None:
        """Turn sides of the image into relations where there are several things, into a place otherwise."""
        groups = self.scene.groups
        related = {thing for first, _, second in self.scene.relations for thing in (first, second)}
        plain = {thing: side for thing, side in self.sides.items() if side in _RANK}
        for thing, side in self.sides.items():
            if side not in _RANK:
                groups[thing].place = side
        if len(groups) == 1:
            for thing, side in plain.items():
                groups[thing].place = side
        elif len(groups) == 2 and len(plain) == 1 and not related:
            ((thing, side),) = plain.items()
            if side == "centre":
                groups[thing].place = side
            else:
                self.scene.relate(thing, SIDES[side][0], 1 - thing)
        else:
            self._relate_pairs(plain)

    def _relate_pairs(self, sides: dict[int, str]) -> None:
        is_upright = any(side in ("top", "bottom") for side in sides.values())
        if is_upright and any(side in ("left", "right") for side in sides.values()):
            for thing, side in sides.items():
                self.scene.groups[thing].place = side
            return
        ordered = sorted(sides, key=lambda thing: _RANK[sides[thing]])
        for first, second in pairwise(ordered):
            if _RANK[sides[first]] == _RANK[sides[second]]:
                continue
            known = {(first, second), (second, first)} & {(a, b) for a, _, b in self.scene.relations}
            if not known:
                self._relate_in_order(first, second, sides)
        if len(ordered) == 1:
            self.scene.groups[ordered[0]].place = sides[ordered[0]]

    def _relate_in_order(self, first: int, second: int, sides: dict[int, str]) -> None:
        """Relate two things by their sides, as the first that is said to the other."""
        is_upright = {sides[first], sides[second]} & {"top", "bottom"}
        relation, opposite = ("above", "below") if is_upright else ("left of", "right of")
        if first < second:
            self.scene.relate(first, relation, second)
        else:
            self.scene.relate(second, opposite, first)
