"""Only Lens speaks: no warning and no progress bar of another library reaches the terminal or stdout."""

import os
import stat
import subprocess
import sys

import pytest

LOADING = """
from lens import LensPipeline
pipeline = LensPipeline.from_pretrained("lens-nano-turbo")
pipeline("a fox", num_inference_steps=1)
"""


def test_a_quantized_model_draws_without_a_word_of_another_library(process):
    ran = process(
        "generate", "a fox", "--model", "lens-nano-turbo", "--quantize", "int8", "--steps", 1,
        "--size", "64x64", "--seed", 1,
    )  # fmt: skip
    assert ran.status == 0, ran
    assert ran.out.count("\n") == 1
    assert [line for line in ran.err.splitlines() if not line.startswith("lens: ")] == []


def test_loading_and_drawing_in_python_show_progress_alone():
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, env=environment, check=True
    )
    lines = ran.stderr.replace("\r", "\n").splitlines()
    assert ran.stdout == ""
    assert [line for line in lines if line.strip() and "it/s]" not in line] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.safetensors", "--format", "single-bf16", "--part", "denoiser"],
        ["a.gguf", "--format", "gguf-bf16", "--part", "text-encoder"],
        ["a", "--format", "folder", "--part", "denoiser"],
        ["a.safetensors", "--format", "vae-flux2"],
        ["a", "--format", "vae-diffusers"],
    ],
    ids=lambda arguments: arguments[2],
)
def test_what_is_converted_has_the_permissions_of_any_new_file(lens, tiny_model, tmp_path, arguments):
    before = os.umask(0o027)
    try:
        assert lens("convert", tiny_model, *arguments).status == 0
    finally:
        os.umask(before)
    made = tmp_path / arguments[0]
    files = [path for path in (made, *made.rglob("*")) if path.is_file()]
    assert files and {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_the_progress_of_encoding_leaves_stdout_to_the_result(capsys):
    from lens.train.data.progress import track

    assert list(track(["a", "b"], "encoding")) == ["a", "b"]
    said = capsys.readouterr()
    assert said.out == "" and "encoding" in said.err
