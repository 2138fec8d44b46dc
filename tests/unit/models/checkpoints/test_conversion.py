"""Conversion: what a source is, what is refused before anything is read, memory, and what kills leave."""

import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from comparisons import normal, saved
from tiny_models import tiny_components, tiny_denoiser, tiny_encoder

from lens.errors import CheckpointError, SettingError
from lens.files import DiskFullError
from lens.models.checkpoints.conversion import weights
from lens.models.checkpoints.conversion.formats import FORMATS, PARTS, formats_of
from lens.models.checkpoints.conversion.sources import (
    Source,
    check_space,
    estimated_bytes,
    stored_shapes,
)
from lens.models.checkpoints.conversion.targets import Target, write_target
from lens.models.checkpoints.convert import convert, find_convertible
from lens.models.checkpoints.reader import LazyTensor
from lens.models.checkpoints.writer import StreamedTensor
from lens.models.quantized.packed_weight import PackedFormat, PackedSource

WIDE = {
    "attention_head_dim": 32,
    "num_attention_heads": 3,
    "inner_dim": 96,
    "axes_dims_rope": (8, 12, 12),
    "num_layers": 1,
}
ENCODER = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A whole model's folder."""
    from lens.sampling.pipeline import LensPipeline

    folder = tmp_path_factory.mktemp("model")
    components = tiny_components() | {
        "transformer": tiny_denoiser(**WIDE),
        "text_encoder": tiny_encoder(**ENCODER),
    }
    LensPipeline(**components).save_pretrained(folder)
    return folder


# What a source is.


@pytest.mark.parametrize("part", PARTS)
def test_the_part_of_a_component_is_detected(model, tmp_path, part):
    component = {"denoiser": "transformer", "text-encoder": "text_encoder", "vae": "vae"}[part]
    name = formats_of(part)[0]
    found = find_convertible(model / component, tmp_path / "new", name)
    assert found == Source(part, model / component)
    assert find_convertible(model, tmp_path / "new", name, part) == found


def test_a_format_that_one_part_fits_takes_it_from_a_whole_model(model, tmp_path):
    for name, part in (("mxfp8", "denoiser"), ("mxfp4", "text-encoder"), ("vae-diffusers", "vae")):
        target = tmp_path / f"new{FORMATS[name].suffix}"
        assert find_convertible(model, target, name).part == part


def test_a_format_that_several_parts_fit_asks_for_the_part(model, tmp_path):
    said = r"part is None, but it needs one of denoiser, text-encoder.*Use --part denoiser or --part text-enc"
    with pytest.raises(SettingError, match=said):
        find_convertible(model, tmp_path / "a.gguf", "gguf-q8_0")
    # These formats were the denoiser's alone, and a whole model still gives the denoiser.
    for name, target in (("folder", "a"), ("single-bf16", "a.safetensors")):
        assert find_convertible(model, tmp_path / target, name).part == "denoiser"


@pytest.mark.parametrize(
    ("source", "name", "part", "said"),
    [
        ("vae", "mxfp8", None, r"one of vae-diffusers, vae-flux2 for a vae, which is what .* holds"),
        ("text_encoder", "mxfp8", None, r"one of folder, single-bf16, nvfp4, mxfp4, .* for a text-encoder"),
        ("transformer", "nvfp4", None, r"one of folder, single-bf16, single-f32, mxfp8, .* for a denoiser"),
        ("", "mxfp8", "vae", r"format is 'mxfp8', but it needs one of vae-diffusers, vae-flux2 for a vae"),
        (
            "transformer",
            "single-bf16",
            "text-encoder",
            r"part is 'text-encoder', but it needs denoiser, which is",
        ),
        ("", "single-bf16", "clip", r"part is 'clip', but it needs one of denoiser, text-encoder, vae"),
    ],
)
def test_a_format_that_does_not_fit_lists_those_that_do(model, tmp_path, source, name, part, said):
    with pytest.raises(SettingError, match=said):
        find_convertible(model / source, tmp_path / "a.safetensors", name, part)


