"""Styles are patterns around a prompt, from a file that people edit."""

import pytest

from lens.errors import SettingError
from lens.prompts.reading import PromptReader
from lens.prompts.styles import Style, apply_styles, read_styles, write_styles


def test_the_styles_of_the_package_hold_the_place_of_the_prompt():
    styles = read_styles(None, "--style-file")
    assert len(styles) >= 4 and all("{prompt}" in style.prompt for style in styles.values())


def test_styles_are_applied_one_after_the_other(tmp_path):
    path = tmp_path / "styles.yaml"
    path.write_text(
        'night: "{prompt}, on a black background"\nink: {prompt: ink drawing, negative_prompt: photograph}\n'
    )
    styles = read_styles(path, "--style-file")
    prompt, negative = apply_styles("a {red|blue} fox", "fog", ["ink", "night"], styles)
    assert prompt == "a {red|blue} fox, ink drawing, on a black background"
    assert negative == "fog, photograph"
    read = PromptReader(style_file=path).read("a fox", "", 0, ["night"])
    assert (read.prompt, read.template) == ("a fox, on a black background", None)


def test_styles_are_written_as_they_are_read(tmp_path):
    styles = {"night": Style(prompt="{prompt} at night"), "a b": Style(prompt="x", negative_prompt="y")}
    write_styles(styles, tmp_path / "folder" / "styles.yaml")
    assert read_styles(tmp_path / "folder" / "styles.yaml", "styles") == styles
    write_styles({}, tmp_path / "none.yaml")
    assert read_styles(tmp_path / "none.yaml", "styles") == {}


def test_an_unknown_style_is_an_error_that_lists_the_others():
    with pytest.raises(SettingError, match=r"--style is 'nigth'.*night.*Did you mean night"):
        apply_styles("a fox", "", ["nigth"], {"night": Style()}, "--style")
    with pytest.raises(SettingError, match="there are no styles"):
        apply_styles("a fox", "", ["night"], {})


@pytest.mark.parametrize(
    "content",
    ["- a\n- b\n", "night: [1]\n", "night: {colour: x}\n", "a: {", '"": x\n', "night: {prompt: 3}\n"],
)
def test_a_file_that_holds_no_styles_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "styles.yaml"
    path.write_text(content)
    with pytest.raises(SettingError):
        read_styles(path, "--style-file")
