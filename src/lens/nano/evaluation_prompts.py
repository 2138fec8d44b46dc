"""Prompts with what their images must show, in files of one JSON object a line.

`{"prompt": str, "background": str | null, "objects": [{"name", "count", "color", "size"}],
"relations": [[i, "left of" | "right of" | "above" | "below", j]], "text": str | null}`. Null stands for any
value, and `"text": null` for no sign. Names and colours are those of `lens info lens-nano --json`. The labels
`language`, `kind` and `id` are kept; other fields are refused.
"""

from collections.abc import Iterable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, get_args

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
    Size,
)
from lens.text_files import TextError, parse_json, read_text

OBJECT_FIELDS = ("name", "count", "color", "size")
SPEC_FIELDS = ("background", "objects", "relations", "text")
LABEL_FIELDS = ("language", "kind", "id")
"""Fields that images are counted by, and that say nothing of the image."""


class EvalPrompt(NamedTuple):
    """A prompt, and what its image must show."""

    prompt: str
    spec: SceneSpec
    fields: dict[str, Any]
    """The whole line."""


def read_prompts(path: Path, setting: str = "--prompts") -> list[EvalPrompt]:
    """Return the prompts of a file; empty lines are skipped. `setting` is the name of the path in errors.

    Raises: SettingError that names the line, the field, its value and what it needs.
    """
    lines = read_text(path, setting, "a readable UTF-8 file of JSON lines").split("\n")
    prompts = [
        _read_line(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not prompts:
        raise SettingError(setting, str(path), "at least one line with a prompt")
    return prompts


def is_stated(required: SceneSpec, stated: SceneSpec) -> bool:
    """Return whether a spec states all that another requires, with the same groups in any order.

    It may state more: a background, colours, sizes, numbers and relations that are not required.
    """
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
    """Return the prompt of a line; `where` names the line in errors."""
    try:
        fields = parse_json(line)
    except TextError as error:
        raise SettingError(f"line ({where})", line[:60], "a JSON object", f"It {error}.") from error
    read = _FieldReader(where)
    read.check(isinstance(fields, dict), "line", line[:60], "a JSON object")
    known = ("prompt", *SPEC_FIELDS, *LABEL_FIELDS)
    unknown = ", ".join(sorted(set(fields) - set(known)))
    read.check(not unknown, "fields", unknown, f"names among {', '.join(known)}")
    prompt = fields.get("prompt")
    read.check(isinstance(prompt, str) and bool(prompt.strip()), "prompt", prompt, "a text")
    groups = tuple(read.group(entry) for entry in read.entries(fields, "objects"))
    relations = tuple(read.relation(entry, len(groups)) for entry in read.entries(fields, "relations"))
    background = read.choice("background", fields.get("background"), COLOURS)
    spec = SceneSpec(groups, background, relations, read.sign_text(fields.get("text")))
    return EvalPrompt(prompt, spec, fields)


class _FieldReader(NamedTuple):
    """Reads the fields of one line. Every method raises a SettingError for a value that cannot be."""

    where: str
    """Name of the line in errors."""

    def check(self, is_valid: bool, field: str, value: object, needs: str) -> None:
        if not is_valid:
            raise SettingError(f"{field} ({self.where})", value, needs)

    def choice(self, field: str, value: Any, choices: Iterable[str]) -> Any:
        names = tuple(choices)  # a value that cannot be hashed is none of them either
        self.check(value is None or value in names, field, value, f"null or one of {', '.join(names)}")
        return value

    def entries(self, fields: Mapping[str, Any], field: str) -> list[Any]:
        entries = fields.get(field, [])
        self.check(isinstance(entries, list), field, entries, "a list")
        return entries

    def group(self, entry: Any) -> ObjectGroup:
        is_object = isinstance(entry, dict) and set(entry) <= set(OBJECT_FIELDS)
        self.check(is_object, "objects", entry, f"objects of {', '.join(OBJECT_FIELDS)}")
        name, count, colour, size = (entry.get(field) for field in OBJECT_FIELDS)
        self.check(name in tuple(OBJECT_CLASSES), "name", name, "a name that `lens info lens-nano` lists")
        is_count = count is None or (type(count) is int and 1 <= count <= MAX_COUNT)  # true is no number
        self.check(is_count, "count", count, f"null or a number from 1 to {MAX_COUNT}")
        self.choice("color", colour, OBJECT_COLOURS)
        return ObjectGroup(str(name), count, colour, self.choice("size", size, get_args(Size)))

    def relation(self, entry: Any, num_groups: int) -> tuple[int, str, int]:
        needs = f"[i, one of {', '.join(RELATIONS)}, j] with the numbers of two objects"
        is_relation = isinstance(entry, list) and len(entry) == 3 and entry[1] in RELATIONS
        self.check(is_relation, "relations", entry, needs)
        first, relation, second = entry
        are_objects = all(type(end) is int and 0 <= end < num_groups for end in (first, second))
        self.check(are_objects and first != second, "relations", entry, needs)
        return first, relation, second

    def sign_text(self, text: Any) -> str | None:
        is_sign = isinstance(text, str) and len(text) in range(1, MAX_TEXT_LENGTH + 1)
        is_sign = is_sign and set(text) <= set(SIGN_CHARACTERS)
        needs = f"null or 1 to {MAX_TEXT_LENGTH} capitals and digits"
        self.check(text is None or is_sign, "text", text, needs)
        return text