def test_an_adapter_fits_the_formats_of_adapters_alone(tmp_path):
    factors = {"lora_A": torch.zeros(2, 96), "lora_B": torch.zeros(288, 2)}
    layer = "transformer_blocks.0.attn.img_qkv"
    saved({f"{layer}.{name}.weight": value for name, value in factors.items()}, tmp_path / "l.safetensors")
    with pytest.raises(
        SettingError, match=r"one of lora-peft, lora-diffusion-model, lora-kohya for an adapter"
    ):
        find_convertible(tmp_path / "l.safetensors", tmp_path / "a.safetensors", "mxfp8")
    found = find_convertible(tmp_path / "l.safetensors", tmp_path / "a.safetensors", "lora-kohya")
    assert found.part == "adapter"


def test_a_model_without_the_part_and_a_file_of_something_else_are_named(model, tmp_path):
    (tmp_path / "half" / "vae").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"half has no denoiser, which the format mxfp8 is for"):
        find_convertible(tmp_path / "half", tmp_path / "a.safetensors", "mxfp8")
    saved({"double_stream_modulation_img.lin.weight": torch.zeros(2)}, tmp_path / "f.safetensors")
    with pytest.raises(
        CheckpointError, match=r"is no denoiser or text-encoder. It is probably a FLUX.2 denoiser"
    ):
        find_convertible(tmp_path / "f.safetensors", tmp_path / "a.safetensors", "single-bf16")
    with pytest.raises(CheckpointError, match=r"gone does not exist"):
        find_convertible(tmp_path / "gone", tmp_path / "a", "folder")


# The target and the space that it takes.


def test_a_target_of_the_wrong_kind_is_refused(model, tmp_path):
    for name, target, said in (
        ("gguf-q8_0", "a.safetensors", r"ends in .gguf"),
        ("mxfp8", "a", r"ends in .safetensors"),
        ("mxfp4", "a.gguf", r"the name of a folder"),
    ):
        with pytest.raises(SettingError, match=said):
            find_convertible(model, tmp_path / target, name, "text-encoder" if name == "gguf-q8_0" else None)
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"target is .*The file .* is in the way"):
        find_convertible(model, tmp_path / "file" / "a", "folder")


@pytest.mark.parametrize("name", [name for name in FORMATS if not name.startswith("lora")])
def test_the_space_is_estimated_from_headers(model, tmp_path, name):
    layout = FORMATS[name]
    part = layout.parts[-1]
    found = find_convertible(model, tmp_path / f"a{layout.suffix}", name, part)
    estimate = estimated_bytes(stored_shapes(found), name, layout, part)
    written = convert(model, tmp_path / f"a{layout.suffix}", name, part)
    files = [written] if written.is_file() else list(written.glob("*.safetensors"))
    # Headers, padded scales and the tokenizer weigh more here than in a model of full size.
    assert estimate * 0.85 < sum(file.stat().st_size for file in files) < estimate * 1.6 + 60_000


def test_a_disk_without_the_space_is_named_before_anything_is_read(tmp_path):
    check_space(tmp_path / "a", 1000)
    with pytest.raises(DiskFullError, match=r"takes about 1000000.0 GB, but its disk has [\d.]+ GB free"):
        check_space(tmp_path / "new" / "a", 10**15)


# Memory.


class Recorder:
    """Counts the arrays that are alive, as long as any tensor or view of them is."""

    def __init__(self):
        self.alive = self.most = self.made = 0

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        array = values.copy()
        self.alive, self.made = self.alive + 1, self.made + 1
        self.most = max(self.most, self.alive)
        weakref.finalize(array, self._gone)
        return torch.from_numpy(array)

    def _gone(self):
        self.alive -= 1


