"""The text format of AUTOMATIC1111's web UI (infotext), which many tools write and most readers parse.

The prompt, then `Negative prompt: ...` if there is one, then a line of fields: `Steps: 20, Seed: 7, ...`.
A value with a comma, a colon or a line break is a JSON string; `Hashes` is a JSON object.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lens.sampling.metadata_formats.foreign_settings import ForeignSettings

NEGATIVE_PREFIX = "Negative prompt:"
FIELDS_START = re.compile(r"\s*Steps:\s*\d")
FIELD_NAME = re.compile(r"\s*(\w[\w \-/().]*):\s*")
MIN_KNOWN = 2
"""A line with fewer of the known fields is part of the prompt, or no settings at all."""
KNOWN = ("Steps", "Seed", "CFG scale", "Sampler", "Size")
TAKEN_OVER = ("Steps", "Seed", "CFG scale", "Size")
NO_SETTINGS = ("Version", "Model hash", "VAE hash", "Lora hashes", "Hashes")
"""Fields that only say more of another field, or of the tool."""
NOT_IN_NAMES = re.compile(r"\s*[<>:,\"\r\n]+\s*")
DEFAULT_TOOL = "AUTOMATIC1111"


def quote(value: Any) -> str:
    """Return the text of a field's value: as it is, or as a JSON string where readers need one."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


def format_infotext(
    prompt: str,
    negative_prompt: str,
    fields: Mapping[str, Any],
    loras: Sequence[tuple[str, float, str]] = (),
    hashes: Mapping[str, str] | None = None,
) -> str:
    """Return the text of an image's settings; each LoRA is a name, a weight and a hash."""
    names = [NOT_IN_NAMES.sub("_", name) for name, _, _ in loras]
    tags = [f"<lora:{name}:{weight:g}>" for name, (_, weight, _) in zip(names, loras, strict=True)]
    lines = [" ".join(filter(None, [prompt, *tags]))]
    if negative_prompt:
        lines.append(f"{NEGATIVE_PREFIX} {negative_prompt}")
    entries = [f"{name}: {quote(value)}" for name, value in fields.items()]
    if loras:
        listed = ", ".join(f"{name}: {digest}" for name, (*_, digest) in zip(names, loras, strict=True))
        entries.append(f'Lora hashes: "{listed}"')
    if hashes:
        entries.append(f"Hashes: {json.dumps(dict(hashes))}")
    text = "\n".join([*lines, ", ".join(entries)])
    # A prompt from Python may hold half a character pair or NUL, which no text in a file can.
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def parse_infotext(text: str) -> ForeignSettings | None:
    """Return the settings of a text, or None if it has not this format."""
    lines = [line.strip() for line in text.strip().split("\n")]
    start = _fields_line(lines)
    if start is None:
        return None
    fields = parse_fields(lines[start])
    prompt, negative, is_negative = [], [], False
    for line in lines[:start]:
        if line.startswith(NEGATIVE_PREFIX):
            is_negative, line = True, line.removeprefix(NEGATIVE_PREFIX).strip()
        (negative if is_negative else prompt).append(line)
    size = re.fullmatch(r"(\d+)\s*x\s*(\d+)", str(fields.get("Size", "")))
    others = [(name, value) for name, value in fields.items() if name not in (*TAKEN_OVER, *NO_SETTINGS)]
    others += [("Size", fields["Size"])] if "Size" in fields and not size else []
    values = {
        "prompt": "\n".join(prompt),
        "negative_prompt": "\n".join(negative),
        "seed": fields.get("Seed"),
        "steps": fields.get("Steps"),
        "guidance": fields.get("CFG scale"),
        "width": size[1] if size else None,
        "height": size[2] if size else None,
    }
    own_name = re.match(r"[^\W\d]{3,}", str(fields.get("Version", "")))  # v1.10.1 and f2.0.1 name no tool
    tool = own_name[0] if own_name else DEFAULT_TOOL
    return ForeignSettings.of(tool[0].upper() + tool[1:], values, others)


def parse_fields(line: str) -> dict[str, Any]:
    """Return the fields of a line; a value is a text, or what the JSON in it says."""
    fields: dict[str, Any] = {}
    position = 0
    while position < len(line):
        name = FIELD_NAME.match(line, position)
        if name is None:  # part of a value with a comma that its writer did not quote
            position = _after_comma(line, position)
            continue
        position = name.end()
        value: Any = None
        if line[position : position + 1] in ('"', "{", "["):
            try:
                value, position = json.JSONDecoder(strict=False).raw_decode(line, position)
            except (ValueError, RecursionError):
                value = None
        end = _after_comma(line, position)
        fields[name[1].strip()] = line[position:end].strip(" ,") if value is None else value
        position = end
    return fields


def _after_comma(line: str, position: int) -> int:
    comma = line.find(",", position)
    return len(line) if comma < 0 else comma + 1


def _fields_line(lines: Sequence[str]) -> int | None:
    """Return the number of the line of fields. Extensions write lines of their own below it."""
    starts = (number for number in range(len(lines) - 1, -1, -1) if FIELDS_START.match(lines[number]))
    for number in (*starts, len(lines) - 1):
        if len(parse_fields(lines[number]).keys() & set(KNOWN)) >= MIN_KNOWN:
            return number
    return None
