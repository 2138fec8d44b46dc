"""The text of a sign: quoted, in capitals after a word for a sign, or the answer to a sum; and sums.

"Two plus three apples" are five, and the answer to 2+2 is a text. Knows nothing of things and backgrounds.
"""

import re

from lens.reasoner.nano_rules.elements import Element
from lens.reasoner.nano_rules.english_elements import is_break, kind_at, skip, without
from lens.reasoner.nano_rules.scene import ReadScene
from lens.reasoner.rules.quotes import quotes_of

_STARRED = re.compile(r"\*\*([^*\s][^*]*)\*\*|\*([^*\s][^*]*)\*|`([^`]+)`")
"""Text that is marked as people mark it in messages."""
_PRODUCT = ("times", "x", "*", "\u00d7", "multiplied by")
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


def with_sums(elements: list[Element]) -> list[Element]:
    """Return the elements with each sum as one number, and the answer to a question for one as a quote."""
    done: list[Element] = []
    place = 0
    while place < len(elements):
        element = elements[place]
        if element.kind == "answer":
            first = skip(elements, place + 1, ("filler", "definite", "article", "comma"))
            found = _sum(elements, first, element.value)
            if found is not None and found[1] > first + 1:
                value, end = found
                last = elements[end - 1]
                done.append(Element("quote", str(value), last.text, element.start, last.end))
                place = end
                continue
        elif element.kind == "number":
            found = _sum(elements, place, None)
            if found is not None and found[1] > place + 1 and _counts(elements, found[1]):
                value, place = found
                done.append(Element("number", value, str(value), element.start, elements[place - 1].end))
                continue
        done.append(element)
        place += 1
    return done


def _sum(elements: list[Element], place: int, kind: str | None) -> tuple[int, int] | None:
    """Return the value of a sum that starts in a place, and where it ends."""
    if kind_at(elements, place) != "number":
        return None
    value, end = elements[place].value, place + 1
    while kind_at(elements, end + 1) == "number" and (operator := _operator(elements[end], kind)):
        other = elements[end + 1].value
        value = {"+": value + other, "-": value - other, "*": value * other}[operator]
        end += 2
    return (value, end) if value > 0 else None


def _operator(element: Element, kind: str | None) -> str | None:
    word = element.text.lower()
    if word in ("+", "plus") or (word == "and" and kind == "sum"):
        return "+"
    if word in ("-", "\u2013", "minus", "less"):
        return "-"
    return "*" if word in _PRODUCT or (word == "and" and kind == "product") else None


def _counts(elements: list[Element], place: int) -> bool:
    """Return whether a number in front of a place counts things."""
    return kind_at(elements, skip(elements, place, ("filler", "colour", "size"))) == "thing"
