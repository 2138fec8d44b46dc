"""Grammar of captions of nano scenes: brief and dense sentences, all of them true of the scene.

Knows the scene graph and the phrases (phrases.py), nothing of pixels. Captions of the split "test" always
begin with a phrase that begins no training caption, so that no test prompt can be a training caption.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Literal, NamedTuple

import numpy as np

from lens.nano.world.colours import COLOUR_SYNONYMS
from lens.nano.world.english import article, be_verb, capitalize_sentences, join_phrases, with_article
from lens.nano.world.objects import FIRST_CLASSES, OBJECT_CLASSES
from lens.nano.world.phrases import (
    CODAS,
    CONNECTIVES,
    CORNER_PHRASES,
    FUNCTION_WORDS,
    MEDIA,
    NEUTRAL_ADJECTIVES,
    NOISY_BACKGROUNDS,
    NUMERALS,
    ONSETS,
    PHRASE_SETS,
    POSITION_PHRASES,
    PREPOSITIONS,
    RELATIVE_POSITIONS,
    REQUEST_OPENERS,
    ROW_WORDS,
    SIDE_PHRASES,
    SIZE_ADJECTIVES,
    STYLES,
    TRAIN_PHRASES,
    VOWELS,
    known_words,
)
from lens.nano.world.scenes import OPPOSITE, Scene, clear_relation

Split = Literal["train", "test", "tune"]


@dataclass(frozen=True)
class CaptionContent:
    """The facts that a brief caption states."""

    background: bool
    relation: bool
    detail: bool
    """Size and place of a single object."""


class NounPhrase(NamedTuple):
    """A noun phrase, and whether a verb before it agrees with a plural."""

    text: str
    is_plural: bool


def brief_caption(
    scene: Scene, rng: np.random.Generator, split: Split = "train", content: CaptionContent | None = None
) -> str:
    """Return one phrase or sentence about a scene; without `content`, random facts are stated.

    Random content always includes the size and the place of a single object that are not the default ones.
    """
    if content is None:
        background, relation, detail = (bool(rng.random() < share) for share in (0.8, 0.85, 0.4))
        content = CaptionContent(background, relation, detail or not scene.has_default_placement)
    generator = _CaptionGenerator(scene, rng, split)
    if split == "train" and rng.random() < 0.1:
        return generator.tags(content)
    has_clause = bool(scene.relation) and content.relation and rng.random() < 0.2
    if has_clause:
        text = (
            generator.pick(generator.phrases.clause_openers) + generator.relation_phrase(is_clause=True).text
        )
    else:
        body = generator.body(content)
        if content.background and rng.random() < 0.2:
            return generator.finish(generator.fill_colour(generator.fronted_background(body)) + body.text)
        text = generator.with_opener(body)
    if content.background:
        text += generator.fill_colour(generator.background_phrase())
    return generator.finish(text)


def dense_caption(scene: Scene, rng: np.random.Generator, split: Split = "train") -> str:
    """Return two to five sentences on objects, counts, places, relation, sizes and background."""
    generator = _CaptionGenerator(scene, rng, split)
    opening = generator.with_opener(
        generator.body(CaptionContent(background=False, relation=False, detail=False))
    )
    rest = [*generator.position_sentences(), *generator.size_sentences()]
    if rng.random() < 0.5:
        opening += generator.fill_colour(generator.background_phrase())
    else:
        rest.append(generator.fill_colour(generator.pick(generator.phrases.background_sentences)))
    if rng.random() < 0.3:
        rng.shuffle(rest)
    return " ".join(capitalize_sentences(part) + "." for part in [opening, *rest])


@dataclass
class _CaptionGenerator:
    """Generator of phrases for one scene; each object keeps its noun."""

    scene: Scene
    rng: np.random.Generator
    split: Split
    nouns: list[tuple[str, str]] = field(init=False)
    """Singular and plural of each group."""

    def __post_init__(self) -> None:
        self.phrases = PHRASE_SETS[self.split]
        self.nouns = [self._choose_noun(thing) for thing, *_ in self.scene.groups]
        self.colour_word = self.scene.background
        if self.rng.random() < 0.3:
            self.colour_word = self.pick(COLOUR_SYNONYMS.get(self.colour_word, (self.colour_word,)))

    def pick(self, choices: Sequence):
        """Return a random choice."""
        return choices[int(self.rng.integers(len(choices)))]

    def is_plural(self, group: int) -> bool:
        """Return whether a group has several objects."""
        return (self.scene.groups[group].count or 1) > 1

    def _choose_noun(self, thing: str) -> tuple[str, str]:
        named = OBJECT_CLASSES[thing]
        if named.synonyms and self.rng.random() < 0.3:
            return self.pick(named.synonyms)
        return named.name, named.plural

    # Parts of a caption

    def with_opener(self, body: NounPhrase) -> str:
        """Return a noun phrase after an opener, after "there is", or (in training) alone."""
        if self.split == "train" and self.rng.random() < 0.3:
            return body.text
        if self.split == "train" and self.rng.random() < 0.5:
            return self._unknown_opener() + body.text
        if self.rng.random() < 0.15:
            return self.pick(self.phrases.there).replace("{is_a}", be_verb(body.is_plural)) + body.text
        if self.split == "train" and self.rng.random() < 0.5:
            return self._composed_opener() + body.text
        return self.pick(self.phrases.openers) + body.text

    def _composed_opener(self) -> str:
        medium = self.pick(MEDIA)
        if self.rng.random() < 0.08:
            medium = self._unknown_word()
        return (
            f"{self.pick(REQUEST_OPENERS)}{with_article(self.pick(STYLES) + medium)} {self.pick(CONNECTIVES)}"
        )

    def _unknown_opener(self) -> str:
        """Return invented words among function words, so that any opener is possible."""
        words = [self.pick(FUNCTION_WORDS) for _ in range(int(self.rng.integers(0, 4)))]
        for _ in range(int(self.rng.integers(1, 3))):
            words.insert(int(self.rng.integers(len(words) + 1)), self._unknown_word())
        return " ".join(words) + self.pick((" ", " ", " ", ": ", ", "))

    def _unknown_word(self) -> str:
        """Return an invented word, or the name of an object with one letter changed; never a known word."""
        while True:
            if self.rng.random() < 0.15:
                name = self.pick(self.pick(FIRST_CLASSES).split())
                at = int(self.rng.integers(len(name)))
                word = name[:at] + self.pick(ascii_lowercase) + name[at + 1 :]
            else:
                word = "".join(
                    self.pick(ONSETS) + self.pick(VOWELS) + self.pick(CODAS)
                    for _ in range(int(self.rng.integers(1, 4)))
                )
            if word not in known_words():
                return word

    def fronted_background(self, body: NounPhrase) -> str:
        """Return a phrase for the background that comes before a noun phrase."""
        return self.pick(self.phrases.fronted_backgrounds).replace("{is_a}", be_verb(body.is_plural))

    def background_phrase(self) -> str:
        """Return a phrase for the background; tests may use one of training, as their opener is new."""
        if self.split == "train" and self.rng.random() < 0.25:
            parts = self.pick(NOISY_BACKGROUNDS).split("{u}")
            return "".join(part + self._unknown_word() for part in parts[:-1]) + parts[-1]
        is_known = self.split != "train" and self.rng.random() < 0.6
        return self.pick((TRAIN_PHRASES if is_known else self.phrases).backgrounds)

    def fill_colour(self, phrase: str) -> str:
        """Fill a phrase about the background."""
        return phrase.format(an=article(self.colour_word), c=self.colour_word)

    def body(self, content: CaptionContent) -> NounPhrase:
        """Return the noun phrase that names everything in the scene."""
        scene = self.scene
        if scene.kind == "single" and content.detail:
            return NounPhrase(self._detailed_phrase(), False)
        if scene.relation and content.relation:
            return self.relation_phrase(is_clause=False)
        phrases = [self.group_phrase(group) for group in range(len(scene.groups))]
        last = self.pick((" and ", " and ", ", and ", " and ", ", ")) if len(phrases) == 3 else " and "
        if len(phrases) == 2:
            last = self.pick(
                (
                    " and ",
                    " and ",
                    " and ",
                    " with ",
                    ", ",
                    " together with ",
                    " plus ",
                    *self._beside_conjunctions(),
                )
            )
        return NounPhrase(join_phrases(phrases, last), self.is_plural(0))

    def _beside_conjunctions(self) -> tuple[str, ...]:
        """Return conjunctions for two groups side by side; none for tests, which state no relation here."""
        relation = clear_relation(self.scene.group_objects(0), self.scene.group_objects(1))
        return (
            (" next to ", " beside ") if self.split == "train" and relation in ("left of", "right of") else ()
        )

    def group_phrase(self, group: int, adjective: str = "") -> str:
        """Return a group as a noun phrase with its number."""
        count = self.scene.groups[group].count or 1
        noun = self.nouns[group][count > 1]
        if self.rng.random() < 0.07:
            noun = f"{self.pick(NEUTRAL_ADJECTIVES)} {noun}"
        if adjective:
            noun = f"{adjective} {noun}"
        if count == 1:
            lead = self.pick((*[""] * 16, "one", "one", "a single", "the" if self.split == "train" else ""))
            return f"{lead} {noun}" if lead else with_article(noun)
        number = self.pick((*[NUMERALS[count]] * 5, str(count)))
        if self.rng.random() < 0.1:
            pair = ("a pair of", "a couple of", f"exactly {number}")
            number = self.pick(pair if count == 2 else (f"a group of {number}", f"exactly {number}"))
        return f"{number} {noun}"

    def relation_phrase(self, is_clause: bool) -> NounPhrase:
        """Return both groups and their relation."""
        is_known = self.split != "train" and self.rng.random() < 0.6
        phrases = TRAIN_PHRASES if is_known else self.phrases
        frame = self.pick(phrases.relation_clauses if is_clause else phrases.relations)
        has_single = not any(self.is_plural(group) for group in range(len(self.scene.groups)))
        name = (
            self.definite_phrase
            if is_clause and has_single and self.rng.random() < 0.2
            else self.group_phrase
        )
        text = self._fill_relation(frame, self.scene.relation or "", name(0), name(1))
        return NounPhrase(text, self.is_plural(frame.startswith("{b}")))

    def definite_phrase(self, group: int) -> str:
        """Return a group with a definite article."""
        return f"the {self.nouns[group][self.is_plural(group)]}"

    def place_phrase(self, place: str) -> str:
        """Return a prepositional phrase for a place of the image."""
        row, _, column = place.rpartition(" ")
        if not row:
            return self.pick(POSITION_PHRASES[place])
        return self.pick(CORNER_PHRASES).format(row=self.pick(ROW_WORDS[row]), column=column)

    def finish(self, text: str) -> str:
        """Return a caption with random capitals and full stop."""
        draw = self.rng.random()
        text = capitalize_sentences(text) if draw < 0.6 else text
        return text if 0.45 < draw < 0.8 else f"{text}."

    def tags(self, content: CaptionContent) -> str:
        """Return tags, separated by commas."""
        scene = self.scene
        counts = [group.count or 1 for group in scene.groups]
        names = [
            nouns[0] if count == 1 else f"{self.pick((NUMERALS[count], count))} {nouns[1]}"
            for nouns, count in zip(self.nouns, counts, strict=True)
        ]
        tags = names
        if scene.relation and content.relation:
            tags = [f"{names[0]} {self.pick(PREPOSITIONS[scene.relation])} {names[1]}"]
        if counts == [1] and content.detail:
            tags += [self.pick(SIZE_ADJECTIVES[scene.size()]), scene.place()]
        if content.background:
            frame = self.pick(("{c} background", "{c} background", "{c}", "background {c}"))
            colour = frame.format(c=self.colour_word)
            tags = [colour, *tags] if self.rng.random() < 0.25 else [*tags, colour]
        return ", ".join(tags)

    def _detailed_phrase(self) -> str:
        """Return a single object with its size, its place or both; unusual ones are always included."""
        has_size, has_place = self.pick(((True, True), (True, False), (False, True)))
        has_size = has_size or self.scene.size() == "small"
        has_place = has_place or self.scene.place() != "centre"
        phrase = self.group_phrase(0, self.pick(SIZE_ADJECTIVES[self.scene.size()]) if has_size else "")
        return f"{phrase} {self.place_phrase(self.scene.place())}" if has_place else phrase

    def _fill_relation(
        self, frame: str, relation: str, a: str, b: str, first: int = 0, second: int = 1
    ) -> str:
        """Fill a frame with two groups; `relation` is that of a to b."""
        is_plural = [self.is_plural(group) for group in (first, second)]
        spot_a, spot_b = self.pick(SIDE_PHRASES[relation])
        pronouns = {"its": "their", "it": "them"} if is_plural[1] else {"its": "its", "it": "it"}
        return frame.format(
            a=a, b=b, is_a=be_verb(is_plural[0]), is_b=be_verb(is_plural[1]), spot_a=spot_a, spot_b=spot_b,
            prep=self.pick(PREPOSITIONS[relation]), opposite=self.pick(PREPOSITIONS[OPPOSITE[relation]]),
            aside=self.pick(RELATIVE_POSITIONS[relation]).format(**pronouns),
        )  # fmt: skip

    # Sentences of a dense caption

    def position_sentences(self) -> list[str]:
        """Return sentences on the places of objects, and on the relation of groups where it is clear."""
        scene = self.scene
        if scene.kind == "single":
            subject = self.pick(("it", self.definite_phrase(0)))
            return [f"{subject} is {self.place_phrase(scene.place())}"]
        if scene.kind == "counting":
            return [self._distribution_sentence()]
        sentences = []
        has_plural = any(self.is_plural(group) for group in range(len(scene.groups)))
        if not has_plural and (not scene.relation or self.rng.random() < 0.5):
            spots = [self.place_phrase(scene.place(group)) for group in range(len(scene.groups))]
            parts = [f"{self.definite_phrase(group)} is {spot}" for group, spot in enumerate(spots)]
            sentences.append(join_phrases(parts))
        if scene.kind != "three" or self.rng.random() < 0.5:
            sentences += self._relation_sentences()
        return sentences

    def size_sentences(self) -> list[str]:
        """Return sentences on the sizes of objects, absolute or compared."""
        scene = self.scene
        size = self.pick(SIZE_ADJECTIVES[scene.size()])
        if scene.kind == "single":
            return [f"{self.pick(('it', self.definite_phrase(0)))} is {size}"]
        if scene.kind == "counting":
            return [
                self.pick((f"they are {size}", "they are all of the same size", f"each of them is {size}"))
            ]
        sides = [scene.group_objects(group)[0].size_px for group in range(2)]
        larger, smaller = (0, 1) if sides[0] > sides[1] else (1, 0)
        if sides[larger] < 1.25 * sides[smaller] or self.rng.random() < 0.5:
            return []
        verb = be_verb(self.is_plural(larger))
        return [
            f"{self.definite_phrase(larger)} {verb} {self.pick(('larger', 'bigger'))} than "
            f"{self.definite_phrase(smaller)}"
        ]

    def _distribution_sentence(self) -> str:
        """Return a sentence on the distribution of objects over columns or rows of the image."""
        places = [self.scene.place(index) for index in range(len(self.scene.objects))]
        lines = self.pick((("left", "right"), ("top", "bottom")))
        thirds = Counter(next((line for line in lines if line in place), "centre") for place in places)
        if len(thirds) == 1:
            return f"they are all {self.pick(POSITION_PHRASES[next(iter(thirds))])}"
        order = [third for third in (lines[0], "centre", lines[1]) if third in thirds]
        return join_phrases(
            [
                f"{NUMERALS[thirds[third]]} {be_verb(thirds[third] > 1)} {self.pick(POSITION_PHRASES[third])}"
                for third in order
            ]
        )

    def _relation_sentences(self) -> list[str]:
        scene = self.scene
        first, second = sorted(int(index) for index in self.rng.choice(len(scene.groups), 2, replace=False))
        relation = scene.relation or clear_relation(scene.group_objects(first), scene.group_objects(second))
        if relation is None:
            return []
        frame = "{a} {is_a} {prep} {b}"
        if self.rng.random() < 0.5:
            return [
                self._fill_relation(
                    frame, relation, self.definite_phrase(first), self.definite_phrase(second), first, second
                )
            ]
        return [
            self._fill_relation(
                frame,
                OPPOSITE[relation],
                self.definite_phrase(second),
                self.definite_phrase(first),
                second,
                first,
            )
        ]
