"""Typed settings, and recipes: YAML files with a base file below them and overrides on top.

A recipe may name a `base:` file and then holds only what differs from it. Unknown keys are refused. An error
says where its value comes from. Knows nothing of torch or of what the settings mean.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lens.errors import SettingError
from lens.text_files import TextError, parse_yaml, read_yaml

RENAMED_KEYS = {
    "encode_at_once": "text_encoder_batch_size",
    "gpus_a_worker": "gpus_per_worker",
    "least_diversity": "min_diversity_ratio",
    "least_reward": "min_reward_ratio",
    "most_failed": "max_failed_share",
    "pictures_per_prompt": "images_per_prompt",
    "samples_a_shard": "samples_per_shard",
    "times_per_picture": "times_per_image",
}
"""Keys of older recipes, each with the name that replaced it."""
NEEDS = {
    "missing": "a value", "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}", "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number with fewer digits",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "text", "string_sub_type": "text", "string_unicode": "text in Unicode",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters", "string_pattern_mismatch": "the form {pattern}",
    "bytes_type": "text", "path_type": "a path",
    "literal_error": "{expected}", "enum": "{expected}", "none_required": "null",
    "tuple_type": "a list", "list_type": "a list", "set_type": "a list", "frozen_set_type": "a list",
    "iterable_type": "a list", "dict_type": "a mapping", "mapping_type": "a mapping",
    "model_type": "a mapping of settings", "model_attributes_type": "a mapping of settings",
    "dataclass_type": "a mapping of settings", "invalid_key": "names in text",
    "too_short": "at least {min_length} entries", "too_long": "at most {max_length} entries",
    "date_type": "a date", "date_parsing": "a date", "date_from_datetime_parsing": "a date",
    "date_from_datetime_inexact": "a date", "datetime_type": "a time", "datetime_parsing": "a time",
    "url_type": "a URL", "url_parsing": "a URL", "url_scheme": "a URL that starts with {expected_schemes}",
    "recursion_loop": "values that do not hold themselves",
}  # fmt: skip
"""What a value needs, by pydantic's type of the error."""
OWN_WORDS = {"value_error": "Value error, ", "assertion_error": "Assertion failed, "}
"""What pydantic puts before the message of a check of ours, by its type of the error."""


class RecipeValues(dict[str, Any]):
    """The values of a recipe, and where each of them comes from."""

    origins: dict[str, str]
    """A file or an override, by the dotted name of the value."""

    def set(self, name: str, value: Any, origin: str) -> None:
        """Set a value by its dotted name; `origin` says where it comes from, such as an option."""
        _set_nested(self, name.split("."), value, origin)
        names = [name, *(_names(value, f"{name}.") if isinstance(value, dict) else ())]
        self.origins |= dict.fromkeys(names, origin)

    def origin_of(self, place: tuple[int | str, ...]) -> str:
        """Return where the value at a place comes from, or the nearest one around it; empty if nobody set it.

        Parts of the place that are no keys are passed over: indices, and kinds of a union.
        """
        names: list[str] = []
        inner: Any = self
        for part in place:
            if isinstance(inner, dict) and part in inner:
                names.append(str(part))
                inner = inner[part]
        while names and ".".join(names) not in self.origins:
            names.pop()
        return self.origins[".".join(names)] if names else ""


class Settings(BaseModel):
    """Base class of all settings: frozen, without unknown keys, with validated defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def of(cls, values: dict[str, Any], source: str = "settings") -> Self:
        """Return validated settings.

        Raises: SettingError that names the first value that does not fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _setting_error(cls, values, error.errors()[0], source) from error


def _setting_error(
    cls: type[BaseModel], values: Any, problem: Mapping[str, Any], source: str
) -> SettingError:
    """Return the error of a value that pydantic refuses, in words of ours."""
    place, got, needs = tuple(problem["loc"]), problem["input"], needs_of(problem)
    ours = problem.get("ctx", {}).get("error")
    if isinstance(ours, SettingError):  # from one of our validators
        return add_origin(ours, values, place)
    if problem["type"].startswith("union_tag"):
        tag = problem["ctx"]["discriminator"].strip("'")
        got = got.get(tag) if isinstance(got, Mapping) else None
        place, needs = (*place, tag), f"one of {', '.join(_kinds_at(cls, place, tag))}"
    elif place[-1:] == ("[key]",):
        place, needs = place[:-2], f"keys that are each {needs}"
    name = ".".join(map(str, _without_kinds(place, values))) or source
    if problem["type"] != "extra_forbidden":
        got = None if problem["type"] == "missing" else got
        return SettingError(name, got, needs, remedy(values, place, source))
    if new := RENAMED_KEYS.get(str(place[-1])):
        return SettingError(name, got, f"its new name, {new}", f"Rename the key in {source}.")
    above, known = name.rpartition(".")[0], sorted(_settings_at(cls, place[:-1]).model_fields)
    where = f"{above} of {source}" if above else source
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    # Of some forty names, the one that was meant is enough.
    fix = f"Known in {where}: {', '.join(known)}."
    fix = f"Did you mean {near[0]}? {remedy(values, place, source)}" if near else fix
    return add_origin(SettingError(name, got, "a known name", fix), values)


