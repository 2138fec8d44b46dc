"""Noun phrases of a prompt: things with their number, colour and size, and second mentions of them.

The result is a row of items: things, and what stands between them. Knows nothing of relations.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from lens.nano.vocabulary_tables import prompt_words
from lens.nano.world.languages.tables import OWN_COLOURS
from lens.reasoner.nano_rules.elements import Element
from lens.reasoner.nano_rules.english_elements import kind_at, skip
from lens.reasoner.nano_rules.scene import Group, ReadScene

_ENDS_UNKNOWN = (
    "comma", "stop", "and", "with", "verb", "that", "relation", "side", "on", "near", "place", "aside",
)  # fmt: skip


_PAIRS = ("glasses", "scissors")
"""Classes of which a pair is one: "une paire de lunettes"."""
SPACED = ("en", "de", "fr", "es", "it", "pt", "ru")
"""Languages in which two things right beside each other are no list."""


class Item(NamedTuple):
    """A mention of a thing, or an element between mentions."""

    kind: str
    """thing, or the kind of the element."""
    value: object
    """The number of a group, or what the element means."""
    text: str


@dataclass
class _Pending:
    """What was said since the last thing, and waits for the next."""

    first: Element | None = None
    number: int | None = None
    is_several: bool = False
    is_one: bool = False
    is_definite: bool = False
    colours: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    unknown: list[Element] = field(default_factory=list)

    @property
    def is_bare(self) -> bool:
        return self.number is None and not (self.is_several or self.is_one or self.is_definite)


class ThingReader:
    """Reads the elements of one prompt into a scene."""

    def __init__(
        self, scene: ReadScene, elements: list[Element], prompt: str, code: str, *, is_description: bool
    ):
        self.scene, self.elements, self.prompt = scene, elements, prompt
        self.has_spaces, self.is_english = code in SPACED, code == "en"
        self.is_description = is_description
        self.items: list[Item] = []
        self._pending = _Pending()
        self._mention: int | None = None
        """The group that an adjective or a number after its noun belongs to."""
        self._counted: set[int] = set()
        """Groups whose number is stated."""

    def read(self) -> list[Item]:
        """Return the items; things go into the scene."""
        place = 0
        while place < len(self.elements):
            place = self._read_element(place)
        self._flush("stop")
        return self.items

    def _read_element(self, place: int) -> int:
        """Read the element in a place, and return the next place."""
        element, pending = self.elements[place], self._pending
        kind = element.kind
        is_bracket = element.text in ("(", ")") and kind_at(self.elements, place + 1) != "stop"
        if is_bracket and pending.number is not None:
            return place + 1  # one (1) fox
        if kind == "thing" and len(element.value) > 2 and self._is_adjective(place):
            kind, element = "colour", element._replace(kind="colour", value=element.value[2])
        if pending.first is None and kind not in ("filler", *_ENDS_UNKNOWN):
            pending.first = element
        match kind:
            case "thing":
                return self._read_thing(place)
            case "number":
                self._flush_adjectives()
                pending = self._pending
                if pending.number not in (None, element.value):
                    self.scene.doubts.append(f"{pending.number} and {element.value} count the same thing")
                pending.number = element.value
            case "several" | "article" | "definite":
                self._flush_adjectives()
                pending = self._pending
                names = {"several": "is_several", "article": "is_one", "definite": "is_definite"}
                setattr(pending, names[kind], True)
                pending.is_several = kind == "several" or (pending.is_several and kind == "definite")
            case "colour":
                pending.colours.append(element.value)
            case "size":
                pending.sizes.append(element.value)
            case "behind" if not element.text.lower().startswith("behind"):
                pass
            case "unknown" | "other" | "shade" | "backdrop" | "behind" | "equals":
                pending.unknown.append(element)
            case "of_them":
                self._count_before()
            case "action":
                self._flush("verb")
                self.scene.unknown.append(element.text)
                self.items.append(Item("verb", None, element.text))
            case "filler" if element.value and self._is_told_noun(place):
                pending.unknown.append(element)
            case "filler" | "background" | "purpose" | "negation" | "restart" | "says" | "answer" | "change":
                pass
            case "medium":
                self._pending = _Pending(colours=pending.colours, number=pending.number)
            case _:
                self._flush(kind, element)
                self.items.append(Item(kind, element.value, element.text))
        return place + 1

    def _is_told_noun(self, place: int) -> bool:
        """Return whether a word that mostly means nothing is a noun here: "in a hat", "cat food"."""
        pending = self._pending
        has_determiner = pending.is_one or pending.is_definite or pending.number is not None
        after_thing = kind_at(self.elements, place - 1) == "thing"
        if self.elements[place].text.lower() in prompt_words("styles") or not self.is_english:
            return False
        return (has_determiner or after_thing) and kind_at(self.elements, place + 1) in _ENDS_UNKNOWN

    def _flush_adjectives(self) -> None:
        """Give adjectives after a noun to it where the next phrase begins: "un copo diminuto y un ..."."""
        pending = self._pending
        has_adjectives = pending.colours or pending.sizes
        if not self.is_english and has_adjectives and pending.is_bare and self._mention is not None:
            self._flush("adjective")

    def _is_adjective(self, place: int) -> bool:
        """Return whether the word for an orange is a colour: a thing is right beside it."""
        if not self.is_english and self._pending.is_bare and kind_at(self.elements, place - 1) == "thing":
            return True
        after = kind_at(self.elements, skip(self.elements, place + 1, ("filler", "size")))
        return after in ("thing", "unknown", "other")

    def _read_thing(self, place: int) -> int:
        element, pending = self.elements[place], self._pending
        after = kind_at(self.elements, place + 1)
        if after == "other":  # apple pie
            pending.unknown += [element, self.elements[place + 1]]
            return place + 2
        class_name, is_plural = element.value[:2]
        if self.has_spaces and after == "thing" and not is_plural and self._is_near(place):
            names = f"{element.text} {self.elements[place + 1].text}"
            self.scene.doubts.append(f"\"{names}\" can be one thing or two")
        self.scene.unknown += self._adjectives(pending.unknown)
        if pending.unknown and (pending.number or 1) > 1 and is_plural is False:
            self.scene.doubts.append(f"{pending.number} may not count the {class_name}")  # a four legged dog
        colour = self._colour(class_name, pending)
        class_name, colour = _named_with_colour(class_name, colour)
        count = self._count(class_name, pending, is_plural)
        known = self._known_group(class_name, colour, pending)
        if known is None:
            known = len(self.scene.groups)
            size = pending.sizes[0] if pending.sizes else None
            self.scene.groups.append(Group(class_name, count, colour, size))
            if pending.number is not None or pending.is_one:
                self._counted.add(known)
        elif pending.number is not None:
            self._set_count(known, pending.number)
        self.items.append(Item("thing", known, element.text))
        self._pending, self._mention = _Pending(), known
        return place + 1

    def _is_near(self, place: int) -> bool:
        """Return whether nothing but a space is between an element and the next."""
        element, after = self.elements[place], self.elements[place + 1]
        return len(after.value) < 3 and after.start - element.end <= 1

    def _adjectives(self, elements: list[Element]) -> list[str]:
        return [element.text for element in elements]

    def _colour(self, class_name: str, pending: _Pending) -> str | None:
        colours = list(dict.fromkeys(pending.colours))
        if len(colours) > 1:
            self.scene.doubts.append(f"{class_name} has the colours {' and '.join(colours)}")
        return colours[0] if colours else None

    def _count(self, class_name: str, pending: _Pending, is_plural: bool | None) -> int | None:
        if pending.number is not None:
            is_pair = class_name in _PAIRS and pending.first is not None and " " in pending.first.text
            return 1 if is_pair else pending.number
        if pending.is_several or (is_plural and not pending.is_one):
            return None
        return 1

    def _known_group(self, class_name: str, colour: str | None, pending: _Pending) -> int | None:
        """Return the group that a phrase mentions again: "the fox" after "a fox"."""
        same = [
            number
            for number, group in enumerate(self.scene.groups)
            if group.class_name == class_name and colour in (None, group.colour)
        ]
        if pending.sizes:
            same = [number for number in same if self.scene.groups[number].size == pending.sizes[0]]
        is_new = pending.is_one or pending.is_several or not (pending.is_definite or pending.is_bare)
        if self.is_description and pending.number is not None:  # "in all, there are two foxes"
            same = [number for number in same if self.scene.groups[number].count in (None, pending.number)]
            is_new = False
        if not same or is_new:
            return None
        if len(same) > 1:
            self.scene.doubts.append(f"\"the {class_name}\" can be one of {len(same)}")
        return same[0]

    def _count_before(self) -> None:
        """Give a number to what was said before it: "four of them"."""
        if self._pending.number is not None and self.scene.groups:
            number = self._pending.number
            self._pending = _Pending()
            last = len(self.scene.groups) - 1
            self._set_count(last if self._mention is None else self._mention, number)

    def _set_count(self, group: int, number: int) -> None:
        known = self.scene.groups[group]
        if group in self._counted and known.count != number:
            self.scene.doubts.append(f"{known.class_name} is counted as {known.count} and as {number}")
        known.count = number
        self._counted.add(group)

    def _flush(self, kind: str, element: Element | None = None) -> None:
        """Find a place for what no thing came after."""
        pending, self._pending = self._pending, _Pending()
        if pending.unknown and kind in _ENDS_UNKNOWN:
            last = pending.unknown[-1]
            first = pending.first or last
            text = self.prompt[min(first.start, last.start) : last.end]
            self.scene.unknown.append(text)
            self.items.append(Item("unknown", None, text))
            self._mention = None
            if pending.colours and all(element.kind == "unknown" for element in pending.unknown):
                self.scene.doubts.append(f"\"{text}\" can be a thing or the background")
            return
        self.scene.unknown += self._adjectives(pending.unknown)
        group = self._mention
        is_clear = all(item.kind != "unknown" for item in self.items)
        if group is None and len(self.scene.groups) == 1 and is_clear:
            group = 0
        if pending.number is not None:
            if group is None or (
                group in self._counted and self.scene.groups[group].count != pending.number
            ):
                self.scene.doubts.append(f"{pending.number} counts nothing that is known")
            else:
                self._set_count(group, pending.number)
        self._describe(group, pending)
        if kind in ("stop", "comma", "and", "with") and not (element and element.text == "("):
            self._mention = self._mention if kind in ("comma", "stop") else None

    def _describe(self, group: int | None, pending: _Pending) -> None:
        """Give a colour and a size to the thing before them: "a car in red", "the mouse is small"."""
        for colour in pending.colours:
            known = self.scene.groups[group] if group is not None else None
            if known is None or known.colour not in (None, colour) or not self._is_predicate():
                self.scene.doubts.append(f"{colour} can be the colour of more than one thing")
            else:
                known.class_name, known.colour = _named_with_colour(known.class_name, colour)
        for size in pending.sizes:
            if group is not None and self.scene.groups[group].size in (None, size):
                self.scene.groups[group].size = size
            elif group is not None and self.items and self.items[-1].kind == "thing":
                # "A large melon, small melon" are two.
                name, text = self.scene.groups[group].class_name, self.items[-1].text
                self.scene.groups.append(Group(name, 1, size=size))
                self.items[-1] = Item("thing", len(self.scene.groups) - 1, text)
            else:
                self.scene.unknown.append(size)

    def _is_predicate(self) -> bool:
        """Return whether the words before say something of a thing."""
        before = self.items[-1] if self.items else None
        return before is not None and (before.kind in ("verb", "that", "in", "thing") or before.text == "(")


def _named_with_colour(class_name: str, colour: str | None) -> tuple[str, str | None]:
    """Return the class that a coloured thing is: a green apple is a class of its own."""
    if class_name in OWN_COLOURS and colour is not None:
        if colour == OWN_COLOURS[class_name]:
            return class_name, None
        if "apple" in class_name:
            names = {"red": ("red apple", None), "green": ("green apple", None)}
            return names.get(colour, ("red apple", colour))
    return class_name, colour
