"""The text of a sign: quoted, in capitals after a word for a sign, or the answer to a sum.

Knows nothing of things and backgrounds.
"""

import re

from lens.reasoner.nano_rules.elements import Element
from lens.reasoner.nano_rules.english_elements import is_break, kind_at, skip, without
from lens.reasoner.nano_rules.scene import ReadScene
from lens.reasoner.rules.quotes import quotes_of

_STARRED = re.compile(r"\*\*([^*\s][^*]*)\*\*|\*([^*\s][^*]*)\*|`([^`]+)`")
"""Text that is marked as people mark it in messages."""
_COUNTS = ("number", "the number")
"""Words that also tell how many things there are: "owls, number: 3"."""
_AROUND = ("filler", "article", "definite", "size", "colour", "verb", "that", "with", "in", "medium")
_BEFORE = ("filler", "article", "definite", "size", "verb", "with", "number", "says")


def texts_of(prompt: str) -> list[tuple[str, int, int]]:
    """Return the quoted texts of a prompt with their places, quotation marks included."""
    quotes = [(quote.text, quote.start, quote.end) for quote in quotes_of(prompt)]
    starred = _STARRED.finditer(prompt)
    marked = [(next(filter(None, one.groups())), one.start(), one.end()) for one in starred]
    return quotes or marked


def read_sign(elements: list[Element], scene: ReadScene) -> list[Element]:
    """Read the text of a sign, and return the elements that are left."""
    quotes = [place for place, element in enumerate(elements) if element.kind == "quote"]
    if len({elements[place].value for place in quotes}) > 1:
        scene.doubts.append("it quotes more than one text, and a picture has one sign")
        return elements
    place = quotes[0] if quotes else _place_of_text(elements)
    if place is None:
        if any(element.kind == "sign" for element in elements):
            scene.unknown += [element.text for element in elements if element.kind == "sign"]
        return [element for element in elements if element.kind not in ("sign", "says", "answer")]
    scene.text = elements[place].value if elements[place].kind == "quote" else elements[place].text
    return _without_sign(elements, place)


def _place_of_text(elements: list[Element]) -> int | None:
    """Return the place of a text without quotation marks."""
    signs = [place for place, element in enumerate(elements) if element.kind == "sign"]
    for place, element in enumerate(elements):
        is_label = kind_at(elements, place + 1) == "comma" and element.text.lower() not in _COUNTS
        if element.kind != "says" or not (signs or is_label):
            continue
        after = _skip_to_text(elements, place + 1, ("says", "comma", "verb", "that", "definite"))
        if kind_at(elements, after) != "sign" and _is_word(elements, after) and _ends(elements, after + 1):
            return after
        if _is_capitals(elements, place - 1):
            return place - 1
    if not any(letter.islower() for element in elements for letter in element.text):
        return None  # capitals tell nothing in a prompt that is all of them
    for place in signs:
        after = _skip_to_text(elements, place + 1, ("comma", "filler", "verb", "with", "says", "definite"))
        if after > place + 1 and _is_capitals(elements, after):
            return after
        if _is_capitals(elements, place - 1):
            return place - 1
        before = skip(elements, place - 1, ("on", "article", "definite", "filler", "verb", "says", "in"), -1)
        if _is_capitals(elements, before):
            return before
    return None


def _skip_to_text(elements: list[Element], place: int, kinds: tuple[str, ...]) -> int:
    """Return the first place that is in capitals or of none of some kinds."""
    while kind_at(elements, place) in kinds and place < len(elements) and not _is_capitals(elements, place):
        place += 1
    return place


def _is_word(elements: list[Element], place: int) -> bool:
    text = elements[place].text if 0 <= place < len(elements) else ""
    return text[:1].isalnum() and " " not in text


def _is_capitals(elements: list[Element], place: int) -> bool:
    text = elements[place].text if _is_word(elements, place) else ""
    return len(text) > 1 and (text.isupper() or text.isdigit())


def _ends(elements: list[Element], place: int) -> bool:
    place = skip(elements, place, ("filler",))
    kind = kind_at(elements, place)
    return is_break(kind) or kind in ("on", "sign", "says", "in", "near", "relation")


def _without_sign(elements: list[Element], place: int) -> list[Element]:
    """Return the elements without a text and the words around it for a sign and for saying."""
    first = last = place
    while True:
        before = skip(elements, first - 1, (*_AROUND, "on", "comma"), -1)
        after = skip(elements, last + 1, (*_AROUND, "on", "near"))
        if kind_at(elements, before) in ("sign", "says"):
            first = before
        elif kind_at(elements, after) in ("sign", "says"):
            last = after
        else:
            break
    while kind_at(elements, first - 1) in _BEFORE:
        first -= 1
    rest = without(elements, first, last)
    return [element for element in rest if element.kind not in ("sign", "says", "quote")]