def test_no_more_than_one_tensor_is_in_memory(tmp_path):
    recorder, values = Recorder(), normal(128, 64, seed=1).numpy()
    stored = LazyTensor((128, 64), "F32", lambda: recorder.tensor(values))
    plain = {f"p{i}": weights.plain_tensor("p", stored, dtype) for i, dtype in enumerate(("BF16", "F32"))}
    layers = {f"m{i}.{part}": t for i in range(3) for part, t in weights.mxfp8_tensors("m", stored).items()}
    write_target(tmp_path / "a.safetensors", Target(plain | layers), "model")
    rows = {
        f"q{i}": StreamedTensor((128, 64), "Q4_0", lambda: weights.gguf_rows("q", stored, "Q4_0"))
        for i in range(3)
    }
    write_target(tmp_path / "a.gguf", Target(rows, architecture="lens"), "model")
    assert recorder.made == 2 + 3 + 3 and recorder.most == 1


def test_no_more_than_two_experts_are_in_memory(tmp_path):
    recorder, values = Recorder(), normal(7, 96, 64, seed=2).numpy()  # (E, O, I)
    part = LazyTensor((7, 1), "U8", lambda: torch.arange(7, dtype=torch.uint8)[:, None])
    recorded = PackedFormat("recorded", lambda index, dtype: recorder.tensor(values[index.item()]).to(dtype))
    packed = PackedSource(recorded, (part,), (7, 96, 64))
    stored = LazyTensor((7, 64, 96), "F32", lambda: pytest.fail("read as a whole"), packed)
    tensors = {f"n.{key}": t for key, t in weights.nvfp4_tensors("n", stored, (7, 96, 64)).items()}
    tensors |= {f"m_{key}": t for key, t in weights.mxfp4_tensors("m", stored, (7, 96, 64)).items()}
    tensors["plain"] = weights.plain_tensor("plain", stored, "BF16")
    write_target(tmp_path / "a.safetensors", Target(tensors), "model")
    assert recorder.made == 3 * 7 and recorder.most <= 2


def test_a_large_matrix_is_read_by_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PIECE_VALUES", 10 * 64)
    values = normal(128, 64, seed=1)
    pieces = list(weights.cast_pieces("a", LazyTensor((128, 64), "F32", lambda: values), torch.bfloat16))
    assert [len(piece) for piece in pieces] == [10] * 12 + [8]
    assert torch.equal(torch.cat(pieces), values.bfloat16())


# Kills.

STAGE = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
from lens.cli.process import command_session
from lens.models.checkpoints.conversion.staging import staged
with command_session(is_own=True), staged(Path(sys.argv[1])) as path:
    path.write_bytes(b"half")
    print("written", flush=True)
    time.sleep(60)
"""


def killed(target: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STAGE, str(target)], stdout=subprocess.PIPE, stderr=-1
    ) as process:
        assert process.stdout and process.stdout.readline() == b"written\n"
        assert not target.exists()
        process.send_signal(how)
        assert process.wait() != 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_conversion_that_is_stopped_leaves_nothing(tmp_path, how):
    killed(tmp_path / "new" / "deep" / "a.safetensors", how)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_conversion_left_is_hidden_and_goes_with_the_next(model, tmp_path):
    killed(tmp_path / "a.safetensors", signal.SIGKILL)
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    (tmp_path / ".lens-0.partial").write_bytes(b"of another writer")
    convert(model, tmp_path / "b.safetensors", "single-bf16")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lens-0.partial", "b.safetensors"]


def test_a_conversion_that_still_runs_keeps_its_files(model, tmp_path):
    arguments = [sys.executable, "-c", STAGE, str(tmp_path / "a.safetensors")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=-1) as process:
        assert process.stdout and process.stdout.readline() == b"written\n"
        convert(model, tmp_path / "b.safetensors", "single-bf16")
        assert len(list(tmp_path.glob(".lens-*.partial/a.safetensors"))) == 1
        process.kill()


def test_a_target_that_appears_meanwhile_is_not_replaced(model, tmp_path):
    def appear(*_: object) -> None:
        (tmp_path / "a.safetensors").write_bytes(b"of somebody else")

    with pytest.raises(SettingError, match="does not exist yet"):
        convert(model, tmp_path / "a.safetensors", "single-bf16", on_progress=appear)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert (tmp_path / "a.safetensors").read_bytes() == b"of somebody else"
