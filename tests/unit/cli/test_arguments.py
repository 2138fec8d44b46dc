"""What is typed becomes a value or an error that says what to type."""

import io

import pytest

from lens.cli.arguments import gather_prompts, parse_lora, parse_size
from lens.errors import SettingError


class Pipe(io.StringIO):
    def isatty(self):
        return False


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def read(self, *_):
        raise AssertionError("a terminal must not be read")


@pytest.fixture
def lora_file(tmp_path):
    path = tmp_path / "ink.safetensors"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("text", ["176x96", "176X96", " 176 x 96 ", "176*96", "176\u00d796"])
def test_a_size_is_width_then_height(text):
    assert parse_size(text) == (176, 96)


@pytest.mark.parametrize("text", ["", "176", "x96", "176x", "-16x16", "1.5x2", "176x96x3"])
def test_a_malformed_size_shows_the_form(text):
    with pytest.raises(SettingError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_a_lora_weight_follows_the_last_colon_and_is_one_without(lora_file):
    assert parse_lora(str(lora_file)) == (lora_file, 1.0)
    assert parse_lora(f"{lora_file}:0.8") == (lora_file, 0.8)
    assert parse_lora(f"{lora_file}:-1") == (lora_file, -1.0)


def test_a_colon_in_the_name_of_an_existing_lora_is_kept(tmp_path):
    path = tmp_path / "ink:2"
    path.write_bytes(b"")
    assert parse_lora(str(path)) == (path, 1.0)


@pytest.mark.parametrize("weight", ["strong", "", "nan", "inf", "1000"])
def test_a_bad_lora_weight_is_an_error(lora_file, weight):
    with pytest.raises(SettingError, match=r"--lora.*weight"):
        parse_lora(f"{lora_file}:{weight}")


def test_a_missing_lora_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"gone\.safetensors.*exists"):
        parse_lora(str(tmp_path / "gone.safetensors:0.5"))


def test_prompts_come_from_arguments_a_file_and_a_dash_in_order(tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("\ufeffa fox\n\n  a cat \r\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", Pipe("a dog\na cow\n"))
    prompts = gather_prompts(["an owl", "-"], tmp_path / "p.txt", read_stdin=True)
    assert prompts == ["an owl", "a dog", "a cow", "a fox", "a cat"]


def test_a_pipe_is_read_only_where_nothing_else_is_given(monkeypatch):
    monkeypatch.setattr("sys.stdin", Pipe("a dog\n"))
    assert gather_prompts(["an owl"], None, read_stdin=True) == ["an owl"]
    assert gather_prompts([], None, read_stdin=False) == []
    assert gather_prompts([], None, read_stdin=True) == ["a dog"]


def test_a_terminal_is_never_waited_on(monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(SettingError, match="the prompt"):
        gather_prompts([], None, read_stdin=True)


def test_bytes_that_are_no_text_on_stdin_are_an_error(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00"), "utf-8"))
    with pytest.raises(SettingError, match="UTF-8"):
        gather_prompts(["-"], None, read_stdin=False)


@pytest.mark.parametrize("arguments", [[""], ["  "], ["a fox", " "]])
def test_an_empty_prompt_is_an_error(arguments):
    with pytest.raises(SettingError, match="Describe the image"):
        gather_prompts(arguments, None, read_stdin=True)


def test_an_unreadable_prompt_file_is_an_error(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    for path, said in [
        (tmp_path / "p.txt", "UTF-8"),
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "folder|dir"),
    ]:
        with pytest.raises(SettingError, match=f"--from-file.*({said})"):
            gather_prompts([], path, read_stdin=False)
