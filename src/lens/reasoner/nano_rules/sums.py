"""Simple sums in prompts: "two plus three apples" are five, and the answer to 2+2 is a text.

Knows nothing of scenes.
"""

from lens.reasoner.nano_rules.elements import Element
from lens.reasoner.nano_rules.english_elements import kind_at, skip

_PRODUCT = ("times", "x", "*", "\u00d7", "multiplied by")


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
