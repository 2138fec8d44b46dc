"""`lens convert`: parts of a whole model, errors before libraries load, and kills of the real command."""

import json
import signal
import subprocess
import sys
import time

import pytest

from lens.models.checkpoints.reader import read_header
from lens.models.checkpoints.registry import GPT_OSS_20B
from lens.models.shapes import text_encoder_shapes

WHAT_IS_LOADED = """
import sys
from lens.cli.main import main
status = main(sys.argv[1:])
print(status, [name for name in ("torch", "numpy", "diffusers", "gguf") if name in sys.modules])
"""


def test_the_parts_of_a_whole_model_are_converted_by_name(lens, tiny_model, tmp_path):
    assert lens("convert", tiny_model, "e", "--format", "folder", "--part", "text-encoder").out == "e\n"
    assert (tmp_path / "e" / "model.safetensors").is_file()
    assert lens("convert", tiny_model, "v.safetensors", "--format", "vae-flux2").out == "v.safetensors\n"
    again = lens(
        "convert", "e", "e.safetensors", "--format", "single-bf16", "--tokenizer", tiny_model / "tokenizer"
    )
    assert again.out == "e.safetensors\n"
    tensors, _ = read_header(tmp_path / "e.safetensors")
    assert "tokenizer_json" in tensors


def test_a_known_model_is_converted_by_its_name_also_one_that_shares_components(lens, tmp_path):
    for part, target in (("denoiser", "d.safetensors"), ("vae", "v.safetensors")):
        layout = "vae-flux2" if part == "vae" else "single-bf16"
        done = lens("convert", "lens-nano-turbo", target, "--format", layout, "--part", part)
        assert done.out == f"{target}\n"
        assert read_header(tmp_path / target)[0]
    error = lens("convert", "lens-nan", "x.safetensors", "--format", "single-bf16").error_line
    assert "lens-nan does not exist" in error and "lens-nano-turbo" in error


def test_a_tokenizer_that_is_none_is_refused(lens, tiny_model, tmp_path):
    wrong = tiny_model / "vae"
    arguments = ("--format", "single-bf16", "--part", "text-encoder", "--tokenizer", wrong)
    assert "has no tokenizer" in lens("convert", tiny_model, "e.safetensors", *arguments).error_line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.safetensors", "--format", "zip"],
        ["a", "--format", "mxfp8"],
        ["a.gguf", "--format", "gguf-q8_0"],
        ["a.safetensors", "--format", "mxfp8", "--part", "vae"],
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_libraries_load(tiny_model, arguments):
    command = [sys.executable, "-c", WHAT_IS_LOADED, "convert", str(tiny_model), *arguments]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "2 []\n"


def test_the_help_names_every_format_and_its_part(lens):
    from lens.models.checkpoints.conversion.formats import FORMATS

    text = lens("convert", "--help").out
    for name in FORMATS:
        assert name in text


@pytest.fixture
def large_encoder(tmp_path):
    """A text encoder of 3 GB of zeros, which take no place on the disk: long enough to be stopped."""
    sizes = {"num_hidden_layers": 4, "num_local_experts": 32, "vocab_size": 8, "hidden_size": 1024}
    config = (
        GPT_OSS_20B | sizes | {"intermediate_size": 2048, "num_attention_heads": 4, "num_key_value_heads": 2}
    )
    entries, end = {"__metadata__": {"lens_text_encoder_config": json.dumps(config)}}, 0
    for name, shape in text_encoder_shapes(config).items():
        start, size = end, 2
        for side in shape:
            size *= side
        end = start + size
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return path


def test_a_command_that_is_stopped_leaves_nothing(large_encoder, tmp_path):
    out = tmp_path / "out"
    arguments = ["convert", str(large_encoder), str(out / "a.gguf"), "--format", "gguf-q4_0"]
    command = [sys.executable, "-m", "lens", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        ends_at = time.monotonic() + 60
        while not any(file.stat().st_size > 10_000 for file in out.glob(".lens-*.partial/.lens-*.partial")):
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < ends_at
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert not out.exists()
