"""Typed settings, and recipes: YAML files with a base file below them and overrides on top.

A recipe may name a `base:` file and then holds only what differs from it. Unknown keys are refused. An error
says where its value comes from. Knows nothing of torch or of what the settings mean.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lens.errors import SettingError

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
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "text", "path_type": "a path",
    "literal_error": "{expected}", "tuple_type": "a list", "list_type": "a list",
    "dict_type": "a mapping", "model_type": "a mapping of settings",
    "too_short": "at least {min_length} entries", "too_long": "at most {max_length} entries",
}  # fmt: skip
"""What a value needs, by pydantic's type of the error; other errors are told in its words."""


class RecipeValues(dict[str, Any]):
    """The values of a recipe, and where each of them comes from."""

    origins: dict[str, str]
    """A file or an override, by the dotted name of the value."""

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
            first = error.errors()[0]
            ours = first.get("ctx", {}).get("error")
            if isinstance(ours, SettingError):  # from one of our validators
                raise add_origin(ours, values, first["loc"]) from error
            name = ".".join(str(part) for part in first["loc"]) or source
            if first["type"] == "extra_forbidden":
                if new := RENAMED_KEYS.get(str(first["loc"][-1])):
                    fix = f"Rename the key in {source}."
                    raise SettingError(name, first["input"], f"its new name, {new}", fix) from error
                place = ".".join(str(part) for part in first["loc"][:-1])
                known = ", ".join(sorted(_settings_at(cls, first["loc"][:-1]).model_fields))
                fix = f"Known in {f'{place} of {source}' if place else source}: {known}."
                raise SettingError(name, first["input"], "a known name", fix) from error
            origin = values.origin_of(first["loc"]) if isinstance(values, RecipeValues) else ""
            fix = f"Change {origin}." if origin.startswith("--") else f"Fix it in {origin or source}."
            got = None if first["type"] == "missing" else first["input"]
            raise SettingError(name, got, _needs(first), fix) from error


def _needs(details: Mapping[str, Any]) -> str:
    text = NEEDS.get(details["type"])
    if text is None:
        return details["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return text.format_map({name: _plain(value) for name, value in details.get("ctx", {}).items()})


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


def read_recipe(path: Path, overrides: list[str] | None = None) -> RecipeValues:
    """Return the values of a recipe: those of its base, then its own, then `key=value` overrides.

    Raises: SettingError for a missing or malformed file, a cycle of bases, or a malformed override.
    """
    return _apply_overrides(_read_with_base(Path(path), seen=()), overrides or [])


def parse_overrides(overrides: list[str]) -> RecipeValues:
    """Return the values of `key=value` overrides without a recipe.

    Raises: SettingError for a malformed override.
    """
    return _apply_overrides(_with_origins({}, {}), overrides)


def write_yaml(values: dict[str, Any], path: Path) -> None:
    """Write values as YAML in their order."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


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


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> RecipeValues:
    if path.resolve() in seen:
        raise SettingError("base", str(path), "a recipe that is not based on itself")
    if not path.is_file():
        fix = "The recipes of the project are in recipes/."
        raise SettingError("recipe", str(path), "the path of a YAML file", fix)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError("recipe", str(path), "valid YAML", str(error).replace("\n", " ")) from error
    if not isinstance(values, dict):
        raise SettingError("recipe", str(path), "a mapping of settings at the top level")
    base = values.pop("base", None)
    origins = dict.fromkeys(_names(values), str(path))
    if base is None:
        return _with_origins(values, origins)
    below = _read_with_base(path.parent / base, (*seen, path.resolve()))
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
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingError("--set", override, "a value in YAML", str(error).replace("\n", " ")) from error
        _set_nested(values, key.split("."), value)
        names = [key, *(_names(value, f"{key}.") if isinstance(value, dict) else ())]
        values.origins |= dict.fromkeys(names, f"--set {override}")
    return values


def _set_nested(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise SettingError("--set", ".".join(keys), f"a mapping at {key}, which is a single value")
    values[keys[-1]] = value