def _without_kinds(place: tuple[int | str, ...], values: Any) -> list[int | str]:
    """Return a place without the kinds that pydantic adds to that of settings of several kinds."""
    parts: list[int | str] = []
    for part in place:
        if isinstance(values, Mapping) and part not in values and part in values.values():
            continue
        parts.append(part)
        try:
            values = values[part]
        except (LookupError, TypeError):
            values = None
    return parts


def _kinds_at(cls: type[BaseModel], place: tuple[int | str, ...], tag: str) -> list[str]:
    """Return the kinds that settings at a place can have, each a value of their field `tag`."""
    names = [part for part in place if isinstance(part, str)]
    pending = [_settings_at(cls, tuple(names[:-1])).model_fields[names[-1]].annotation]
    kinds: list[str] = []
    while pending:
        annotation = pending.pop(0)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kinds += get_args(annotation.model_fields[tag].annotation)
        pending += get_args(annotation)
    return kinds


def remedy(values: Any, place: tuple[int | str, ...], source: str) -> str:
    """Return the sentence that says where the value at a place is to be changed."""
    origin = values.origin_of(place) if isinstance(values, RecipeValues) else ""
    return f"Change {origin}." if origin.startswith("--") else f"Fix it in {origin or source}."


def needs_of(problem: Mapping[str, Any]) -> str:
    """Return what a value needs that pydantic refuses, in words of ours."""
    if prefix := OWN_WORDS.get(problem["type"]):
        return problem["msg"].removeprefix(prefix).rstrip(".")
    values = {name: _plain(value) for name, value in problem.get("ctx", {}).items()}
    text = NEEDS.get(problem["type"], "a value of another kind").format_map(values)
    return re.sub(r"\b1 (character|entrie)s\b", lambda one: f"1 {one[1].replace('ie', 'y')}", text)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def add_origin(error: SettingError, values: Any, place: tuple[int | str, ...] = ()) -> SettingError:
    """Return an error of a setting at a place, with the file or override that its value comes from."""
    if isinstance(values, RecipeValues):
        origin = values.origin_of((*place, *error.setting.split(".")))
        if origin and origin not in str(error):
            error.args = (f"{error} It comes from {origin}.",)
    return error


def _settings_at(cls: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the class of the settings at a place, whose parts are fields, indices and kinds of a union."""
    for part in place:
        field = cls.model_fields.get(str(part))
        pending = [field.annotation] if field else [cls]
        while pending:
            annotation = pending.pop(0)
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                tag = annotation.model_fields.get("kind")
                if annotation is cls or tag is None or str(place[-1]) in get_args(tag.annotation):
                    cls = annotation
                    break
            pending += get_args(annotation)
    return cls


def read_recipe(path: Path, overrides: list[str] | None = None, setting: str = "recipe") -> RecipeValues:
    """Return the values of a recipe: those of its base, then its own, then `key=value` overrides.

    `setting` is what the caller calls the file.
    Raises: SettingError for a missing or malformed file, a cycle of bases, or a malformed override.
    """
    return _apply_overrides(_read_with_base(Path(path), setting, seen=()), overrides or [])


def parse_overrides(overrides: list[str]) -> RecipeValues:
    """Return the values of `key=value` overrides without a recipe.

    Raises: SettingError for a malformed override.
    """
    return _apply_overrides(_with_origins({}, {}), overrides)


def write_yaml(values: dict[str, Any], path: Path) -> None:
    """Write values as YAML in their order."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _with_origins(values: dict[str, Any], origins: dict[str, str]) -> RecipeValues:
    recipe = RecipeValues(values)
    recipe.origins = origins
    return recipe


def _names(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values, those of mappings included."""
    names = []
    for key, value in values.items():
        names += [f"{prefix}{key}", *(_names(value, f"{prefix}{key}.") if isinstance(value, dict) else ())]
    return names


def _read_with_base(path: Path, setting: str, seen: tuple[Path, ...]) -> RecipeValues:
    if not os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
        fix = "The recipes of the project are in recipes/." if setting == "recipe" else "Check the path."
        raise SettingError(setting, str(path), "the path of a YAML file", fix)
    if path.resolve() in seen:
        raise SettingError(setting, str(path), "a recipe that is not based on itself")
    values = read_yaml(path, setting)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise SettingError(setting, str(path), "a mapping of settings at the top level")
    base = values.pop("base", None)
    origins = dict.fromkeys(_names(values), str(path))
    if base is None:
        return _with_origins(values, origins)
    if not isinstance(base, str):
        raise SettingError("base", base, "the path of a YAML file", f"Fix it in {path}.")
    below = _read_with_base(path.parent / base, f"base (in {path})", (*seen, path.resolve()))
    return _with_origins(deep_merge(below, values), below.origins | origins)


def deep_merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return both mappings merged, nested mappings too; where both have a value, that of `above` is used."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = deep_merge(result[key], value) if both else value
    return result


def _apply_overrides(values: RecipeValues, overrides: list[str]) -> RecipeValues:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SettingError("--set", override, "the form key=value", "For example --set steps=100.")
        try:
            values.set(key, parse_yaml(text), f"--set {override}")
        except TextError as error:
            raise SettingError("--set", override, "a value in YAML", f"It {error}.") from error
    return values


def _set_nested(values: dict[str, Any], keys: list[str], value: Any, origin: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            option, _, text = origin.partition(" ")
            raise SettingError(option, text, f"a mapping at {key}, which is a single value")
    values[keys[-1]] = value
