"""Every mistake gets one line that says what to do, exit status 2, and leaves no file."""

import shutil
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def refuses(lens, tiny_model, tmp_path):
    """Return the error line of a call that must fail and must leave the folder as it was."""

    def call(*arguments: object, stdin: str = "", model: Path | str = tiny_model) -> str:
        before = sorted(tmp_path.rglob("*"))
        line = lens("generate", "--model", model, *arguments, stdin=stdin).error_line
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return call


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "100x96"], ["--size is '100x96'", "multiple of 16 as width", "96 or 112"]),
        (["--size", "big"], ["--size is 'big'", "WIDTHxHEIGHT"]),
        (["--size", "64x160"], ["1:2 to 2:1", "--allow-extreme"]),
        (["--size", "1456x1456"], ["1440 x 1440", "--allow-extreme"]),
        (["--aspect-ratio", "5:4"], ["5:4", "1:2, 9:16, 2:3, 3:4, 1:1, 4:3, 3:2, 16:9, 2:1"]),
        (["--base-resolution", "100"], ["--base-resolution is 100", "multiple of 16", "96"]),
        (["--size", "64x64", "--aspect-ratio", "1:1"], ["--size", "--aspect-ratio", "Give one"]),
        (["--steps", "0"], ["--steps is 0", "from 1 to"]),
        (["--cfg", "-1"], ["--cfg is -1.0", "1 turns guidance off"]),
        (["--cfg", "nan"], ["--cfg is nan"]),
        (["--seed", "-2"], ["--seed is '-2'", "-1 is random"]),
        (["--init-image", "gone.png"], ["gone.png does not exist"]),
        (["--mask", "mask.png"], ["--mask", "Add --init-image"]),
        (["--lora", "gone.safetensors"], ["gone.safetensors", "exists"]),
        (["--lora", "gone.safetensors:strong"], ["--lora", "number as the weight"]),
        (["--device", "tpu"], ["--device is 'tpu'", "cpu"]),
        (["--offload", "model", "--device", "cpu"], ["--offload is 'model'", "a CUDA device"]),
        (["--out", "new", "--size", "9x16"], ["--size is '9x16'"]),
        (["--out", "a.tiff"], ["--out is 'a.tiff'", ".png, .jpg, .jpeg, .webp"]),
        (["--out", "a.png", "--format", "jpg"], ["--format is 'jpg'", "a.png"]),
        (["--out", "a.png", "--count", "2"], ["--out is 'a.png'", "a folder for 2 images"]),
        (["--from-file", "gone.txt"], ["--from-file", "No such file"]),
        (["--like", "gone.png"], ["gone.png does not exist"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_a_bad_option_names_itself_and_the_remedy(refuses, arguments, said):
    line = refuses("a fox", *arguments)
    for words in said:
        assert words in line


@pytest.mark.parametrize("option", ["--dtype", "--solver", "--quantize", "--offload", "--format"])
def test_an_unknown_choice_lists_the_known_ones(lens, option):
    ran = lens("generate", "a fox", option, "nonsense")
    assert (ran.status, ran.out) == (2, "")
    assert "nonsense" in ran.err and "one of" in ran.err


@pytest.mark.parametrize("arguments", [[""], ["   "], [], ["-"]])
def test_an_empty_prompt_says_how_to_give_one(refuses, arguments):
    assert "the prompt is" in refuses(*arguments, stdin="\n \n")


def test_the_choices_of_solver_are_those_of_the_table():
    from typing import get_args

    from lens.cli.arguments import SolverName
    from lens.sampling.solvers import SOLVERS

    assert list(get_args(SolverName)) == list(SOLVERS)


def test_the_choices_of_quantize_are_those_that_can_be_applied():
    from typing import get_args

    from lens.cli.arguments import QuantizeFormat
    from lens.models.quantized.torchao import QUANTIZATIONS

    assert [name for name in get_args(QuantizeFormat) if name != "none"] == list(QUANTIZATIONS)


def test_the_choices_of_format_are_those_that_can_be_written():
    from typing import get_args

    from lens.cli.arguments import ImageFormat
    from lens.sampling.image_metadata import ENCODER_OPTIONS

    assert list(get_args(ImageFormat)) == list(ENCODER_OPTIONS)


def test_an_unknown_model_lists_the_known_and_the_nearest(refuses):
    line = refuses("a fox", model="lens-turbi")
    assert "Did you mean lens-turbo?" in line
    assert "lens-nano, lens-nano-turbo, lens-nano-base, lens, lens-turbo, lens-base" in line


def test_a_folder_that_is_no_model_says_so(refuses, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in refuses("a fox", model=tmp_path / "empty")


def test_a_model_that_is_not_here_says_how_to_get_it(process):
    ran = process("generate", "a fox", "--model", "lens-base")
    assert (ran.status, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    last = ran.err.splitlines()[-1]
    assert "hf download" in last and "lens-nano, which needs no download" in last


def test_an_unreadable_init_image_is_refused_before_loading(refuses, tmp_path):
    (tmp_path / "words.png").write_text("not an image")
    assert "words.png is not a readable image" in refuses("a fox", "--init-image", "words.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    assert "cut.png" in refuses("a fox", "--init-image", "whole.png", "--mask", "cut.png")


def test_a_file_that_is_no_lora_is_refused(refuses, tmp_path):
    (tmp_path / "words.safetensors").write_text("not weights at all")
    assert "words.safetensors" in refuses("a fox", "--lora", "words.safetensors")


def test_a_damaged_adapter_and_one_of_another_kind_are_refused_before_loading(refuses, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    from lens.cli.generation.loading import GenerationSession

    monkeypatch.setattr(GenerationSession, "encode", lambda *_: pytest.fail("a prompt was encoded"))
    layer = "transformer_blocks.0.attn.img_qkv"
    save_file({f"{layer}.ia3_l": torch.ones(32)}, tmp_path / "ia3.safetensors")
    line = refuses("a fox", "--lora", "ia3.safetensors")
    assert "of the kind IA3, which is not supported" in line and "Supported are LoRA" in line
    save_file({f"{layer}.diff": torch.ones(96, 32)}, tmp_path / "full.safetensors")
    (tmp_path / "long.safetensors").write_bytes((tmp_path / "full.safetensors").read_bytes() + b"abc")
    assert "it has 3 bytes behind its last tensor" in refuses("a fox", "--lora", "long.safetensors")


def test_an_image_without_metadata_cannot_be_reproduced(refuses, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
    line = refuses("--like", "plain.png")
    assert "plain.png has no metadata" in line and "It is a PNG image of 64 x 64 pixels." in line


def test_an_image_of_another_tool_without_a_prompt_asks_for_one(refuses, tmp_path):
    exif = Image.Exif()
    exif[0x0110] = 'prompt:{"1": {"class_type": "Unheard", "inputs": {}}}'
    Image.new("RGB", (64, 64)).save(tmp_path / "odd.webp", exif=exif)
    line = refuses("--like", "odd.webp")
    assert "--like is 'odd.webp', but it needs an image whose prompt is found" in line


def test_too_little_memory_is_an_error_with_the_need_and_the_remedy(refuses, monkeypatch):
    monkeypatch.setattr("lens.models.memory.available_memory", lambda device: 1000)
    line = refuses("a fox")
    assert "takes at least 0." in line and "0.0 GB may be used" in line and "smaller size" in line


def test_running_out_of_memory_during_generation_is_an_error_with_the_remedy(refuses, monkeypatch):
    import torch

    def no_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("lens.models.denoiser.LensTransformer2DModel.forward", no_memory)
    line = refuses("a fox", "--seed", "1")
    assert "Tried to allocate 20.00 GiB" in line and "lower --memory" in line


def test_a_folder_that_cannot_be_written_is_refused_before_loading(refuses, tmp_path):
    (tmp_path / "taken").write_text("")
    assert "in the way" in refuses("a fox", "--out", tmp_path / "taken" / "deep")


@pytest.mark.parametrize("part", ["latents", "pixels"])
def test_an_image_that_is_not_finite_is_no_file(refuses, tiny_model, tmp_path_factory, part):
    from safetensors.torch import load_file, save_file

    model = tmp_path_factory.mktemp("broken") / "tiny"
    shutil.copytree(tiny_model, model)
    folder, name = ("transformer", "proj_out") if part == "latents" else ("vae", "decoder.conv_out")
    (path,) = (model / folder).glob("*.safetensors")
    weights = load_file(path)
    weights[f"{name}.bias"].fill_(float("nan"))
    save_file(weights, path, {"format": "pt"})
    size = ("--size", "64x64", "--steps", "1", "--seed", "1")
    line = refuses("a fox", *size, "--out", "new/x.png", model=model)
    assert f"100% of the {part} are not finite" in line and "float32" in line
