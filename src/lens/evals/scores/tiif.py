"""TIIF-Bench: the share of yes/no questions that a judge answered right, averaged in groups of types."""

from lens.evals.scores.observations import BenchmarkScore, Observation, group_by, mean

_REASONING = ("numeracy", "comparison", "differentiation", "negation")
GROUPS = {
    "Attribute": ("shape+color", "color+texture", "texture+color", "shape+texture"),
    "Relation": ("2d_spatial_relation", "3d_spatial_relation", "action+2d", "action+3d"),
    "Reasoning": ("numeracy", "negation", "differentiation", "comparison"),
    "Attribute+Relation": (
        "action+color", "action+texture", "color+2d", "color+3d", "shape+2d", "shape+3d", "texture+2d",
        "texture+3d",
    ),
    "Attribute+Reasoning": tuple(f"{kind}+{other}" for kind in _REASONING for other in ("color", "texture")),
    "Relation+Reasoning": tuple(f"{kind}+{other}" for kind in _REASONING for other in ("2d", "3d")),
    "Text Generation": ("text",),
    "Style Control": ("style",),
    "Complex": ("real_world",),
}  # fmt: skip
LEVELS = {
    "Basic Following": ("Attribute", "Relation", "Reasoning"),
    "Advanced Following": (
        "Attribute+Relation", "Attribute+Reasoning", "Relation+Reasoning", "Text Generation", "Style Control",
    ),
    "Real World Following": ("Complex",),
}  # fmt: skip
"""Levels are means over the types of their groups, not over the groups."""
LENGTHS = ("short", "long")


class TiifLine(Observation):
    """A judge's answers about one image."""

    type: str
    length: str
    index: int
    answers: list[str]
    """The right answers."""
    predictions: list[str]
    """The judge's, in the same order; there may be fewer or more."""


def score_tiif(lines: list[TiifLine]) -> BenchmarkScore:
    """Return the overall score of short and of long prompts: the mean of the nine groups."""
    cases = [_count(line) for line in lines]
    counts = group_by(zip(lines, cases, strict=True), lambda pair: pair[0].length)
    parts: dict[str, float | None] = {}
    for length in sorted(counts, key=lambda name: (name not in LENGTHS, name != "short", name)):
        types = {}
        for name, pairs in group_by(counts[length], lambda pair: pair[0].type).items():
            num_questions = sum(case["questions"] for _, case in pairs)
            if num_questions:
                # The official script writes types with four decimals and averages what it wrote.
                types[name] = float(format(sum(case["right"] for _, case in pairs) / num_questions, ".4f"))
        parts |= _score_length(length, types)
    return BenchmarkScore(parts["short"] if "short" in parts else parts.get("long"), parts, cases)


def _score_length(length: str, types: dict[str, float]) -> dict[str, float | None]:
    """Return the parts of one length; what has no type is absent."""
    groups = {name: mean(types[one] for one in members if one in types) for name, members in GROUPS.items()}
    found: dict[str, float | None] = {length: mean(value for value in groups.values() if value is not None)}
    for level, names in LEVELS.items():
        found[f"{length}/{level}"] = mean(
            types[one] for name in names for one in GROUPS[name] if one in types
        )
        found |= {f"{length}/{name}": groups[name] for name in names}
    found |= {f"{length}/type/{name}": value for name, value in types.items()}
    return {name: value for name, value in found.items() if value is not None}


def _count(line: TiifLine) -> dict[str, int]:
    pairs = list(zip(line.answers, line.predictions, strict=False))
    right = sum(answer.strip().lower() == told.strip().lower() for answer, told in pairs)
    return {"questions": len(pairs), "right": right}
