"""What is typed wrongly gets one line in the words of the command, with what was probably meant."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

FOREIGN_SENTENCES = (
    "Input should", "String should", "unable to parse", "Value error", "Traceback", "allow_extreme",
)  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["a fox"], "There is no command 'a fox'. To draw it, run: lens generate 'a fox'"),
        (["genrate", "a fox"], "There is no command 'genrate'. Did you mean `lens generate`?"),
        (["data", "bild"], "No such command 'bild'. Did you mean 'build'? See `lens data --help`."),
        (
            ["generate", "x", "--sampler", "euler"],
            "--sampler is no option of lens generate. Did you mean --solver?",
        ),
        (["generate", "x", "--seeds", "3"], "Did you mean --seed?"),
        (["generate", "x", "--neg", "y"], "Did you mean --negative?"),
        (["generate", "--prompt", "x"], 'A prompt needs no option: lens generate "a red apple".'),
        (["--versoin"], "Did you mean --version?"),
        (["generate", "x", "--steps", "abc"], "--steps is 'abc', but it needs a whole number."),
        (["generate", "x", "--cfg", "much"], "--cfg is 'much', but it needs a number."),
        (["generate", "x", "-n", "0"], "--count is '0', but it needs at least 1."),
        (["generate", "x", "--solver", "magic"], "--solver is 'magic', but it needs one of 'euler', 'ab2'."),
        (["generate", "x", "--steps"], "--steps needs a value. See"),
        (["generate", "x", "--model", "lens-turbi"], "--model is 'lens-turbi', but it needs a known name"),
        (["generate", "x", "--ar", "21:9"], "For any other ratio, give --size WIDTHxHEIGHT."),
        (
            ["generate", "x", "--size", "100x96"],
            "--size is '100x96', but it needs a positive multiple of 16 as width.",
        ),
        (["generate", "x", "--size", "64x640"], "To generate it anyway, add --allow-extreme;"),
        (
            ["generate", "x", "--width", "96"],
            "--height is None, but it needs a number, as --width 96 is given.",
        ),
        (
            ["generate", "x", "--width", "96", "--height", "90"],
            "--height is 90, but it needs a positive multiple",
        ),
        (
            ["generate", "x", "--width", "96", "--ar", "1:1"],
            "--width is 96, but it needs to be given without",
        ),
        (
            ["generate", "x", "--base-resolution", "9"],
            "--base-resolution is 9, but it needs a positive multiple",
        ),
        (["generate", "x", "--lora", ""], "--lora is '', but it needs the path of a LoRA file."),
        (["info", "lens-turbi"], "MODEL is 'lens-turbi', but it needs a known name"),
        (["info", "gone/x.safetensors"], "gone/x.safetensors does not exist."),
        (["info", "gone.png"], "gone.png does not exist."),
        (["info", "x" * 300], "cannot be used: File name too long."),
        (
            ["convert", "lens-nano", "a.gguf", "--format", "zip"],
            "--format is 'zip', but it needs one of folder,",
        ),
        (["train", "gone.yaml"], "RECIPE is 'gone.yaml', but it needs the path of a YAML file."),
        (["ablate", "gone.yaml"], "RECIPES is 'gone.yaml', but it needs the path of a YAML file."),
        (["eval", "nano", "--models", "lens-nano-turbi"], "--model is 'lens-nano-turbi', but it needs a"),
        (["train", "x" * 300], "but it needs the path of a YAML file."),
        (["generate", "x", "--from-file", "x" * 300], "File name too long"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_one_line_with_what_was_meant(lens, typed, said):
    line = lens(*typed).error_line
    assert said in line
    assert not any(sentence in line for sentence in FOREIGN_SENTENCES)


@pytest.mark.parametrize("option", ["--arr", "--lor", "--xyz", "-x", "--a"])
def test_no_option_is_suggested_for_its_dashes_alone(lens, option):
    line = lens("generate", "x", option, "1").error_line
    assert "Did you mean --lora?" not in line or option == "--lor"
    assert "--dtype" not in line and "--size" not in line


@pytest.mark.parametrize(
    ("device", "said"),
    [("tpu", "--device is 'tpu'"), ("cuda:x", "--device is 'cuda:x'"), ("cuda", "This machine has no cuda.")],
)
def test_a_device_that_cannot_be_here_is_refused_without_torch(lens, monkeypatch, device, said):
    monkeypatch.setattr("lens.cli.arguments.GPU_DRIVER_FILES", ())
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert said in lens("generate", "x", "--device", device).error_line


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, no_progress_bars):
    """The result of one drawing with the short options."""
    from contextlib import chdir, redirect_stdout
    from io import StringIO

    from lens.cli.main import main

    folder, printed = tmp_path_factory.mktemp("drawn"), StringIO()
    arguments = ["generate", "a fox", "-n", "1", "-o", "out", "--width", "96", "--height", "64"]
    with chdir(folder), redirect_stdout(printed):
        status = main([*arguments, "--seed", "3", "--model", "lens-nano-turbo", "--steps", "1", "--json"])
    assert status == 0
    return folder, json.loads(printed.getvalue())


def test_short_options_do_what_the_long_ones_do(drawn):
    folder, row = drawn
    assert row["path"].startswith("out/")
    with Image.open(folder / row["path"]) as image:
        assert image.size == (96, 64) == (row["width"], row["height"])


def test_info_of_a_picture_says_what_drew_it_and_how_to_draw_it_again(lens, drawn):
    folder, row = drawn
    path = folder / row["path"]
    said = lens("info", path).out
    assert "a PNG picture of 96x64 pixels" in said and "Prompt: a fox" in said
    assert f"lens generate --like {path}" in said
    facts = json.loads(lens("info", path, "--json").out)
    assert (facts["kind"], facts["settings"]["seed"]) == ("a PNG picture", 3)


def test_info_of_a_picture_of_another_tool_says_which(lens, tmp_path):
    exif = Image.Exif()
    text = "a fox\nSteps: 4, Sampler: Euler, CFG scale: 2, Seed: 9, Size: 64x64"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    Image.new("RGB", (4, 3)).save(tmp_path / "other.jpg", exif=exif.tobytes())
    assert "Prompt: a fox\n  Drawn by AUTOMATIC1111, seed 9, 4 steps\n" in lens("info", "other.jpg").out


def test_info_of_a_plain_picture_and_of_another_file_says_what_they_are(lens, tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "plain.jpg")
    assert "plain.jpg: a JPEG picture of 4x3 pixels\n  It has no settings" in lens("info", "plain.jpg").out
    (tmp_path / "notes.md").write_text("words")
    assert "notes.md is neither weights nor a picture" in lens("info", "notes.md").error_line


@pytest.mark.parametrize("width", [40, 80, 120])
def test_models_and_info_fit_the_terminal(lens, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    said = lens("models").out
    table = said.partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= max(width, 52), "the longest description is not broken"
    assert "runs offline on a CPU" in table
    assert "The original by Microsoft Research" in said
    assert "4,104,225,152" in lens("info", "lens").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "--port is 99999, but it needs at most 65535. Change --port 99999."),
        (["--set", "port=abc"], "port is 'abc', but it needs a whole number. Change --set port=abc."),
        (["--ray", "--replicas", "-1"], "Change --replicas -1."),
        (["--device", "", "--set", "engine=1"], "--device is '', but it needs a mapping at engine"),
        (["--config", "s.yaml"], "port is 'many', but it needs a whole number. Fix it in s.yaml."),
        (["--config", "gone.yaml"], "--config is 'gone.yaml', but it needs the path of a YAML file."),
        (["--config", "s.yaml", "--port", "-1"], "--port is -1, but it needs at least 0. Change --port -1."),
        (["--set", "prot=1"], "Did you mean port? Change --set prot=1."),
        (
            ["--lora", "ink=gone.safetensors"],
            "loras.ink is 'gone.safetensors', but it needs a LoRA file that",
        ),
        (["--policy", "gone.yaml"], "--policy is 'gone.yaml', but it needs the path of a YAML file"),
        (["--model", "lens-turbi"], "--model is 'lens-turbi', but it needs"),
        (["--host", "0.0.0.0"], "--host is '0.0.0.0', but it needs an API key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_server_that_cannot_start_says_whose_value_is_wrong_and_leaves_no_state(
    lens, tmp_path, options, said
):
    (tmp_path / "s.yaml").write_text("port: many\n")
    line = lens("serve", *options).error_line
    assert said in line and " should " not in line
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["keys", "list"], "--state is 'lens-state', but it needs the state folder of a server."),
        (["keys", "remove", "ann"], "`lens keys add NAME` or `lens serve` creates it."),
        (["keys", "add", " "], "NAME is ' ', but it needs 1 to 80 characters."),
        (
            ["keys", "add", "ann", "--requests-per-minute", "0"],
            "--requests-per-minute is 0, but it needs 1 or",
        ),
        (["data", "build", "build.yaml"], "There is no image in in"),
        (["data", "build", "build.yaml", "--set", "source.path=gone"], "gone"),
        (["data", "build", "build.yaml", "--set", "withdrawn=gone.txt"], "withdrawn is 'gone.txt'"),
        (["data", "build", "build.yaml", "--set", "held_out=gone"], "held_out is 'gone'"),
        (
            ["data", "build", "build.yaml", "--set", "sources=[{kind: ftp}]"],
            "sources.0.kind is 'ftp', but it needs one of",
        ),
        (
            ["data", "build", "build.yaml", "--set", "captions={}"],
            "captions.kind is None, but it needs one of",
        ),
        (["rl", "prompts", "prompts.yaml"], "benchmarks is 'gone.txt', but it needs paths of files"),
        (["rl", "prompts", "prompts.yaml", "--set", "benchmarks=[bytes.txt]"], "is not valid UTF-8 (byte 0)"),
        (
            ["rl", "prompts", "prompts.yaml", "--set", "source=x"],
            "source is 'x', but it needs one of taxonomy, nano. Change --set source=x.",
        ),
        (["train", "train.yaml"], "start_from is 'gone', but it needs the folder of an exported model"),
        (["train", "train.yaml", "--set", "stage=x"], "Change --set stage=x."),
        (["train", "train.yaml", "--set", "stpes=1"], "Did you mean steps?"),
        (["ablate", "train.yaml"], "it needs a value"),
        (["train", "plot", "in"], "RUN is 'in', but it needs the folder of a run"),
        (["data", "verify", "in"], "in has no finished view"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_command_that_cannot_start_leaves_nothing(lens, tmp_path, typed, said):
    (tmp_path / "in").mkdir()
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xff")
    (tmp_path / "build.yaml").write_text("out: made\nsource: {kind: folder, path: in}\n")
    (tmp_path / "prompts.yaml").write_text("source: nano\nout: made\ncount: 2\nbenchmarks: [gone.txt]\n")
    (tmp_path / "train.yaml").write_text(
        "stage: language\nout: made\nsteps: 1\nbatch_size: 1\nstart_from: gone\n"
        "config: {}\noptimizer: {lr: 0.1}\n"
    )
    before = sorted(tmp_path.rglob("*"))
    assert said in lens(*typed).error_line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_whose_name_is_not_utf_8_is_told_by_its_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (4, 3)).save(tmp_path / name)
    command = [sys.executable, "-m", "lens", "info", name]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.startswith(b"caf\xe9.png: a PNG picture of 4x3 pixels")
