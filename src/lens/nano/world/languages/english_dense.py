"""Dense English captions of the nano world: 60 to 120 words of several sentences about one scene.

A caption states every fact of a spec and fills the rest with remarks on style, light and mood that hold for
any image of flat emoji art. Sentences are templates of english_dense.json: [x|y] is a choice, {a} and {b} are
groups, a~ is a or an. The first mention of a group is indefinite, later ones are definite. Knows nothing of
pixels.
"""

import functools
import random
import re
from collections.abc import Callable, Sequence

import numpy as np

from lens.nano.world.colours import COLOURS, EVERYDAY_COLOUR_NAMES
from lens.nano.world.english import join_phrases
from lens.nano.world.languages.base import Caption, mark, read_markers
from lens.nano.world.languages.tables import read_table
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import OPPOSITE, ObjectGroup, SceneSpec

MIN_WORDS, MAX_WORDS = 60, 120
"""Length of a dense caption."""

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_COLLECTIVES = {2: ("a couple of",), 3: ("a trio of",), 6: ("half a dozen",)}
_SIZE_WORDS = {"small": ("small",) * 5 + ("little", "tiny"), "large": ("large",) * 5 + ("big", "huge")}
_MEASURES = {
    "bunches": "bunch", "loaves": "loaf", "stacks": "stack", "portions": "portion", "boxes": "box",
    "cups": "cup", "pairs": "pair",
}  # fmt: skip
"""Words that count a mass."""
_NOT_AFTER_AN = ("uni", "one", "ewe", "ufo", "eu")
"""Beginnings that are written with a vowel and spoken with a consonant."""


