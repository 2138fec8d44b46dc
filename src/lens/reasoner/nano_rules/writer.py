"""Writes a scene in the plainest words that every nano model was trained on.

Knows nothing of prompts.
"""

from lens.nano.world.english import article, join_phrases
from lens.nano.world.objects import OBJECT_CLASSES
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
    phrases = [_phrase(group, _count(scene, group)) for group in scene.groups]
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


def _count(scene: ReadScene, group: Group) -> int:
    return several(scene) if group.count is None else group.count


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
    return " ".join(filter(None, ("the", *words, _noun(group, _count(scene, group)))))


def _phrase(group: Group, count: int) -> str:
    words = " ".join(filter(None, (group.size, group.colour, _noun(group, count))))
    number = article(words) if count == 1 else _WORDS.get(count, str(count))
    text = f"{number} {words}"
    return f"{text} {_place(group.place)}" if group.place else text


def _place(place: str) -> str:
    return _PLACES.get(place) or f"in the {place} corner"


def _noun(group: Group, count: int) -> str:
    thing = OBJECT_CLASSES[group.class_name]
    names = _PLAIN_NOUNS.get(group.class_name, thing[:2]) if group.colour else thing[:2]
    return names[count != 1]
