"""The background of a prompt: a colour beside a word for it, after "on", or alone.

Knows nothing of things.
"""

from lens.reasoner.nano_rules.elements import Element
from lens.reasoner.nano_rules.english_elements import kind_at, skip, without
from lens.reasoner.nano_rules.scene import ReadScene

_SOFT = ("filler", "article", "definite")
_LINKS = (
    "filler", "article", "definite", "verb", "comma", "that", "in", "with", "purpose", "restart", "particle",
)  # fmt: skip
_NOUN_PARTS = ("thing", "size", "unknown", "other", "colour", "number", "sign")
_LEADS = ("filler", "article", "definite", "on", "with", "in", "shade", "verb", "restart", "number")
_OVER = ("over", "above", "in front of", "set over", "sobre", "sopra", "\u00fcber")


def read_background(elements: list[Element], scene: ReadScene) -> list[Element]:
    """Read the background, and return the elements that are left."""
    for find in (_beside_noun, _after_noun, _before_noun, _after_on, _behind, _alone):
        place = 0
        while place < len(elements):
            span = find(elements, place)
            if span is None:
                place += 1
                continue
            first, colour, last = span
            _set(scene, str(_colour(elements, colour)))
            while kind_at(elements, first - 1) in _LEADS or _is_over(elements, first - 1):
                first -= 1
            elements = without(elements, first, last)
            place = first + 1
    return elements


def _set(scene: ReadScene, colour: str) -> None:
    if scene.background not in (None, colour):
        scene.doubts.append(f"it asks for a background in {scene.background} and in {colour}")
    scene.background = colour


def _colour(elements: list[Element], place: int) -> str | None:
    """Return the colour in a place; the word for an orange may be one."""
    if not 0 <= place < len(elements):
        return None
    element = elements[place]
    if element.kind == "colour":
        return element.value
    return element.value[2] if element.kind == "thing" and len(element.value) > 2 else None


def _is_over(elements: list[Element], place: int) -> bool:
    return kind_at(elements, place) == "relation" and elements[place].text.lower() in _OVER


def _is_noun(elements: list[Element], place: int) -> bool:
    """Return whether a colour before a place belongs to a thing there."""
    return kind_at(elements, skip(elements, place, ("filler",))) in _NOUN_PARTS


Span = tuple[int, int, int]
"""First element, colour, and last element."""


def _beside_noun(elements: list[Element], place: int) -> Span | None:
    """A blue background."""
    if _colour(elements, place) is None:
        return None
    after = skip(elements, place + 1, ("filler",))
    kind = kind_at(elements, after)
    has_things = any(e.kind in ("thing", "quote") for at, e in enumerate(elements) if at != place)
    is_picture = kind == "medium" and elements[after].text.lower() in ("picture", "image", "canvas")
    if kind != "background" and not (is_picture and (has_things or _is_end(elements, after + 1))):
        is_area = kind == "backdrop" and not has_things
        return (place, place, after) if is_area else None
    end = skip(elements, after + 1, ("background",))
    return place, place, end - 1


def _is_end(elements: list[Element], place: int) -> bool:
    return skip(elements, place, ("filler", "comma", "stop")) >= len(elements)


def _after_noun(elements: list[Element], place: int) -> Span | None:
    """The background is blue."""
    if kind_at(elements, place) not in ("background", "backdrop"):
        return None
    after = skip(elements, place + 1, (*_LINKS, "shade", "background"))
    if kind_at(elements, after) == "unknown":  # "the background plok blue"
        after += 1
    if _colour(elements, after) is None or _is_noun(elements, after + 1):
        return None
    return place, after, after


def _before_noun(elements: list[Element], place: int) -> Span | None:
    """With blue as the background colour; in colours: the background in blue."""
    if kind_at(elements, place) != "background":
        return None
    between = ("filler", "article", "definite", "purpose", "in", "verb", "unknown", "shade")
    before = skip(elements, place - 1, between, -1)
    return None if _colour(elements, before) is None else (before, before, place)


def _after_on(elements: list[Element], place: int) -> Span | None:
    """On blue."""
    if kind_at(elements, place) != "on" and not _is_over(elements, place):
        return None
    after = skip(elements, place + 1, (*_SOFT, "shade"))
    if _colour(elements, after) is None or _is_noun(elements, after + 1):
        return None
    is_fruit = elements[after].kind == "thing"  # "on an orange"
    if is_fruit and any(elements[at].kind == "article" for at in range(place, after)):
        return None
    return place, after, after


def _behind(elements: list[Element], place: int) -> Span | None:
    """Blue behind it; everything else is blue."""
    if kind_at(elements, place) != "behind":
        return None
    after = skip(elements, place + 1, (*_LINKS, "behind", "pronoun", "shade"))
    if _colour(elements, after) is not None and not _is_noun(elements, after + 1):
        return place, after, after
    before = skip(elements, place - 1, ("filler", "verb", "with"), -1)
    end = skip(elements, place + 1, ("behind", "pronoun"))
    if _colour(elements, before) is None or kind_at(elements, end) in _NOUN_PARTS:
        return None
    return before, before, end - 1


def _alone(elements: list[Element], place: int) -> Span | None:
    """A tag that is a colour, or a prompt without things."""
    if kind_at(elements, place) != "colour":
        return None
    rest = [element for at, element in enumerate(elements) if at != place]
    if not any(e.kind in ("thing", "colour", "background", "other", "unknown", "number") for e in rest):
        return place, place, place
    around = "filler", "restart", "shade"
    before, after = skip(elements, place - 1, around, -1), skip(elements, place + 1, around)
    is_tag = all(kind_at(elements, at) in ("comma", "stop") for at in (before, after))
    is_bracket = before >= 0 and elements[before].text == "("
    return (place, place, place) if is_tag and not is_bracket else None