class EnglishDense:
    """Writer of dense captions."""

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption of MIN_WORDS to MAX_WORDS that states all of a spec and nothing else.

        Raises: ValueError for a spec without anything to state.
        """
        if not spec.groups and spec.background is None and spec.text is None:
            raise ValueError("A dense caption needs something to state.")
        choice = random.Random(int(rng.integers(1 << 62)))
        text = _Writer(spec, choice).text()
        while not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            text = _Writer(spec, choice).text()
        return read_markers(text, len(spec.groups))


def dense_caption(spec: SceneSpec, rng: np.random.Generator) -> Caption:
    """Return a dense caption of a spec."""
    return EnglishDense().caption(spec, rng)


class _Group:
    """A group of objects in a text: its facts, which of them are yet to state, and its names."""

    def __init__(self, index: int, groups: Sequence[ObjectGroup], choice: random.Random):
        self.group, self.choice, self.index = groups[index], choice, index
        self.names = class_names(self.group.class_name, self.group.colour)
        # The usual name in half of the texts; a text changes names rarely.
        self.name = self.names[0] if choice.random() < 0.5 else choice.choice(self.names)
        others = (*groups[:index], *groups[index + 1 :])
        self.twins = [other for other in others if other.class_name == self.group.class_name]
        self.is_mentioned = False
        self.is_plural = self.group.count != 1
        facts = ("count", "colour", "size", "place")
        self.unstated = {fact for fact in facts if getattr(self.group, fact) is not None}
        self.colour = self.group.colour
        self.size = choice.choice(_SIZE_WORDS[self.group.size]) if self.group.size else None

    def noun(self) -> str:
        one, many = self.name if self.choice.random() < 0.8 else self.choice.choice(self.names)
        return many if self.is_plural else one

    def phrase(self, deferred: frozenset[str] = frozenset()) -> str:
        """Return the group as a marked noun phrase, indefinite at its first mention."""
        text = self._definite() if self.is_mentioned else self._indefinite(deferred)
        return mark(self.index, text)

    def number(self) -> str:
        count = self.group.count
        if count is None:
            return self.choice.choice(("some", "several", "a few", "a number of", "various"))
        return str(count) if count > 1 and self.choice.random() < 0.1 else _NUMBERS[count]

    def _indefinite(self, deferred: frozenset[str]) -> str:
        self.is_mentioned = True
        words = [self.noun()]
        for fact, word in (("colour", self.colour), ("size", self.size)):
            if word and fact not in deferred:
                words.insert(0, word)
                self.unstated.discard(fact)
        noun = " ".join(words)
        if "count" in deferred:
            return f"{self.choice.choice(('', 'some ')) if self.is_plural else 'a~ '}{noun}"
        self.unstated.discard("count")
        if not self.is_plural:
            return f"{self.choice.choice(('a~', 'a~', 'a~', 'a~', 'one', 'a single'))} {noun}"
        collectives = _COLLECTIVES.get(self.group.count or 0, ())
        if collectives and " of " not in noun and self.choice.random() < 0.15:
            return f"{self.choice.choice(collectives)} {noun}"
        return f"{self.number()} {noun}"

    def _definite(self) -> str:
        group, choice = self.group, self.choice
        if self.twins:
            count = self.number() if any(twin.count != group.count for twin in self.twins) else ""
            words = [count if self.is_plural and group.count else "", self.size, self.colour]
            if not words[0] and any(_includes(twin, group) for twin in self.twins):
                words.insert(0, "other")
        else:
            words = [
                self.number() if self.is_plural and group.count and choice.random() < 0.25 else "",
                self.size if choice.random() < 0.2 else "",
                self.colour if choice.random() < 0.3 else "",
            ]
        return " ".join(("the", *(word for word in words if word), self.noun()))


def _includes(other: ObjectGroup, group: ObjectGroup) -> bool:
    """Return whether the colour and size that tell a group also hold for another one of its class."""
    return group.colour in (None, other.colour) and group.size in (None, other.size)


class _Writer:
    """One text about a spec."""

    def __init__(self, spec: SceneSpec, choice: random.Random):
        self.spec, self.choice = spec, choice
        self.groups = [_Group(index, spec.groups, choice) for index in range(len(spec.groups))]
        self.is_many = len(self.groups) > 1 or any(group.is_plural for group in self.groups)
        names = background_names(spec.background) if spec.background else ("",)
        self.background = names[0] if choice.random() < 0.5 else choice.choice(names)
        quotes = choice.choice(('""', '""', '""', "''", "\u201c\u201d"))
        self.quoted = f"{quotes[0]}{spec.text}{quotes[1]}"
        self.states_background = spec.background is None
        self.used: set[str] = set()
        self.num_words = 0

    def text(self) -> str:
        """Return the text, with marks."""
        choice, target = self.choice, self.choice.randint(MIN_WORDS + 4, MAX_WORDS - 4)
        blocks = self._facts()
        remarks, endings = self._remarks()
        ends: list[str] = []
        if choice.random() < 0.7 and endings:
            ends.append(self.sentence(choice.choice(endings)))
        more = self._repeats()
        choice.shuffle(more)
        tail: list[str] = []
        if choice.random() < 0.3:  # some texts speak of the scene mostly, others of its style
            more = more[: len(more) // 3]
        length = sum(len(block.split()) for block in (*blocks, *ends))
        while length < target:
            if more and choice.random() < 0.5:
                block = more.pop()()
                tail.append(block)
            else:
                block = self.sentence(choice.choice(remarks))
                if block and choice.random() < 0.4:
                    blocks.insert(choice.randint(1, len(blocks)), block)
                else:
                    tail.append(block)
            length += len(block.split())
        choice.shuffle(tail)
        return " ".join(block for block in (*blocks, *tail, *ends) if block)

    def _facts(self) -> list[str]:
        """Return sentences that state the whole spec, the opening first."""
        choice = self.choice
        units: list[Callable[[], str]] = [functools.partial(self._introduce, group) for group in self.groups]
        for relation in self.spec.relations:
            reverse = choice.random() < 0.5
            units.append(functools.partial(self._relate, "relations", *relation, reverse=reverse))
        if self.spec.text is not None:
            units.append(lambda: self.sentence(self._pick("signs")))
        choice.shuffle(units)
        units.insert(0 if choice.random() < 0.2 else choice.randint(0, len(units)), self._state_background)
        opening = choice.random()
        if opening < 0.55 and self.groups:
            units.insert(0, lambda: self.sentence(self._pick("openings")))
        elif opening < 0.8:
            units.insert(0, lambda: self.sentence(self._pick("plain_openings")))
        return [block for unit in units if (block := unit())]

    def _state_background(self) -> str:
        if self.states_background:
            return ""
        self.states_background = True
        usable = [text for text in _table()["backgrounds"] if self.spec.groups or "verything" not in text]
        return self.sentence(self.choice.choice(usable))

    def _introduce(self, group: _Group) -> str:
        """Return sentences that state what is yet unstated of a group."""
        choice, sentences = self.choice, []
        deferred: set[str] = set()
        if not group.is_mentioned:
            if not group.twins:
                odds = {"count": 0.12 if group.is_plural else 0, "colour": 0.25, "size": 0.25}
                deferred = {fact for fact in sorted(group.unstated) if choice.random() < odds.get(fact, 0)}
            sentences.append(self.sentence(self._pick("introductions"), group, deferred=frozenset(deferred)))
        facts = sorted(group.unstated)
        choice.shuffle(facts)
        for number, fact in enumerate(facts):
            table = _table()[f"{fact}_facts"]
            templates = table[group.group.size] if fact == "size" else table
            is_pronoun = bool(sentences) and (number > 0 or choice.random() < 0.6)
            sentences.append(self.sentence(choice.choice(templates), group, pronoun=is_pronoun))
            group.unstated.discard(fact)
        if sentences and choice.random() < 0.3:
            sentences.append(self._trait(group, pronoun=True))
        return " ".join(filter(None, sentences))

    def _relate(self, templates: str, first: int, relation: str, second: int, reverse: bool = False) -> str:
        if reverse:
            first, relation, second = second, OPPOSITE[relation], first
        groups = self.groups[first], self.groups[second]
        return self.sentence(self._pick(templates), *groups, side=relation)

    def _trait(self, group: _Group, pronoun: bool = False) -> str:
        """Return a sentence on what the drawing of a group looks like, or nothing."""
        usable = traits(group.group.class_name, group.group.colour is not None)
        if not usable or f"trait {group.index}" in self.used:
            return ""
        self.used.add(f"trait {group.index}")
        return self.sentence("{each_a} has " + self.choice.choice(usable) + ".", group, pronoun=pronoun)

    def _repeats(self) -> list[Callable[[], str]]:
        """Return sentences about what has been stated already."""
        more: list[Callable[[], str]] = []
        for group in self.groups:
            more.append(lambda group=group: self._trait(group))
            more.append(lambda group=group: self.sentence(self._pick("repeats"), group))
            if group.group.count is not None and not group.twins:
                more.append(lambda group=group: self.sentence(self._pick("total"), group, count=True))
        for relation in self.spec.relations:
            for way in (True, False):
                more.append(functools.partial(self._relate, "relations_again", *relation, reverse=way))
        if self.spec.text is not None:
            more.append(lambda: self.sentence(self._pick("sign_remarks")))
        if self.spec.background is not None and self.groups:
            more.append(lambda: self.sentence(self._pick("backgrounds_again")))
        return more

    def _remarks(self) -> tuple[list[str], list[str]]:
        """Return remarks that suit the scene, and those that suit its end."""
        table = _table()
        remarks = [*table["style"]]
        endings: list[str] = []
        if self.groups:
            remarks += table["thing_remarks"]
            endings += table["closing"]
        elif self.spec.text is None:
            remarks += table["empty"]
        if len(self.groups) > 1:
            remarks += table["many_remarks"]
        if self.spec.text is None:
            endings += table["no_text"]
        return remarks, endings

    def _pick(self, name: str) -> str:
        return self.choice.choice(_table()[name])

    def sentence(
        self,
        template: str,
        a: _Group | None = None,
        b: _Group | None = None,
        side: str = "",
        pronoun: bool = False,
        deferred: frozenset[str] = frozenset(),
        count: bool = False,
    ) -> str:
        """Return a template filled, "" if it has been used before."""
        if template in self.used and a is None:
            return ""
        self.used.add(template)
        text = _Slots(self, {"a": a, "b": b}, side, pronoun, deferred, count).fill(template)
        return _finish(text)


class _Slots:
    """Values of the slots of a template."""

    def __init__(
        self, writer: _Writer, groups: dict, side: str, pronoun: bool, deferred: frozenset[str], count: bool
    ):
        self.writer, self.groups, self.side = writer, groups, side
        self.pronoun, self.deferred, self.count = pronoun, deferred, count

    def fill(self, template: str) -> str:
        text = _expand(_parse(template), self.writer.choice)
        return re.sub(r"\{(\w+)\}", lambda match: self.fill(self.value(match[1])), text)

    def value(self, slot: str) -> str:
        choice = self.writer.choice
        if slot in _POOLS:
            return choice.choice(_table()[_POOLS[slot]])
        if "_" in slot and slot[-2:] in ("_a", "_b"):
            return self._agreeing(slot[:-2], self.groups[slot[-1]])
        if slot in ("a", "b"):
            return self._group(self.groups[slot])
        return getattr(self, f"_slot_{slot.lower()}")()

    def _group(self, group: _Group) -> str:
        if self.pronoun and group.is_mentioned:
            return "them" if group.is_plural else "it"
        phrase = group.phrase(self.deferred)
        if self.count:
            return mark(group.index, f"{group.number()} {group.noun()}")
        return phrase

    def _agreeing(self, word: str, group: _Group) -> str:
        many = group.is_plural
        if word in _AGREEING:
            return _AGREEING[word][many]
        if word == "there":
            return f"{'' if group.is_mentioned else 'there '}{_AGREEING['is'][many]}"
        if word == "they":
            return ("they" if many else "it") if self.pronoun else self._group(group)
        assert word == "each"
        if not many:
            return "it" if self.pronoun else self._group(group)
        return self.writer.choice.choice(("each of ", "every one of ")) + self._group(group)

    def _slot_place(self) -> str:
        group = self.groups["a"]
        if "place" not in group.unstated or (not group.is_mentioned and self.writer.choice.random() < 0.3):
            return ""
        group.unstated.discard("place")
        return " " + self.writer.choice.choice(_table()["places"][group.group.place])

    def _slot_list(self) -> str:
        groups = list(self.writer.groups)
        self.writer.choice.shuffle(groups)
        return join_phrases([group.phrase() for group in groups])

    def _slot_on(self) -> str:
        writer = self.writer
        if writer.states_background or writer.choice.random() < 0.5:
            return ""
        writer.states_background = True
        return " " + writer.choice.choice(_table()["on"]) + " a~ {even} {bg} {ground}"

    def _slot_against(self) -> str:
        writer = self.writer
        if writer.spec.background is None or writer.choice.random() < 0.5:
            return ""
        return " against the {bg} {ground}"

    def _slot_bg(self) -> str:
        writer = self.writer
        usual = background_names(writer.spec.background)[0]
        return writer.background if writer.choice.random() < 0.8 else usual

    def _slot_colour(self) -> str:
        return self.groups["a"].colour

    def _slot_count(self) -> str:
        return self.groups["a"].number()

    def _slot_side(self) -> str:
        return self.writer.choice.choice(_table()["sides"][self.side])

    def _slot_t(self) -> str:
        return self.writer.quoted

    def _slot_it(self) -> str:
        if not self.writer.groups:
            return "the sign" if self.writer.spec.text else "it"
        return self._slot_things()

    def _slot_things(self) -> str:
        many = ("the objects", "the figures", "the motifs", "the elements")
        one = ("the object", "the figure", "the motif", "the subject")
        return self.writer.choice.choice(many if self.writer.is_many else one)

    def _slot_of_things(self) -> str:
        return self.writer.choice.choice(("", f"of {self._slot_things()}"))

    def _slot_are_things(self) -> str:
        return "are" if self.writer.is_many else "is"

    def _slot_s_things(self) -> str:
        return "" if self.writer.is_many else "s"

    def _slot_them_things(self) -> str:
        return "them" if self.writer.is_many else "it"


_POOLS = {
    "image": "images", "style": "styles", "even": "evenness", "ground": "grounds", "pattern": "patterns",
    "sign": "sign_names",
}  # fmt: skip
"""Slots that any word of a list fills."""
_AGREEING = {
    "is": ("is", "are"), "has": ("has", "have"), "s": ("s", ""), "es": ("es", ""), "its": ("its", "their"),
}  # fmt: skip
"""Singular and plural of words that agree with a group."""


@functools.cache
def class_names(class_name: str, colour: str | None) -> tuple[tuple[str, str], ...]:
    """Return (singular, plural) names of a class, the usual one first.

    Names that begin with a colour stay only where they are the usual name of a thing with its own colours.
    """
    thing = OBJECT_CLASSES[class_name]
    pairs = [(thing.name, thing.plural), *thing.synonyms]
    if " of " in thing.plural and " of " not in thing.name:
        # "a loaf of bread", not "a bread"
        pairs = [(f"{_MEASURES[many.split()[0]]} {many.split(' ', 1)[1]}", many) for _, many in pairs]
        pairs = list(dict.fromkeys(pairs))
    coloured = [pair for pair in pairs if pair[0].split()[0] in COLOURS and " " in pair[0]]
    if colour is not None:
        plain = [pair for pair in pairs if pair not in coloured]
        return tuple(plain or [(one.split(" ", 1)[1], many.split(" ", 1)[1]) for one, many in coloured])
    return tuple(pair for pair in pairs if pair == pairs[0] or pair not in coloured)


@functools.cache
def background_names(colour: str | None) -> tuple[str, ...]:
    """Return what to call a background colour; no word that also names an object."""
    if colour is None:
        return ("",)
    nouns = {word for thing in OBJECT_CLASSES.values() for word, _ in ((thing.name, ""), *thing.synonyms)}
    names = EVERYDAY_COLOUR_NAMES[colour]
    return (colour, *(name for name in names if not nouns & set(re.findall(r"[a-z]+", name))))


@functools.cache
def traits(class_name: str, is_recoloured: bool) -> tuple[str, ...]:
    """Return what the drawing of a class has, as objects of "has"."""
    known = _table()["traits"].get(class_name, ())
    return tuple(text for text in known if not (is_recoloured and set(text.split()) & set(COLOURS)))


@functools.cache
def _table() -> dict:
    return read_table("english_dense")


@functools.cache
def _parse(template: str) -> tuple:
    """Return a template as a tuple of texts and of lists of alternatives, each such a tuple."""
    stack: list[list] = [[[]]]
    for token in re.findall(r"[\[\]|]|[^\[\]|]+", template):
        if token == "[":
            stack.append([[]])
        elif token == "|":
            stack[-1].append([])
        elif token == "]":
            alternatives = stack.pop()
            stack[-1][-1].append([tuple(alternative) for alternative in alternatives])
        else:
            stack[-1][-1].append(token)
    return tuple(stack[0][0])


def _expand(parts: tuple, choice: random.Random) -> str:
    return "".join(part if isinstance(part, str) else _expand(choice.choice(part), choice) for part in parts)


def _finish(text: str) -> str:
    """Return a sentence with its articles, spaces and capital."""
    text = re.sub(r"\ba~ +(\w+)", _with_article, " ".join(text.split()), flags=re.IGNORECASE)
    text = text.replace(" ,", ",").replace(" .", ".")
    start = 0 if text[:1].isprintable() else 1
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def _with_article(match: re.Match[str]) -> str:
    word = match[1].lower()
    an = word[0] in "aeiou" and not word.startswith(_NOT_AFTER_AN)
    return f"{'an' if an else 'a'} {match[1]}"
