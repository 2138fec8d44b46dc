"""Typed settings, and recipes: YAML files with a base file below them and overrides on top.

A recipe may name a `base:` file and then holds only what differs from it. Unknown keys are refused.
Knows nothing of torch or of what the settings mean.
"""

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
                raise ours from error
            name = ".".join(str(part) for part in first["loc"]) or source
            if first["type"] == "extra_forbidden":
                if new := RENAMED_KEYS.get(str(first["loc"][-1])):
                    fix = f"Rename the key in {source}."
                    raise SettingError(name, first["input"], f"its new name, {new}", fix) from error
                place = ".".join(str(part) for part in first["loc"][:-1])
                known = ", ".join(sorted(_settings_at(cls, first["loc"][:-1]).model_fields))
                fix = f"Known in {f'{place} of {source}' if place else source}: {known}."
                raise SettingError(name, first["input"], "a known name", fix) from error
            raise SettingError(name, first["input"], first["msg"], f"Fix it in {source}.") from error


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


def read_recipe(path: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Return the values of a recipe: those of its base, then its own, then `key=value` overrides.

    Raises: SettingError for a missing or malformed file, a cycle of bases, or a malformed override.
    """
    return _apply_overrides(_read_with_base(Path(path), seen=()), overrides or [])


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """Return the values of `key=value` overrides without a recipe.

    Raises: SettingError for a malformed override.
    """
    return _apply_overrides({}, overrides)


def write_yaml(values: dict[str, Any], path: Path) -> None:
    """Write values as YAML in their order."""
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise SettingError("base", str(path), "a recipe that is not based on itself")
    if not path.is_file():
        fix = "The recipes of the project are in recipes/."
        raise SettingError("recipe", str(path), "the path of a YAML file", fix)
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise SettingError("recipe", str(path), "valid YAML", str(error).replace("\n", " ")) from error
    if not isinstance(values, dict):
        raise SettingError("recipe", str(path), "a mapping of settings at the top level")
    base = values.pop("base", None)
    if base is None:
        return values
    return deep_merge(_read_with_base(path.parent / base, (*seen, path.resolve())), values)


def deep_merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return both mappings merged, nested mappings too; where both have a value, that of `above` is used."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = deep_merge(result[key], value) if both else value
    return result


def _apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise SettingError("--set", override, "the form key=value", "For example --set steps=100.")
        _set_nested(values, key.split("."), yaml.safe_load(text))
    return values


def _set_nested(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise SettingError("--set", ".".join(keys), f"a mapping at {key}, which is a single value")
    values[keys[-1]] = value
