"""Settings refuse what they do not know; recipes build on a base and take overrides."""

from pathlib import Path
from typing import Self

import pytest
from pydantic import Field, ValidationError, model_validator

from lens.config import Settings, deep_merge, parse_overrides, read_recipe, write_yaml
from lens.errors import SettingError


class Inner(Settings):
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)

    @model_validator(mode="after")
    def _betas_grow(self) -> Self:
        if self.betas[0] >= self.betas[1]:
            raise SettingError("betas", self.betas, "two growing numbers")
        return self


class Outer(Settings):
    steps: int = Field(gt=0)
    inner: Inner = Inner()


def written(folder: Path, **files: str) -> Path:
    """Write YAML files and return the path of the last."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


def test_values_are_typed_and_defaults_fill_the_rest():
    settings = Outer.of({"steps": 3, "inner": {"lr": 0.5}})
    assert settings == Outer(steps=3, inner=Inner(lr=0.5))
    assert settings.inner.betas == (0.9, 0.999)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"steps": 3, "step": 4},
            "step is 4, but it needs a known name. Did you mean steps? Fix it in r.yaml.",
        ),
        (
            {"steps": 3, "inner": {"rate": 4}},
            "inner.rate is 4, but it needs a known name. Known in inner of r.yaml: betas, lr.",
        ),
        (
            {"steps": 3, "times_per_picture": 2},
            "times_per_picture is 2, but it needs its new name, times_per_image",
        ),
        ({"steps": 0}, "steps is 0, but it needs more than 0. Fix it in r.yaml."),
        (
            {"steps": 3, "inner": {"lr": "fast"}},
            "inner.lr is 'fast', but it needs a number. Fix it in r.yaml.",
        ),
        ({}, "steps is None, but it needs a value. Fix it in r.yaml."),
        (
            {"steps": 3, "inner": {"betas": [0.9, 0.1]}},
            "betas is (0.9, 0.1), but it needs two growing numbers.",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_it_needs(values, says):
    with pytest.raises(SettingError) as raised:
        Outer.of(values, "r.yaml")
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["steps=0"], "steps is 0, but it needs more than 0. Change --set steps=0."),
        (["inner.lr=fast"], "inner.lr is 'fast', but it needs a number. Change --set inner.lr=fast."),
        (["inner={lr: 0}"], "inner.lr is 0, but it needs more than 0. Change --set inner={lr: 0}."),
        (["inner.lr=1"], "inner.betas.0 is 'a', but it needs a number. Fix it in {folder}/base.yaml."),
        (
            ["inner.betas=[0.9, 0.1]"],
            "betas is (0.9, 0.1), but it needs two growing numbers. "
            "It comes from --set inner.betas=[0.9, 0.1].",
        ),
    ],
)
def test_the_file_or_override_that_a_bad_value_comes_from_is_named(overrides, says, tmp_path):
    path = written(tmp_path, base="inner: {betas: [a, 0.9]}\n", recipe="base: base.yaml\nsteps: 3\n")
    with pytest.raises(SettingError) as raised:
        Outer.of(read_recipe(path, overrides), str(path))
    expected = says.format(folder=tmp_path) if "{folder}" in says else says
    assert str(raised.value) == expected


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Outer(steps=3).steps = 4  # type: ignore[misc]


def test_a_variant_says_only_what_differs_from_its_base(tmp_path):
    path = written(
        tmp_path,
        grandparent="steps: 9\ninner: {lr: 0.1, betas: [0.5, 0.6]}\n",
        parent="base: grandparent.yaml\nsteps: 5\n",
        child="base: parent.yaml\ninner: {lr: 0.2}\n",
    )
    assert read_recipe(path) == {"steps": 5, "inner": {"lr": 0.2, "betas": [0.5, 0.6]}}


def test_overrides_alone_are_values_of_their_own():
    assert parse_overrides(["steps=3", "inner.lr=0.5"]) == {"steps": 3, "inner": {"lr": 0.5}}
    assert parse_overrides([]) == {}
    with pytest.raises(SettingError, match="key=value"):
        parse_overrides(["steps"])


def test_overrides_come_last_and_reach_into_mappings(tmp_path):
    path = written(tmp_path, recipe="steps: 9\ninner: {lr: 0.1}\n")
    values = read_recipe(path, ["inner.lr=2.5e-1", "steps=4", "new.name=[a, 1]"])
    assert values == {"steps": 4, "inner": {"lr": 0.25}, "new": {"name": ["a", 1]}}


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("steps: [1, 2\n", [], "valid YAML"),
        ("- 1\n- 2\n", [], "a mapping of settings at the top level"),
        ("base: recipe.yaml\n", [], "a recipe that is not based on itself"),
        ("base: nowhere.yaml\n", [], "the path of a YAML file"),
        ("steps: 1\n", ["steps"], "the form key=value"),
        ("steps: 1\n", ["steps=[1"], "--set is 'steps=.1', but it needs a value in YAML"),
        ("steps: 1\n", ["steps.more=2"], "a mapping at steps"),
    ],
)
def test_a_recipe_that_cannot_be_read_says_why(text, overrides, says, tmp_path):
    with pytest.raises(SettingError, match=says):
        read_recipe(written(tmp_path, recipe=text), overrides)


def test_the_error_of_a_missing_recipe_says_where_recipes_are(tmp_path):
    with pytest.raises(SettingError, match="The recipes of the project are in recipes/"):
        read_recipe(tmp_path / "none.yaml")


def test_joining_leaves_both_sides_alone():
    below, above = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert deep_merge(below, above) == {"a": {"b": 3, "c": 2}}
    assert (below, above) == ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})


def test_what_is_written_is_read_back(tmp_path):
    values = {"steps": 3, "inner": {"lr": 0.5, "betas": [0.9, 0.99]}}
    write_yaml(values, tmp_path / "out.yaml")
    assert read_recipe(tmp_path / "out.yaml") == values
    assert list(read_recipe(tmp_path / "out.yaml")) == ["steps", "inner"], "in their own order"
