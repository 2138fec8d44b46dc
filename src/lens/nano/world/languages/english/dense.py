"""Dense English captions of the nano world: 60 to 120 words of several sentences about one scene.

A caption states every fact of a spec and fills the rest with remarks on style, light and mood that hold for
any image of flat emoji art. Sentences are templates of english_dense.json: [x|y] is a choice, {a} and {b} are
groups, a~ is a or an. The first mention of a group is indefinite, later ones are definite. Knows nothing of
pixels.
"""

import functools
import random
import re
from collections.abc import Callable

import numpy as np

from lens.nano.world.english import join_phrases
from lens.nano.world.languages.base import Caption, mark, read_markers
from lens.nano.world.languages.english.dense_groups import DenseGroup, background_names, traits
from lens.nano.world.languages.english.dense_templates import dense_table, expand, finish, parse
from lens.nano.world.scene_spec import OPPOSITE, SceneSpec

MIN_WORDS, MAX_WORDS = 60, 120
"""Length of a dense caption."""


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


class _Writer:
    """One text about a spec."""

    def __init__(self, spec: SceneSpec, choice: random.Random):
        self.spec, self.choice = spec, choice
        mentioned: list[str] = []
        indices = range(len(spec.groups))
        self.groups = [DenseGroup(index, spec.groups, choice, mentioned) for index in indices]
        self.is_many = len(self.groups) > 1 or any(group.is_plural for group in self.groups)
        names = background_names(spec.background) if spec.background else ("",)
        self.background = names[0] if choice.random() < 0.5 else choice.choice(names)
        quotes = choice.choice(('""', '""', '""', "''", "\u201c\u201d"))
        self.quoted = f"{quotes[0]}{spec.text}{quotes[1]}"
        self.states_background = spec.background is None
        self.used: set[str] = set()

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
        return self._joined([block for block in (*blocks, *tail, *ends) if block])

    def _joined(self, sentences: list[str]) -> str:
        """Return sentences as one text, some of them joined."""
        text, is_joined = sentences[0], False
        for sentence in sentences[1:]:
            is_joined = not is_joined and self.choice.random() < 0.15 and sentence.startswith(_JOINABLE)
            if is_joined:
                link = self.choice.choice((", and ", ", and ", ", while ", "; "))
                text = text.removesuffix(".") + link + sentence[0].lower() + sentence[1:]
            else:
                text = f"{text} {sentence}"
        return text

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
        table = dense_table()["backgrounds"]
        usable = table if self.spec.groups else [text for text in table if "verything" not in text]
        return self.sentence(self.choice.choice(usable))

    def _introduce(self, group: DenseGroup) -> str:
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
            table = dense_table()[f"{fact}_facts"]
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

    def _trait(self, group: DenseGroup, pronoun: bool = False) -> str:
        """Return a sentence on what the drawing of a group looks like, or nothing."""
        usable = traits(group.group.class_name, group.colour is not None)
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
            if group.is_plural and group.group.count is not None:
                more.append(lambda group=group: self.sentence(self._pick("repeats_many"), group))
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
        table = dense_table()
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
        return self.choice.choice(dense_table()[name])

    def sentence(
        self,
        template: str,
        a: DenseGroup | None = None,
        b: DenseGroup | None = None,
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
        return finish(text)


class _Slots:
    """Values of the slots of a template."""

    def __init__(
        self, writer: _Writer, groups: dict, side: str, pronoun: bool, deferred: frozenset[str], count: bool
    ):
        self.writer, self.groups, self.side = writer, groups, side
        self.pronoun, self.deferred, self.count = pronoun, deferred, count

    def fill(self, template: str) -> str:
        """Return a template with its choices made and its slots filled, from left to right."""
        text = expand(parse(template), self.writer.choice)
        return re.sub(r"\{(\w+)\}", lambda match: self.fill(self.value(match[1])), text)

    def value(self, slot: str) -> str:
        """Return what fills a slot; it may have slots itself."""
        choice = self.writer.choice
        if slot in _POOLS:
            return choice.choice(dense_table()[_POOLS[slot]])
        if "_" in slot and slot[-2:] in ("_a", "_b"):
            return self._agreeing(slot[:-2], self.groups[slot[-1]])
        if slot in ("a", "b"):
            return self._group(self.groups[slot])
        return getattr(self, f"_slot_{slot.lower()}")()

    def _group(self, group: DenseGroup) -> str:
        if self.pronoun and group.is_mentioned:
            return "them" if group.is_plural else "it"
        phrase = group.phrase(self.deferred)
        if self.count:
            return mark(group.index, f"{group.number()} {group.noun()}")
        return phrase

    def _agreeing(self, word: str, group: DenseGroup) -> str:
        many = group.is_plural
        if word in _AGREEING:
            return _AGREEING[word][many]
        if word == "the":
            return group.phrase()
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
        return " " + self.writer.choice.choice(dense_table()["places"][group.group.place])

    def _slot_list(self) -> str:
        groups = list(self.writer.groups)
        self.writer.choice.shuffle(groups)
        return join_phrases([group.phrase() for group in groups])

    def _slot_on(self) -> str:
        writer = self.writer
        if writer.states_background or writer.choice.random() < 0.5:
            return ""
        writer.states_background = True
        return " " + writer.choice.choice(dense_table()["on"]) + " a~ {even} {bg} {ground}"

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
        return self.writer.choice.choice(dense_table()["sides"][self.side])

    def _slot_towards(self) -> str:
        return self.writer.choice.choice(dense_table()["towards"][self.side])

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


_JOINABLE = ("The ", "There ", "It ", "No ", "Nothing ", "All ", "Everything ", "Each ", "Every ")
"""Beginnings of sentences that a conjunction can go before."""
_POOLS = {
    "image": "images", "style": "styles", "even": "evenness", "ground": "grounds", "pattern": "patterns",
    "sign": "sign_names",
}  # fmt: skip
"""Slots that any word of a list fills."""
_AGREEING = {
    "is": ("is", "are"), "has": ("has", "have"), "its": ("its", "their"),
    "s": ("s", ""), "es": ("es", ""), "ies": ("ies", "y"),
}  # fmt: skip
"""Singular and plural of words that agree with a group."""
