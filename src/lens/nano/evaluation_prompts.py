"""Prompts with what their images must show, in files of one JSON object a line.

`{"prompt": str, "background": str | null, "objects": [{"name", "count", "color", "size"}],
"relations": [[i, "left of" | "right of" | "above" | "below", j]], "text": str | null}`; null stands for any value.
Names and colours are those of `lens info lens-nano --json`. Further fields, such as a language, are kept.
"""

import json
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from lens.errors import SettingError
from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import (
    MAX_COUNT,
    MAX_TEXT_LENGTH,
    OPPOSITE,
    RELATIONS,
    SIGN_CHARACTERS,
    ObjectGroup,
    SceneSpec,
)

OBJECT_FIELDS = ("name", "count", "color", "size")


class EvalPrompt(NamedTuple):
    """A prompt, and what its image must show."""

    prompt: str
    spec: SceneSpec
    fields: dict[str, Any]
    """The whole line."""


def read_prompts(path: Path) -> list[EvalPrompt]:
    """Return the prompts of a file; empty lines are skipped.

    Raises: SettingError that names the line, the field, its value and what it needs.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("--prompts", str(path), "a readable UTF-8 file of JSON lines") from error
    prompts = [_read_line(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise SettingError("--prompts", str(path), "at least one line with a prompt")
    return prompts


def is_stated(required: SceneSpec, stated: SceneSpec) -> bool:
    """Return whether a spec states all that another requires, with the same groups in any order."""
    if len(required.groups) != len(stated.groups) or required.text != stated.text:
        return False
    if required.background not in (None, stated.background):
        return False
    return any(
        _agrees(required, stated.reordered(order)) for order in permutations(range(len(stated.groups)))
    )


def _agrees(required: SceneSpec, stated: SceneSpec) -> bool:
    for want, has in zip(required.groups, stated.groups, strict=True):
        if want.class_name != has.class_name or want.count not in (None, has.count):
            return False
        if want.size not in (None, has.size) or want.colour not in (None, has.colour):
            return False
    known = {*stated.relations, *((b, OPPOSITE[relation], a) for a, relation, b in stated.relations)}
    return known.issuperset(required.relations)


def _read_line(where: str, line: str) -> EvalPrompt:
    def check(ok: bool, field: str, value: object, needs: str) -> None:
        if not ok:
            raise SettingError(f"{field} ({where})", value, needs)

    try:
        fields = json.loads(line)
    except ValueError as error:
        raise SettingError("--prompts", where, f"a JSON object on every line ({error})") from error
    check(isinstance(fields, dict), "line", line[:60], "a JSON object")
    prompt = fields.get("prompt")
    check(isinstance(prompt, str) and bool(prompt.strip()), "prompt", prompt, "a text")
    background = fields.get("background")
    check(background is None or background in COLOURS, "background", background, f"null or one of {', '.join(COLOURS)}")
    objects = fields.get("objects", [])
    check(isinstance(objects, list), "objects", objects, "a list")
    groups = []
    for entry in objects:
        check(isinstance(entry, dict) and set(entry) <= set(OBJECT_FIELDS), "objects", entry, f"objects of {', '.join(OBJECT_FIELDS)}")
        name, count, colour, size = (entry.get(field) for field in OBJECT_FIELDS)
        check(name in OBJECT_CLASSES, "name", name, "a name that `lens info lens-nano` lists")
        is_count = count is None or (type(count) is int and 1 <= count <= MAX_COUNT)
        check(is_count, "count", count, f"null or a number from 1 to {MAX_COUNT}")
        check(colour is None or colour in OBJECT_COLOURS, "color", colour, f"null or one of {', '.join(OBJECT_COLOURS)}")
        check(size in (None, "small", "large"), "size", size, 'null, "small" or "large"')
        groups.append(ObjectGroup(name, count, colour, size))
    relations = []
    for entry in fields.get("relations", []):
        is_relation = isinstance(entry, list) and len(entry) == 3 and entry[1] in RELATIONS
        is_relation = is_relation and all(type(end) is int and 0 <= end < len(groups) for end in entry[::2])
        check(is_relation and entry[0] != entry[2], "relations", entry, f"[i, one of {', '.join(RELATIONS)}, j] with two objects by number")
        relations.append(tuple(entry))
    text = fields.get("text")
    is_text = text is None or (isinstance(text, str) and 1 <= len(text) <= MAX_TEXT_LENGTH and set(text) <= set(SIGN_CHARACTERS))
    check(is_text, "text", text, f"null or 1 to {MAX_TEXT_LENGTH} capitals and digits")
    unknown = set(fields) - {"prompt", "background", "objects", "relations", "text", "language", "kind", "id"}
    check(not unknown, "fields", ", ".join(sorted(unknown)), "prompt, background, objects, relations, text")
    return EvalPrompt(prompt, SceneSpec(tuple(groups), background, tuple(relations), text), fields)
