"""Relations of groups in English: one or two of them as phrases, clauses, orders or tags.

Knows nothing of backgrounds and openers.
"""

from lens.nano.world.languages.english import frames
from lens.nano.world.languages.english.phrases import Phrases
from lens.nano.world.scene_spec import OPPOSITE

Relation = tuple[int, str, int]

_ONE = {
    "phrase": frames.RELATION_PHRASES,
    "clause": frames.RELATION_CLAUSES,
    "order": frames.RELATION_ORDERS,
    "tags": frames.RELATION_TAGS,
}
_ONE["terse"] = frames.TERSE_RELATIONS
_TWO = {
    "phrase": frames.TWO_RELATIONS,
    "clause": frames.TWO_RELATION_CLAUSES,
    "order": frames.TWO_RELATION_ORDERS,
    "tags": frames.TWO_RELATION_TAGS,
}


def relation_text(phrases: Phrases, relation: Relation, kind: str) -> tuple[str, int]:
    """Return one relation, and the group that is mentioned first."""
    a, name, b = relation
    if phrases.chance(0.5):
        a, name, b = b, OPPOSITE[name], a
    frame = phrases.usual(_ONE[kind])
    text = frame.format(**_slots(phrases, a, name, b, kind))
    return text, b if text.find(chr(0xE000 + b)) < text.find(chr(0xE000 + a)) else a


def two_relations_text(phrases: Phrases, kind: str) -> tuple[str, int]:
    """Return two relations, and the group that is mentioned first."""
    first, second = phrases.spec.relations
    shared = {first[0], first[2]} & {second[0], second[2]}
    s = min(shared)
    (p, to_s_p), (q, to_s_q) = (_seen_from(relation, s) for relation in (first, second))
    if phrases.chance(0.5):
        p, to_s_p, q, to_s_q = q, to_s_q, p, to_s_p
    slots: dict[str, str] = {"placed": phrases.pick(frames.PLACED)}
    for letter, index in (("p", p), ("q", q), ("s", s)):
        slots |= _group_slots(phrases, letter, index, kind)
    for letter, relation in (("p", to_s_p), ("q", to_s_q)):
        slots[f"P{letter}"] = phrases.usual(frames.PREPOSITIONS[relation])
        slots[f"O{letter}"] = phrases.usual(frames.PREPOSITIONS[OPPOSITE[relation]])
        slots[f"A{letter}"] = _aside(phrases, relation, s)
    text = phrases.usual(_TWO[kind]).format(**slots)
    return text, min((p, q, s), key=lambda index: text.find(chr(0xE000 + index)))


def _seen_from(relation: Relation, s: int) -> tuple[int, str]:
    """Return the other group of a relation, and its relation to s."""
    a, name, b = relation
    return (a, name) if b == s else (b, OPPOSITE[name])


def _slots(phrases: Phrases, a: int, relation: str, b: int, kind: str) -> dict[str, str]:
    if relation in frames.SIDES:
        side_a, side_b = frames.SIDES[relation][phrases.random.randrange(len(frames.SIDES[relation]))]
    else:
        table = frames.SIDES[OPPOSITE[relation]]
        side_b, side_a = table[phrases.random.randrange(len(table))]
    return {
        **_group_slots(phrases, "a", a, kind), **_group_slots(phrases, "b", b, kind),
        "P": phrases.usual(frames.PREPOSITIONS[relation]), "A": _aside(phrases, relation, b),
        "Sa": side_a, "Sb": side_b, "placed": phrases.pick(frames.PLACED),
    }  # fmt: skip


def _group_slots(phrases: Phrases, letter: str, index: int, kind: str) -> dict[str, str]:
    is_plural = phrases.is_plural(index)
    lead = None
    if kind == "terse":
        text = phrases.terse(index)
        return {letter: text, f"the_{letter}": text}
    if kind == "tags":
        lead = ""
    elif kind in ("order", "clause") and phrases.chance(0.5 if kind == "order" else 0.2):
        lead = "the"
    stand = frames.STAND_VERBS[phrases.random.randrange(len(frames.STAND_VERBS))]
    return {
        letter: phrases.group(index, lead=lead),
        f"the_{letter}": phrases.again(index),
        f"it_{letter}": "them" if is_plural else "it",
        f"is_{letter}": "are" if is_plural else "is",
        f"has_{letter}": "have" if is_plural else "has",
        f"stand_{letter}": stand[is_plural],
    }


def _aside(phrases: Phrases, relation: str, seen_from: int) -> str:
    pronouns = {"its": "their", "it": "them"} if phrases.is_plural(seen_from) else {"its": "its", "it": "it"}
    return phrases.usual(frames.ASIDES[relation]).format(**pronouns)
