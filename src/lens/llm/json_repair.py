"""Parser of the one JSON object in an answer of a language model, with repair of unambiguous errors.

Knows nothing of what the object means.
"""

import ast
import json
import re
from typing import Any, NoReturn

_STRING = r'"(?:[^"\\]|\\.)*"'
_PIECE = re.compile(rf'{_STRING}|[^"]+|"', re.DOTALL)
_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"^\s*```[\w-]*\s*$", re.MULTILINE)
_PYTHON_LITERALS = {"True": "true", "False": "false", "None": "null"}
_CURLY_QUOTES = str.maketrans({"\u201c": '"', "\u201d": '"', "\u201e": '"'})

Pairs = list[tuple[str, Any]]
"""An object in its own order; a name may occur twice."""


class JsonRepairError(ValueError):
    """An answer without exactly one JSON object; the message tells the model why."""


def parse_json_object(text: str) -> Pairs:
    """Return the names and values of the only JSON object in a text.

    Ignored: words around it, code fences, reasoning. Repaired: commas before a closing bracket, missing
    commas between lines, curly or single quotes, comments, line breaks in strings, missing closing brackets
    at the end. Nested objects are `Pairs` too.

    Raises: JsonRepairError for none, more than one, a list of objects, and other errors.
    """
    text = _FENCE.sub("", _THINKING.sub("", text)).strip().lstrip("\ufeff")
    if not text:
        raise JsonRepairError("the answer is empty")
    if text.startswith("["):
        raise JsonRepairError("the answer is a JSON array, not an object")
    objects: list[Pairs] = []
    place = text.find("{")
    while place >= 0:
        if not re.match(r"""\{\s*["'\u201c}]""", text[place:]):  # braces in a sentence
            place = text.find("{", place + 1)
            continue
        pairs, length = _parse_object(text[place:])
        objects.append(pairs)
        place = text.find("{", place + length)
    if len(objects) != 1:
        number = f"{len(objects)} JSON objects" if objects else "no JSON object"
        raise JsonRepairError(f"the answer has {number}, not exactly one")
    if any("\ud800" <= character <= "\udfff" for character in json.dumps(objects, ensure_ascii=False)):
        raise JsonRepairError("the JSON has half of a character that needs two escapes")
    return objects[0]


def _parse_object(text: str) -> tuple[Pairs, int]:
    """Return the object at the start of a text, and its number of characters."""
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        fault = error
    for candidate in (text, text.translate(_CURLY_QUOTES)):
        try:
            return _decode(_repair(candidate))[0], _object_end(text)
        except json.JSONDecodeError:
            continue
    end = text.rfind("}") + 1
    try:
        literal = ast.literal_eval(text[:end])
        if isinstance(literal, dict):
            return [(str(name), value) for name, value in literal.items()], end
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    _raise_repair_error(fault)


def _decode(text: str) -> tuple[Pairs, int]:
    try:
        return json.JSONDecoder(object_pairs_hook=list, strict=False).raw_decode(text)
    except RecursionError as error:
        raise JsonRepairError("the JSON is nested too deeply") from error


def _object_end(text: str) -> int:
    """Return the end of the first object of a text by its brackets; the end of the text where it has none."""
    depth = 0
    for piece in _PIECE.finditer(text):
        if piece.group().startswith('"'):
            continue
        for offset, character in enumerate(piece.group()):
            depth += (character in "{[") - (character in "}]")
            if depth == 0:
                return piece.start() + offset + 1
    return len(text)


def _repair(text: str) -> str:
    """Return a text with the errors between strings repaired."""
    pieces = [match.group() for match in _PIECE.finditer(text)]
    open_brackets: list[str] = []
    for place, piece in enumerate(pieces):
        if piece.startswith('"'):
            continue
        piece = re.sub(r"(^|\s)//[^\n]*", r"\1", piece)
        piece = re.sub(r"\b(True|False|None)\b", lambda match: _PYTHON_LITERALS[match.group()], piece)
        piece = re.sub(r",(\s*[}\]])", r"\1", piece)
        is_between = 0 < place < len(pieces) - 1 and pieces[place + 1] != '"'
        if is_between and piece.isspace() and "\n" in piece:
            piece = "," + piece
        pieces[place] = piece
        for character in piece:
            if character in "{[":
                open_brackets.append("}" if character == "{" else "]")
            elif character in "}]" and open_brackets:
                open_brackets.pop()
    repaired = "".join(pieces)
    if open_brackets and (not pieces or pieces[-1] != '"'):
        repaired = repaired.rstrip().rstrip(",") + "".join(reversed(open_brackets))
    return repaired


def _raise_repair_error(fault: json.JSONDecodeError) -> NoReturn:
    raise JsonRepairError(f"the JSON is broken: {fault.msg} at character {fault.pos}") from fault
