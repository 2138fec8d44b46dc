"""Writes a scene in the plainest words that every nano model was trained on.

Knows nothing of prompts.
"""

from dataclasses import replace

from lens.nano.world.english import article, join_phrases
from lens.nano.world.languages.english.nouns import nouns_of
from lens.nano.world.objects import FIRST_CLASSES, OBJECT_CLASSES
from lens.nano.world.phrases import NUMERALS
from lens.reasoner.nano_rules.scene import Group, ReadScene

SEVERAL = 3
"""Things that are drawn where a prompt says "some" or a bare plural, of a single class."""
SEVERAL_OF_TWO = 2
"""The same, beside things of other classes."""
_WORDS = {
    **dict(enumerate(NUMERALS)), 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve",
}  # fmt: skip
_PREPOSITIONS = {
    "left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below",
}  # fmt: skip
_PLACES = {
    "centre": "in the centre", "left": "on the left", "right": "on the right", "top": "at the top",
    "bottom": "at the bottom",
}  # fmt: skip
_PLAIN_NOUNS = {
    "red apple": ("apple", "apples"), "green apple": ("apple", "apples"), "red heart": ("heart", "hearts"),
}
"""Nouns beside a colour of the classes that are named with their own."""


def write(scene: ReadScene) -> str:
    """Return a prompt for a scene; a number that it leaves open is several."""
    scene = with_numbers(scene)
    related = {thing for first, _, second in scene.relations for thing in (first, second)}
    for number in related:  # a place beside a relation says nothing new
        scene.groups[number].place = None
    phrases = [_phrase(group) for group in scene.groups]
    text = _related(scene, phrases) if scene.relations else _listed(scene, phrases)
    if scene.text is not None:
        marks = '"{}"' if '"' not in scene.text else "\u201c{}\u201d"
        sign = f"a sign that says {marks.format(scene.text)}"
        text = f"{text} and {sign}" if text else sign
    if scene.background is not None:
        colour = scene.background
        if not text:
            return f"a plain {colour} background"
        text += f" on {article(colour)} {colour} background"
    return text


def several(scene: ReadScene) -> int:
    """Return the number that is drawn where a prompt leaves it open."""
    return SEVERAL if len(scene.groups) == 1 else SEVERAL_OF_TWO


def with_numbers(scene: ReadScene) -> ReadScene:
    """Return a scene whose numbers are all known."""
    groups = [replace(group, count=group.count or several(scene)) for group in scene.groups]
    return replace(scene, groups=groups)


def _listed(scene: ReadScene, phrases: list[str]) -> str:
    if scene.is_near:
        return f"{phrases[0]} next to {phrases[1]}"
    return join_phrases(phrases) if phrases else ""


def _related(scene: ReadScene, phrases: list[str]) -> str:
    """Return the relations in their order, and then the things without one."""
    texts: list[str] = []
    named: set[int] = set()
    for first, relation, second in scene.relations:
        a, b = (_again(scene, thing) if thing in named else phrases[thing] for thing in (first, second))
        texts.append(f"{a} {_PREPOSITIONS[relation]} {b}")
        named |= {first, second}
    texts += [phrase for number, phrase in enumerate(phrases) if number not in named]
    return ", and ".join(texts)


def _again(scene: ReadScene, thing: int) -> str:
    """Return a second mention of a thing."""
    group = scene.groups[thing]
    same = [other for other in scene.groups if other.class_name == group.class_name]
    words = [group.size or "" if len(same) > 1 else "", group.colour or "" if len(same) > 1 else ""]
    return " ".join(filter(None, ("the", *words, _noun(group))))


def _phrase(group: Group) -> str:
    count = group.count or 1
    words = " ".join(filter(None, (group.size, group.colour, _noun(group))))
    number = _WORDS.get(count, str(count))
    if count == 1:
        number = article(words) if _takes_article(group.class_name) else ""
    text = f"{number} {words}".strip()
    return f"{text} {_place(group.place)}" if group.place else text


def _place(place: str) -> str:
    return _PLACES.get(place) or f"in the {place} corner"


def _takes_article(class_name: str) -> bool:
    """Return whether one of a class has an article; grapes and bread have none in the captions of today."""
    if class_name in FIRST_CLASSES or " of " in _singular(class_name):
        return True
    return all(noun.takes_article for noun in nouns_of(class_name) if noun.singular == class_name)


def _singular(class_name: str) -> str:
    """Return the name of one thing: a pair of glasses, a loaf of bread."""
    thing = OBJECT_CLASSES[class_name]
    if class_name in FIRST_CLASSES:
        return thing.name
    return next((singular for singular, _ in thing.synonyms if " of " in singular), thing.name)


def _noun(group: Group) -> str:
    thing = OBJECT_CLASSES[group.class_name]
    names = (_singular(group.class_name), thing.plural)
    if group.colour:
        names = _PLAIN_NOUNS.get(group.class_name, names)
    return names[group.count != 1]
