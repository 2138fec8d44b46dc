"""Noun phrases of English captions: groups with number, size, colour and place, and the background's colour.

Knows nothing of sentences. One `Phrases` serves one caption, so that a thing keeps its name.
"""

from collections.abc import Sequence
from random import Random

from lens.nano.world.colours import COLOUR_SYNONYMS, EVERYDAY_COLOUR_NAMES
from lens.nano.world.languages.base import mark
from lens.nano.world.languages.english import frames, words
from lens.nano.world.languages.english.nouns import EnglishNoun, colourless_nouns_of, nouns_of
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_MANY_PAIRS = ("pair", "bunch", "set of", "dice")


class Phrases:
    """EnglishNoun phrases of one scene."""

    def __init__(self, spec: SceneSpec, random: Random, noise: bool) -> None:
        self.spec = spec
        self.random = random
        self.noise = noise
        self.nouns = [self._choose_noun(group) for group in spec.groups]
        for index, group in enumerate(spec.groups[1:], start=1):
            self.nouns[index] = self._shared_noun(group.class_name, self.nouns[index], index)

    def pick(self, choices: Sequence[str]) -> str:
        """Return a random choice."""
        return choices[int(self.random.random() * len(choices))]

    def usual(self, choices: Sequence[str]) -> str:
        """Return a random choice that favours the first ones."""
        return choices[int(self.random.random() ** 1.6 * len(choices))]

    def chance(self, share: float) -> bool:
        """Return True in a share of cases."""
        return self.random.random() < share

    def is_plural(self, index: int) -> bool:
        """Return whether a verb after a group is in the plural."""
        noun = self.nouns[index]
        return self.spec.groups[index].count != 1 or (not noun.takes_article and noun.singular.endswith("s"))

    def group(self, index: int, lead: str | None = None, with_place: bool = True) -> str:
        """Return a group at its first mention; `lead` "the" makes it definite, "" leaves one bare."""
        group, noun = self.spec.groups[index], self.nouns[index]
        adjectives, after = self._attributes(group)
        phrase = " ".join((*adjectives, noun.singular if group.count == 1 else noun.plural))
        if group.count == 1:
            phrase = self._single(phrase, noun, lead)
        else:
            phrase = self._several(phrase, noun, group.count, lead)
        if group.place is not None and with_place:
            after = f"{after} {self.place(group.place)}"
        return mark(index, phrase + after)

    def tag(self, index: int) -> str:
        """Return a group as a tag: "3x fox", "foxes (3)"."""
        group, noun = self.spec.groups[index], self.nouns[index]
        if group.count in (1, None) or self.chance(0.35):
            return self.group(index, lead="")
        return self._counted(index, noun, group, words.COUNT_TAGS)

    def terse(self, index: int) -> str:
        """Return a group with little before it: "fox", "a fox", "3 foxes"."""
        group, noun = self.spec.groups[index], self.nouns[index]
        if group.count == 1:
            lead = self.pick(words.TERSE_SINGLE) if noun.takes_article else ""
            return self.group(index, lead=None if lead == "a" else lead)
        if group.count is None:
            return self.group(index, lead="" if noun.has_bare_plural else None)
        number = str(group.count) if self.chance(0.5) else words.NUMBERS[group.count]
        return self.group(index, lead=number)

    def number_last(self, index: int) -> str:
        """Return several objects with their number after them: "pizzas! four of them"."""
        return self._counted(index, self.nouns[index], self.spec.groups[index], words.COUNT_LAST)

    def again(self, index: int) -> str:
        """Return a group at its second mention."""
        group, noun = self.spec.groups[index], self.nouns[index]
        twins = [other for other in self.spec.groups if other.class_name == group.class_name]
        apart = [word for word in (group.size, group.colour) if word] if len(twins) > 1 else []
        number = [] if group.count in (1, None) or self.chance(0.7) else [words.NUMBERS[group.count]]
        return " ".join(("the", *number, *apart, noun.singular if group.count == 1 else noun.plural))

    def place(self, place: str) -> str:
        """Return a place of the image as a prepositional phrase."""
        row, _, column = place.rpartition(" ")
        if row:
            return self.pick(frames.CORNERS).format(y=self.pick(frames.ROWS[row]), x=column)
        if place in ("left", "right"):
            return self.pick(frames.SIDE_PLACES).format(x=place)
        return self.pick(frames.PLACES[place])

    def background(self, frame: str) -> str:
        """Fill a frame with the background's colour."""
        colour = self.spec.background or ""
        if self.chance(0.35):
            colour = self.pick((*COLOUR_SYNONYMS.get(colour, ()), *EVERYDAY_COLOUR_NAMES[colour]))
        modified = self.pick(frames.BACKGROUND_MODIFIERS) + colour
        return frame.format(
            c=modified, w=colour, an=article(modified), n=self.pick(frames.BACKGROUND_NOUNS)
        )

    def sign(self, frame: str) -> str:
        """Fill a frame with a sign; SIGN_TEXT stands for its quoted text until the caption is finished."""
        text = self.spec.text or ""
        word = "word" if text.isalpha() else "number" if text.isdigit() else "text"
        if self.chance(0.2):
            word = self.pick(("text", "name") if text.isalpha() else ("text", "characters"))
        return frame.format(n=self.pick(frames.SIGN_NOUNS), t=SIGN_TEXT, word=word)

    def _choose_noun(self, group: ObjectGroup) -> EnglishNoun:
        has_colour = any(
            other.colour is not None for other in self.spec.groups if other.class_name == group.class_name
        )
        nouns = (colourless_nouns_of if has_colour else nouns_of)(group.class_name)
        apples = {other.class_name for other in self.spec.groups} >= {"red apple", "green apple"}
        if apples and group.class_name in ("red apple", "green apple") and group.colour is None:
            return nouns[-1]
        noun = nouns[0 if self.chance(0.5) else int(self.random.random() * len(nouns))]
        is_regular = noun.plural.endswith(f"{noun.singular}s")
        if self.noise and noun.has_bare_plural and not is_regular and self.chance(0.03):
            return noun._replace(plural=f"{noun.singular}s")
        return noun

    def _shared_noun(self, class_name: str, noun: EnglishNoun, index: int) -> EnglishNoun:
        """Return the noun of an earlier group of the same class, which differs in colour or size."""
        earlier = (
            self.nouns[at] for at in range(index) if self.spec.groups[at].class_name == class_name
        )
        return next(earlier, noun)

    def _attributes(self, group: ObjectGroup) -> tuple[list[str], str]:
        """Return adjectives before the noun, and what follows it."""
        before: list[str] = []
        after = ""
        is_are = "is" if group.count == 1 else "are"
        if group.size is not None:
            if self.chance(0.9) or group.colour is not None:
                before.append(self.usual(words.SIZE_ADJECTIVES[group.size]))
            else:
                size = self.pick(words.SIZE_PREDICATES[group.size])
                after = f" {self.pick(('that', 'which'))} {is_are} {size}"
        if self.noise and self.chance(0.1):
            before.insert(int(self.chance(0.5) and bool(before)), self.pick(words.NEUTRAL_ADJECTIVES))
        if group.colour is not None:
            colour = group.colour
            if self.chance(0.2):
                colour = self.pick(words.EVERYDAY_OBJECT_COLOURS[colour])
            if self.chance(0.85):
                before.append(self.pick(words.COLOUR_FRAMES).format(c=colour))
            else:
                after = " " + self.pick(words.COLOUR_AFTER).format(c=colour, **{"is": is_are})
        return before, after

    def _single(self, phrase: str, noun: EnglishNoun, lead: str | None) -> str:
        if lead is not None:
            return f"{lead} {phrase}".lstrip()
        if not noun.takes_article:
            return phrase
        draw = self.random.random()
        if draw < 0.08:
            return phrase
        return f"{article(phrase)} {phrase}" if draw < 0.86 else f"{self.pick(words.SINGLE)} {phrase}"

    def _several(self, phrase: str, noun: EnglishNoun, count: int | None, lead: str | None) -> str:
        if count is None:
            if lead is not None and (lead or noun.has_bare_plural):
                return f"{lead} {phrase}".lstrip()
            if noun.has_bare_plural and self.chance(0.5):
                return phrase
            return f"{self.pick(words.SEVERAL)} {phrase}"
        number = lead or self.number(count, noun)
        if lead == "the":
            number = f"the {self.pick((words.NUMBERS[count], str(count)))}"
        return f"{number} {phrase}"

    def number(self, count: int, noun: EnglishNoun) -> str:
        """Return a number before a plural."""
        if self.chance(0.15) and not any(word in noun.plural for word in _MANY_PAIRS):
            return self.pick(words.COUNT_PHRASES[count])
        return self.pick(words.COUNT_FRAMES).format(w=words.NUMBERS[count], d=count)

    def _counted(self, index: int, noun: EnglishNoun, group: ObjectGroup, table: Sequence[str]) -> str:
        assert group.count is not None
        adjectives, after = self._attributes(group)
        lead = " ".join((*adjectives, ""))
        frame = self.pick(table).format(
            one=lead + noun.singular, many=lead + noun.plural, d=group.count, w=words.NUMBERS[group.count]
        )
        return mark(index, frame + after)


SIGN_TEXT = "\ue010"
"""Stands for the text of a sign: case and typos do not touch it."""

_CONSONANT_SOUNDS = ("uni", "one", "ewe", "ufo", "euro")


def article(phrase: str) -> str:
    """Return a or an, by the sound that a phrase begins with."""
    start = phrase.lower()
    has_consonant = start.startswith(_CONSONANT_SOUNDS) and not start.startswith("unid")
    return "an" if start[0] in "aeiou" and not has_consonant else "a"
