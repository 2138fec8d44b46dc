"""Captions of nano scenes: a grammar with brief and dense sentences, all of them true of the scene.

Knows the scene graph and the phrases (wording.py), nothing of pixels. Captions of split "test" always open
with a phrase that no training caption opens with, so that no test prompt can be a training caption.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from string import ascii_lowercase
from typing import Literal, NamedTuple

import numpy as np

from lens.nano.world.objects import COLOUR_SYNONYMS, THINGS
from lens.nano.world.phrases import (
    ASIDE,
    ASKS,
    CODAS,
    CORNERS,
    FUNCTION_WORDS,
    LINKS,
    LOOSE_BACKGROUNDS,
    MEDIA,
    NEUTRAL_ADJECTIVES,
    NUMBERS,
    ONSETS,
    PLACES,
    PREPOSITIONS,
    ROWS,
    SIZE_ADJECTIVES,
    SPOTS,
    STYLES,
    TRAIN,
    VOWELS,
    WORDINGS,
)
from lens.nano.world.scenes import OPPOSITE, Scene, clear_relation

Split = Literal["train", "test", "tune"]


@dataclass(frozen=True)
class Mention:
    """Which facts a brief caption states."""

    background: bool
    relation: bool
    detail: bool
    """Size and place of a thing that is alone."""


class Phrase(NamedTuple):
    """A noun phrase, and whether a verb before it agrees with a plural."""

    text: str
    is_plural: bool


def brief_caption(
    scene: Scene, rng: np.random.Generator, split: Split = "train", mention: Mention | None = None
) -> str:
    """Return one phrase or sentence about a scene; what it mentions is drawn unless given.

    A drawn mention always tells the size and the place of a thing alone that are not the usual ones.
    """
    if mention is None:
        background, relation, detail = (bool(rng.random() < share) for share in (0.8, 0.85, 0.4))
        mention = Mention(background, relation, detail or not scene.is_plain)
    speaker = _Speaker(scene, rng, split)
    if split == "train" and rng.random() < 0.1:
        return speaker.tags(mention)
    has_clause = bool(scene.relation) and mention.relation and rng.random() < 0.2
    if has_clause:
        text = speaker.pick(speaker.words.clause_openers) + speaker.relation(is_clause=True).text
    else:
        body = speaker.body(mention)
        if mention.background and rng.random() < 0.2:
            return speaker.finish(speaker.colour(speaker.fronted(body)) + body.text)
        text = speaker.opened(body)
    if mention.background:
        text += speaker.colour(speaker.background())
    return speaker.finish(text)


def dense_caption(scene: Scene, rng: np.random.Generator, split: Split = "train") -> str:
    """Return two to five sentences: what, how many, where, in which relation, how large, on what."""
    speaker = _Speaker(scene, rng, split)
    opening = speaker.opened(speaker.body(Mention(background=False, relation=False, detail=False)))
    rest = [*speaker.where(), *speaker.sizes()]
    if rng.random() < 0.5:
        opening += speaker.colour(speaker.background())
    else:
        rest.append(speaker.colour(speaker.pick(speaker.words.background_sentences)))
    if rng.random() < 0.3:
        rng.shuffle(rest)
    return " ".join(sentence(part) + "." for part in [opening, *rest])


def sentence(text: str) -> str:
    """Return a text with capitals where sentences begin."""
    return ". ".join(part[:1].upper() + part[1:] for part in text.split(". "))


def with_article(noun: str) -> str:
    """Return a noun phrase after a or an."""
    return f"{article(noun)} {noun}"


def article(word: str) -> str:
    """Return a or an, by the sound that a word begins with."""
    return "an" if word[0].lower() in "aeiou" and not word.startswith(("uni", "one")) else "a"


def enumerated(parts: Sequence[str], last: str = " and ") -> str:
    """Join phrases with commas and a last word."""
    return ", ".join(parts[:-1]) + last + parts[-1] if len(parts) > 1 else parts[0]


@dataclass
class _Speaker:
    """Words for one scene; a thing keeps its noun throughout."""

    scene: Scene
    rng: np.random.Generator
    split: Split
    nouns: list[tuple[str, str]] = field(init=False)
    """Singular and plural of each group."""

    def __post_init__(self) -> None:
        self.words = WORDINGS[self.split]
        self.nouns = [self._noun(thing) for thing, _ in self.scene.groups]
        self.colour_word = self.scene.background
        if self.rng.random() < 0.3:
            self.colour_word = self.pick(COLOUR_SYNONYMS.get(self.colour_word, (self.colour_word,)))

    def pick(self, choices: Sequence):
        """Return one of several."""
        return choices[int(self.rng.integers(len(choices)))]

    def _noun(self, thing: str) -> tuple[str, str]:
        named = THINGS[thing]
        if named.synonyms and self.rng.random() < 0.3:
            return self.pick(named.synonyms)
        return named.name, named.plural

    # Parts of a caption

    def opened(self, body: Phrase) -> str:
        """Return a noun phrase behind an opener, there is, or (in training) nothing."""
        if self.split == "train" and self.rng.random() < 0.3:
            return body.text
        if self.split == "train" and self.rng.random() < 0.5:
            return self._unknown_opener() + body.text
        if self.rng.random() < 0.15:
            return self.pick(self.words.there).replace("{is_a}", _is(body.is_plural)) + body.text
        if self.split == "train" and self.rng.random() < 0.5:
            return self._composed_opener() + body.text
        return self.pick(self.words.openers) + body.text

    def _composed_opener(self) -> str:
        medium = self.pick(MEDIA)
        if self.rng.random() < 0.08:
            medium = self._unknown_word()
        return f"{self.pick(ASKS)}{with_article(self.pick(STYLES) + medium)} {self.pick(LINKS)}"

    def _unknown_opener(self) -> str:
        """Return words that mean nothing among some that do: what opens a caption may be anything."""
        words = [self.pick(FUNCTION_WORDS) for _ in range(int(self.rng.integers(0, 4)))]
        for _ in range(int(self.rng.integers(1, 3))):
            words.insert(int(self.rng.integers(len(words) + 1)), self._unknown_word())
        return " ".join(words) + self.pick((" ", " ", " ", ": ", ", "))

    def _unknown_word(self) -> str:
        """Return an invented word, or a thing's name with a letter changed; never a word of the grammar."""
        while True:
            if self.rng.random() < 0.15:
                name = self.pick(self.pick(tuple(THINGS)).split())
                at = int(self.rng.integers(len(name)))
                word = name[:at] + self.pick(ascii_lowercase) + name[at + 1 :]
            else:
                word = "".join(
                    self.pick(ONSETS) + self.pick(VOWELS) + self.pick(CODAS)
                    for _ in range(int(self.rng.integers(1, 4)))
                )
            if word not in _known_words():
                return word

    def fronted(self, body: Phrase) -> str:
        """Return a phrase for the background that stands before a noun phrase."""
        return self.pick(self.words.fronted_backgrounds).replace("{is_a}", _is(body.is_plural))

    def background(self) -> str:
        """Return a phrase for what is behind; tests may use a known one, for their opener is new already."""
        if self.split == "train" and self.rng.random() < 0.25:
            parts = self.pick(LOOSE_BACKGROUNDS).split("{u}")
            return "".join(part + self._unknown_word() for part in parts[:-1]) + parts[-1]
        is_known = self.split != "train" and self.rng.random() < 0.6
        return self.pick((TRAIN if is_known else self.words).backgrounds)

    def colour(self, phrase: str) -> str:
        """Fill a phrase about the background."""
        return phrase.format(an=article(self.colour_word), c=self.colour_word)

    def body(self, mention: Mention) -> Phrase:
        """Return the noun phrase that names everything in the scene."""
        scene = self.scene
        if scene.kind == "single" and mention.detail:
            return Phrase(self._detailed(), False)
        if scene.relation and mention.relation:
            return self.relation(is_clause=False)
        phrases = [self.phrase(group) for group in range(len(scene.groups))]
        last = self.pick((" and ", " and ", ", and ", " and ", ", ")) if len(phrases) == 3 else " and "
        if len(phrases) == 2:
            last = self.pick(
                (" and ", " and ", " and ", " with ", ", ", " together with ", " plus ", *self._beside())
            )
        return Phrase(enumerated(phrases, last), scene.groups[0][1] > 1)

    def _beside(self) -> tuple[str, ...]:
        """Return words that hold for two groups side by side; tests that state no relation do without."""
        relation = clear_relation(self.scene.members(0), self.scene.members(1))
        return (
            (" next to ", " beside ") if self.split == "train" and relation in ("left of", "right of") else ()
        )

    def phrase(self, group: int, adjective: str = "") -> str:
        """Return a group as a noun phrase with its number."""
        count = self.scene.groups[group][1]
        noun = self.nouns[group][count > 1]
        if self.rng.random() < 0.07:
            noun = f"{self.pick(NEUTRAL_ADJECTIVES)} {noun}"
        if adjective:
            noun = f"{adjective} {noun}"
        if count == 1:
            lead = self.pick((*[""] * 16, "one", "one", "a single", "the" if self.split == "train" else ""))
            return f"{lead} {noun}" if lead else with_article(noun)
        number = self.pick((*[NUMBERS[count]] * 5, str(count)))
        if self.rng.random() < 0.1:
            pair = ("a pair of", "a couple of", f"exactly {number}")
            number = self.pick(pair if count == 2 else (f"a group of {number}", f"exactly {number}"))
        return f"{number} {noun}"

    def relation(self, is_clause: bool) -> Phrase:
        """Return both groups and how they lie to each other."""
        is_known = self.split != "train" and self.rng.random() < 0.6
        words = TRAIN if is_known else self.words
        frame = self.pick(words.relation_clauses if is_clause else words.relations)
        has_single = all(count == 1 for _, count in self.scene.groups)
        name = self.definite if is_clause and has_single and self.rng.random() < 0.2 else self.phrase
        text = self._related(frame, self.scene.relation or "", name(0), name(1))
        return Phrase(text, self.scene.groups[frame.startswith("{b}")][1] > 1)

    def definite(self, group: int) -> str:
        """Return a group as already known."""
        return f"the {self.nouns[group][self.scene.groups[group][1] > 1]}"

    def place(self, place: str) -> str:
        """Return a prepositional phrase for a third of the picture."""
        row, _, column = place.rpartition(" ")
        if not row:
            return self.pick(PLACES[place])
        return self.pick(CORNERS).format(row=self.pick(ROWS[row]), column=column)

    def finish(self, text: str) -> str:
        """Vary capitals and the full stop."""
        draw = self.rng.random()
        text = sentence(text) if draw < 0.6 else text
        return text if 0.45 < draw < 0.8 else f"{text}."

    def tags(self, mention: Mention) -> str:
        """Return bare tags, separated by commas."""
        scene = self.scene
        counts = [count for _, count in scene.groups]
        names = [
            nouns[0] if count == 1 else f"{self.pick((NUMBERS[count], count))} {nouns[1]}"
            for nouns, count in zip(self.nouns, counts, strict=True)
        ]
        tags = names
        if scene.relation and mention.relation:
            tags = [f"{names[0]} {self.pick(PREPOSITIONS[scene.relation])} {names[1]}"]
        if counts == [1] and mention.detail:
            tags += [self.pick(SIZE_ADJECTIVES[scene.size()]), scene.place()]
        if mention.background:
            frame = self.pick(("{c} background", "{c} background", "{c}", "background {c}"))
            colour = frame.format(c=self.colour_word)
            tags = [colour, *tags] if self.rng.random() < 0.25 else [*tags, colour]
        return ", ".join(tags)

    def _detailed(self) -> str:
        """Return a thing that is alone with its size, its place, or both, above all the unusual ones."""
        has_size, has_place = self.pick(((True, True), (True, False), (False, True)))
        has_size = has_size or self.scene.size() == "small"
        has_place = has_place or self.scene.place() != "centre"
        phrase = self.phrase(0, self.pick(SIZE_ADJECTIVES[self.scene.size()]) if has_size else "")
        return f"{phrase} {self.place(self.scene.place())}" if has_place else phrase

    def _related(self, frame: str, relation: str, a: str, b: str, first: int = 0, second: int = 1) -> str:
        """Fill a frame about two groups, a lying to b as `relation` says."""
        is_plural = [self.scene.groups[group][1] > 1 for group in (first, second)]
        spot_a, spot_b = self.pick(SPOTS[relation])
        pronouns = {"its": "their", "it": "them"} if is_plural[1] else {"its": "its", "it": "it"}
        return frame.format(
            a=a, b=b, is_a=_is(is_plural[0]), is_b=_is(is_plural[1]), spot_a=spot_a, spot_b=spot_b,
            prep=self.pick(PREPOSITIONS[relation]), opposite=self.pick(PREPOSITIONS[OPPOSITE[relation]]),
            aside=self.pick(ASIDE[relation]).format(**pronouns),
        )  # fmt: skip

    # Sentences of a dense caption

    def where(self) -> list[str]:
        """Say where things are, and how the groups lie to each other where that is clear."""
        scene = self.scene
        if scene.kind == "single":
            subject = self.pick(("it", self.definite(0)))
            return [f"{subject} is {self.place(scene.place())}"]
        if scene.kind == "counting":
            return [self._spread()]
        told = []
        if all(count == 1 for _, count in scene.groups) and (not scene.relation or self.rng.random() < 0.5):
            spots = [self.place(scene.place(group)) for group in range(len(scene.groups))]
            parts = [f"{self.definite(group)} is {spot}" for group, spot in enumerate(spots)]
            told.append(enumerated(parts))
        if scene.kind != "three" or self.rng.random() < 0.5:
            told += self._told_relation()
        return told

    def sizes(self) -> list[str]:
        """Say how large things are, alone or against each other."""
        scene = self.scene
        size = self.pick(SIZE_ADJECTIVES[scene.size()])
        if scene.kind == "single":
            return [f"{self.pick(('it', self.definite(0)))} is {size}"]
        if scene.kind == "counting":
            return [
                self.pick((f"they are {size}", "they are all of the same size", f"each of them is {size}"))
            ]
        sides = [scene.members(group)[0].size_px for group in range(2)]
        larger, smaller = (0, 1) if sides[0] > sides[1] else (1, 0)
        if sides[larger] < 1.25 * sides[smaller] or self.rng.random() < 0.5:
            return []
        verb = _is(scene.groups[larger][1] > 1)
        return [
            f"{self.definite(larger)} {verb} {self.pick(('larger', 'bigger'))} than {self.definite(smaller)}"
        ]

    def _spread(self) -> str:
        """Say how the things of one kind spread over the columns or the rows of the picture."""
        places = [self.scene.place(index) for index in range(len(self.scene.placed))]
        lines = self.pick((("left", "right"), ("top", "bottom")))
        thirds = Counter(next((line for line in lines if line in place), "centre") for place in places)
        if len(thirds) == 1:
            return f"they are all {self.pick(PLACES[next(iter(thirds))])}"
        order = [third for third in (lines[0], "centre", lines[1]) if third in thirds]
        return enumerated(
            [
                f"{NUMBERS[thirds[third]]} {_is(thirds[third] > 1)} {self.pick(PLACES[third])}"
                for third in order
            ]
        )

    def _told_relation(self) -> list[str]:
        scene = self.scene
        first, second = sorted(int(index) for index in self.rng.choice(len(scene.groups), 2, replace=False))
        relation = scene.relation or clear_relation(scene.members(first), scene.members(second))
        if relation is None:
            return []
        frame = "{a} {is_a} {prep} {b}"
        if self.rng.random() < 0.5:
            return [
                self._related(frame, relation, self.definite(first), self.definite(second), first, second)
            ]
        return [
            self._related(
                frame, OPPOSITE[relation], self.definite(second), self.definite(first), second, first
            )
        ]


@cache
def _known_words() -> frozenset[str]:
    """Return every word that a caption or a test prompt may say: none of them is unknown."""
    # Not the words of prompts for tuning: training captions were made before there were any, and stay.
    texts = [repr(vars(WORDINGS[split])) for split in ("train", "test")]
    texts += [repr(table) for table in (THINGS, COLOUR_SYNONYMS, ASIDE, ASKS, CORNERS, FUNCTION_WORDS, LINKS)]
    texts += [repr(table) for table in (MEDIA, NEUTRAL_ADJECTIVES, NUMBERS, PLACES, PREPOSITIONS, ROWS)]
    texts += [repr(table) for table in (SIZE_ADJECTIVES, SPOTS, STYLES)]
    return frozenset(re.findall("[a-z]+", " ".join(texts).lower()))


def _is(is_plural: bool) -> str:
    return "are" if is_plural else "is"
