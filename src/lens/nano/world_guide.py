"""What the nano world has, as lists for people and programs: things, colours, languages, examples.

Loads no torch.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.languages.registry import LANGUAGES
from lens.nano.world.objects import KINDS, OBJECT_CLASSES
from lens.nano.world.scene_spec import MAX_COUNT, MAX_GROUPS, MAX_TEXT_LENGTH, RELATIONS

SIZES = ("small", "large")
LANGUAGE_NAMES = {
    "en": "English", "de": "German", "fr": "French", "it": "Italian", "es": "Spanish", "pt": "Portuguese",
    "ru": "Russian", "ar": "Arabic", "hi": "Hindi", "ja": "Japanese", "ko": "Korean", "zh": "Chinese",
}  # fmt: skip


def world_guide() -> dict[str, Any]:
    """Return names and colours as `lens eval nano --prompts` has them, limits, languages and examples."""
    things = [
        {
            "name": thing.name,
            "plural": thing.plural,
            "synonyms": [singular for singular, _ in thing.synonyms],
            "colours": thing.name in _colourable(),
        }
        for thing in OBJECT_CLASSES.values()
    ]
    return {
        "objects": things,
        "kinds": {kind: list(names) for kind, names in KINDS.items()},
        "backgrounds": list(COLOURS),
        "object_colors": list(OBJECT_COLOURS),
        "relations": list(RELATIONS),
        "sizes": list(SIZES),
        "max_count": MAX_COUNT,
        "max_kinds": MAX_GROUPS,
        "max_text_length": MAX_TEXT_LENGTH,
        "languages": ["en", *LANGUAGES],
        "examples": list(examples()),
    }


def guide_lines() -> list[tuple[str, str]]:
    """Return the same for people: pairs of a title and a text."""
    languages = ", ".join(LANGUAGE_NAMES[code] for code in ("en", *LANGUAGES))
    return [
        *((kind, ", ".join(names)) for kind, names in KINDS.items()),
        ("background colours", ", ".join(COLOURS)),
        ("colours of things", f"{', '.join(OBJECT_COLOURS)}; of {', '.join(_colourable())}"),
        ("numbers", f"1 to {MAX_COUNT} of a thing, up to {MAX_GROUPS} different things"),
        ("relations", ", ".join(RELATIONS)),
        ("sizes", ", ".join(SIZES)),
        ("signs", f"a sign with up to {MAX_TEXT_LENGTH} letters or digits, in quotes"),
        ("languages", languages),
    ]


@cache
def examples() -> tuple[str, ...]:
    """Return prompts to start with, one of each kind."""
    text = files("lens.nano.world").joinpath("examples.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


@cache
def _colourable() -> tuple[str, ...]:
    from lens.nano.world.recolouring import COLOURABLE

    return tuple(name for name in OBJECT_CLASSES if name in COLOURABLE)
