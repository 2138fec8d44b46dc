"""Reads a prompt into a scene: the parts of the reader in their order.

Knows nothing of how scenes are written.
"""

import re

from lens.nano.world.colours import OBJECT_COLOURS
from lens.nano.world.recolouring import COLOURABLE
from lens.reasoner.nano_rules.backgrounds import read_background
from lens.reasoner.nano_rules.elements import Element
from lens.reasoner.nano_rules.english_elements import english_elements, kind_at, without
from lens.reasoner.nano_rules.foreign_elements import foreign_elements, language_of
from lens.reasoner.nano_rules.relations import RelationReader
from lens.reasoner.nano_rules.scene import ReadScene
from lens.reasoner.nano_rules.signs import read_sign, texts_of, with_sums
from lens.reasoner.nano_rules.things import ThingReader

_SETTINGS = re.compile(
    r"--\w+(?:\s+[\w:.]+)?|\b(?:\d+k|\d+mm|\d+d|\d+p|\d+:\d+|f/[\d.]+|\d+ ?x ?\d{3,})\b|\(\w+:[\d.]+\)",
    re.IGNORECASE,
)
"""What prompts of other models have, which means nothing here: 4k, --ar 1:1, 35mm."""
LONG_PROMPT = 30
"""Words and marks above which a prompt is a description, which comes back to what it named."""
_ENDS_NEGATION = ("comma", "stop", "restart", "on", "background")
_ENDS_PURPOSE = ("comma", "stop", "on", "with", "relation", "near", "aside", "says", "sign", "quote")


def read_prompt(prompt: str) -> ReadScene:
    """Return what a prompt says, in any of the languages."""
    scene = ReadScene()
    code = language_of(prompt)
    elements = _elements(prompt, code)
    is_description = sum(element.text[:1].isalnum() for element in elements) > LONG_PROMPT
    if is_description:
        elements = _without_parts(elements)
    elements = with_sums(elements)
    elements = read_sign(elements, scene)
    elements = read_background(elements, scene)
    elements = _without_negated(elements)
    elements = _without_purposes(elements, scene)
    items = ThingReader(scene, elements, prompt, code, is_description=is_description).read()
    RelationReader(scene, items).read()
    if (doubt := _doubtful_tag(prompt, scene)) is not None:
        scene.doubts.append(doubt)
    return scene


def _elements(prompt: str, code: str) -> list[Element]:
    """Return the elements of a prompt; what it quotes is one each."""
    quotes = texts_of(prompt)
    if len(quotes) == 1 and not re.search(r"\w", prompt[: quotes[0][1]] + prompt[quotes[0][2] :]):
        named = [element.kind for element in _of_part(quotes[0][0], code, 0)]
        quotes = [] if "thing" in named or "background" in named else quotes  # all of the prompt is quoted
    blank = _SETTINGS.sub(lambda found: "," * len(found.group()), prompt)
    blank = re.sub(r"(?<=\d)[xX\u00d7](?=\s|$)|(?<=\s)[xX\u00d7](?=\d)", " ", blank)
    elements, place = [], 0
    for text, start, end in quotes:
        elements += _of_part(blank[place:start], code, place)
        elements.append(Element("quote", text, prompt[start:end], start, end))
        place = end
    return elements + _of_part(blank[place:], code, place)


def _of_part(text: str, code: str, start: int) -> list[Element]:
    return english_elements(text, start) if code == "en" else foreign_elements(text, code, start)


def _without_parts(elements: list[Element]) -> list[Element]:
    """Return the elements of a description without what its things consist of: "it has a striped roof"."""
    place = 0
    while place < len(elements):
        last = place
        while kind_at(elements, last + 1) not in ("stop", "comma"):
            last += 1
        is_part = elements[place].kind == "with" and elements[place].text.lower() in ("has", "have")
        if is_part and not any(element.kind == "thing" for element in elements[place : last + 1]):
            elements = without(elements, place, last)
        place += 1
    return elements


def _without_negated(elements: list[Element]) -> list[Element]:
    """Return the elements without what is not wanted."""
    place = 0
    while place < len(elements):
        if elements[place].kind == "negation":
            last = place
            while kind_at(elements, last + 1) not in _ENDS_NEGATION:
                last += 1
            elements = without(elements, place, last)
        place += 1
    return elements


def _without_purposes(elements: list[Element], scene: ReadScene) -> list[Element]:
    """Return the elements without whom and what the picture is for; "by a house" is beside it."""
    place = 0
    while place < len(elements):
        if elements[place].kind == "purpose":
            last = place
            while kind_at(elements, last + 1) not in _ENDS_PURPOSE:
                last += 1
            things = [at for at, element in enumerate(elements) if element.kind == "thing"]
            has_content = scene.text is not None or any(not place <= at <= last for at in things)
            is_beside = elements[place].text.lower() == "by" and any(place < at <= last for at in things)
            if is_beside:
                elements[place] = elements[place]._replace(kind="near")
            elif has_content:
                elements = without(elements, place, last)
        place += 1
    return elements


def _doubtful_tag(prompt: str, scene: ReadScene) -> str | None:
    """Return the doubt of a prompt like "a car, red": the colour can be the background's or the car's."""
    colour = scene.background
    is_tag = colour is not None and re.search(rf",\s*{colour}\W*$", prompt, re.IGNORECASE)
    if not is_tag or len(scene.groups) != 1:
        return None
    name = scene.groups[0].class_name
    is_either = name in COLOURABLE and colour in OBJECT_COLOURS and scene.groups[0].colour is None
    return f"{colour} can be the colour of the {name} or of the background" if is_either else None
