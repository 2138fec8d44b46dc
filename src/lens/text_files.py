"""Text, JSON and YAML files that others wrote, in UTF-8 or UTF-16, and errors that say why one is not read.

Every reader of such a file goes through here, as each library has exceptions of its own for damaged files.
Knows nothing of what the files mean.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lens.errors import SettingError, first_line

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""The marks that name an encoding; the longer one first where one begins with another."""
UNREADABLE_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What PyYAML raises: its own errors, those of the types that it makes of values, and for deep nesting."""


class TextError(ValueError):
    """A text that cannot be read; the message is a clause that continues the name of the text."""


def decode_text(content: bytes) -> str:
    r"""Return a text in UTF-8, or in the encoding of its byte order mark, with lines that end in `\n`.

    Raises: TextError.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise TextError(f"is not valid {name} (byte {error.start})") from error
    return check_text(text.replace("\r\n", "\n").replace("\r", "\n"))


def check_text(text: str) -> str:
    """Return a text that can be stored. Raises: TextError for half a surrogate pair, or a zero character."""
    if "\0" in text:
        raise TextError("holds zero bytes, so it is not text in UTF-8")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(f"holds half a surrogate pair (character {error.start})") from error
    return text


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises: TextError."""
    try:
        return json.loads(decode_text(text) if isinstance(text, bytes) else text)
    except TextError:
        raise
    except (ValueError, RecursionError) as error:
        raise TextError(f"is not valid JSON ({first_line(error)})") from error


class _TreeLoader(yaml.SafeLoader):
    """A loader that refuses values which hold themselves."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises: TextError."""
    try:
        # Not the loader in C, which deep nesting crashes.
        return yaml.load(text, _TreeLoader)
    except UNREADABLE_YAML as error:
        raise TextError(f"is not valid YAML ({_yaml_reason(error)})") from error


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {first_line(Exception(error.problem))}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)


def read_text(path: Path, setting: str, needs: str) -> str:
    """Return the text of a file that a setting names.

    Raises: SettingError for a file that cannot be read or is not text; `needs` says what the setting needs.
    """
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise SettingError(setting, str(path), needs, f"{error.strerror or error}.") from error
    except TextError as error:
        raise SettingError(setting, str(path), needs, f"The file {error}. Save it as UTF-8.") from error


def read_yaml(path: Path, setting: str, needs: str = "a file in valid YAML") -> Any:
    """Return the value of a YAML file that a setting names. Raises: SettingError."""
    text = read_text(path, setting, needs)
    try:
        return parse_yaml(text)
    except TextError as error:
        raise SettingError(setting, str(path), needs, f"The file {error}.") from error


def read_json(path: Path, setting: str, needs: str = "a file in valid JSON") -> Any:
    """Return the value of a JSON file that a setting names. Raises: SettingError."""
    text = read_text(path, setting, needs)
    try:
        return parse_json(text)
    except TextError as error:
        raise SettingError(setting, str(path), needs, f"The file {error}.") from error


def read_json_lines(path: Path, setting: str, needs: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON object of each line of a file, with the name of the line; empty lines are skipped.

    Raises: SettingError for a file that cannot be read, and for a line that is no JSON object.
    """
    for number, line in enumerate(read_text(path, setting, needs).split("\n"), 1):
        if not line.strip():
            continue
        place, reason = f"{path}, line {number}", "It is another value."
        try:
            value = parse_json(line)
        except TextError as error:
            value, reason = None, f"It {error}."
        if not isinstance(value, dict):
            raise SettingError(setting, place, "a JSON object", reason)
        yield place, value
