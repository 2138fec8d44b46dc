"""Whether a prompt is in the grammar of the six tasks already, which every nano model was trained on.

Prompts that begin with their background count as other word orders.
Knows nothing of what a prompt says.
"""

import re
from collections.abc import Iterable
from functools import cache

from lens.nano.world.colours import COLOUR_SYNONYMS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.phrases import (
    CORNER_PHRASES,
    NUMERALS,
    POSITION_PHRASES,
    PREPOSITIONS,
    RELATIVE_POSITIONS,
    ROW_WORDS,
    SIDE_PHRASES,
    SIZE_ADJECTIVES,
    TEST_PHRASES,
    TRAIN_PHRASES,
)
from lens.nano.world.scene_spec import OPPOSITE

_GROUP, _COLOUR = "\ue000", "\ue001"


def is_plain(prompt: str, class_names: frozenset[str], colours: Iterable[str]) -> bool:
    """Return whether a prompt is in the grammar, as a phrase or with the capitals and stops of sentences."""
    text = re.sub(r"(^|[.] )([A-Z])", lambda start: start[1] + start[2].lower(), prompt).removesuffix(".")
    text = _groups(class_names).sub(_GROUP, text)
    text = _colours(tuple(colours)).sub(_COLOUR, text)
    return bool(_sentence().fullmatch(text))


@cache
def _groups(class_names: frozenset[str]) -> re.Pattern[str]:
    pairs = [
        pair
        for name in sorted(class_names)
        for pair in ((OBJECT_CLASSES[name][:2]), *OBJECT_CLASSES[name].synonyms)
    ]
    one, many = _any(pair[0] for pair in pairs), _any(pair[1] for pair in pairs)
    numbers = _any((*NUMERALS[2:], "2", "3", "4", "5", "a pair of", "a couple of"))
    sizes = _any(word for words in SIZE_ADJECTIVES.values() for word in words)
    single = rf"(?:an?|one|a single) (?:{sizes} )?{one}"
    return re.compile(rf"(?<!\w)(?:{single}|{numbers} (?:{sizes} )?{many})(?!\w)")


@cache
def _colours(colours: tuple[str, ...]) -> re.Pattern[str]:
    synonyms = (word for colour in colours for word in COLOUR_SYNONYMS.get(colour, ()))
    return re.compile(rf"(?<!\w){_any((*colours, *synonyms))}(?!\w)")


@cache
def _sentence() -> re.Pattern[str]:
    """Return the pattern of a whole prompt, in which a sign stands for a group and one for a colour."""
    sets = (TRAIN_PHRASES, TEST_PHRASES)
    starts = [text for one in sets for text in (*one.openers, *one.there)]
    openers = _any(text.replace("{is_a}", verb) for text in starts for verb in ("is", "are"))
    list_of_groups = rf"{_GROUP}(?:, {_GROUP})?(?:(?:,? and | with | next to | plus ){_GROUP})?"
    places = [text for texts in POSITION_PHRASES.values() for text in texts]
    places += [
        frame.format(row=row, column=column)
        for frame in CORNER_PHRASES
        for rows in ROW_WORDS.values()
        for row in rows
        for column in ("left", "right")
    ]
    related = [frame for one in sets for frame in one.relations]
    clauses = [
        start + frame for one in sets for start in one.clause_openers for frame in one.relation_clauses
    ]
    body = f"(?:{openers})?(?:{list_of_groups}|{_GROUP} {_any(places)}|{_filled(related)})|{_filled(clauses)}"
    backgrounds = _filled(text for one in sets for text in one.backgrounds)
    return re.compile(f"(?:{body})(?:{backgrounds})?")


def _filled(frames: Iterable[str]) -> str:
    """Return the pattern of frames in any relation; one prompt has one, so that sides go together."""
    texts: list[str] = []
    for frame in dict.fromkeys(frames):
        for relation, prepositions in PREPOSITIONS.items():
            slots = {
                "a": _GROUP, "b": _GROUP, "c": _COLOUR, "an": "an?",
                "is_a": "(?:is|are)", "is_b": "(?:is|are)",
                "prep": _any(prepositions), "opposite": _any(PREPOSITIONS[OPPOSITE[relation]]),
            }  # fmt: skip
            for spot_a, spot_b in SIDE_PHRASES[relation]:
                asides = [text.format(its="its", it="it") for text in RELATIVE_POSITIONS[relation]]
                spots = {"aside": _any(asides), "spot_a": spot_a, "spot_b": spot_b}
                texts.append(_escaped(frame).format(**slots, **spots))
    return f"(?:{'|'.join(dict.fromkeys(texts))})"


def _escaped(frame: str) -> str:
    return re.sub(r"([.?*+()|])", r"\\\1", frame)


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(sorted(map(re.escape, dict.fromkeys(words)), key=len, reverse=True))})"


