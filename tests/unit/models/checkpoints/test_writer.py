"""Files are written one tensor at a time, read by safetensors, and appear complete or not at all."""

import json
import os
import stat
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny_denoiser

from lens.errors import CheckpointError
from lens.models.checkpoints.diffusers_folder import open_component
from lens.models.checkpoints.reader import open_safetensors
from lens.models.checkpoints.single_file import save_denoiser
from lens.models.checkpoints.writer import (
    StreamedTensor,
    streamed,
    write_safetensors,
    write_safetensors_streamed,
    write_sharded_safetensors,
)

SAVED = {
    "odd": torch.arange(3, dtype=torch.uint8),
    "wide": torch.arange(2 * 5, dtype=torch.float32).reshape(2, 5),
    "half": torch.arange(7, dtype=torch.bfloat16),
    "eighth": torch.arange(5, dtype=torch.float32).to(torch.float8_e4m3fn),
    "one": torch.tensor(1.5),
    "none": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
}


def test_a_streamed_file_reads_back_with_safetensors_and_with_our_reader(tmp_path):
    path = tmp_path / "new folder" / "a.safetensors"
    write_safetensors_streamed(
        path, {name: streamed(value) for name, value in SAVED.items()}, {"made": "here"}
    )
    theirs, ours = load_file(path), open_safetensors(path)
    assert theirs.keys() == ours.tensors.keys() == SAVED.keys()
    for name, value in SAVED.items():
        for read in (theirs[name], ours.tensors[name].read()):
            assert read.dtype == value.dtype and read.shape == value.shape
            assert torch.equal(read.float(), value.float())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"made": "here"}


def test_every_tensor_starts_at_a_multiple_of_its_width(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors_streamed(path, {name: streamed(value) for name, value in SAVED.items()})
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    assert (8 + length) % 8 == 0
    for name, value in SAVED.items():
        assert header[name]["data_offsets"][0] % value.element_size() == 0


def test_a_whole_file_has_the_bytes_that_safetensors_itself_writes(tmp_path):
    tensors = {name: SAVED[name] for name in ("wide", "half", "one")}
    write_safetensors(tmp_path / "ours.safetensors", tensors)
    save_file(tensors, tmp_path / "theirs.safetensors", {"format": "pt"})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_tensors_that_share_memory_or_are_transposed_are_written_by_their_values(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    write_safetensors(tmp_path / "a.safetensors", {"whole": whole, "turned": whole.T, "row": whole[1]})
    read = load_file(tmp_path / "a.safetensors")
    assert torch.equal(read["turned"], whole.T) and torch.equal(read["row"], whole[1])


def test_no_more_than_one_tensor_is_read_before_it_is_written(tmp_path):
    path, sizes = tmp_path / "a.safetensors", []

    def read(value: float) -> torch.Tensor:
        (partial,) = tmp_path.glob(".lens-*.partial")
        sizes.append(partial.stat().st_size)
        return torch.full((300_000,), value)

    write_safetensors_streamed(
        path,
        {str(value): StreamedTensor((300_000,), "F32", lambda v=value: read(float(v))) for value in range(3)},
    )
    assert [b - a >= 1_199_000 for a, b in pairwise(sizes)] == [True, True]
    assert load_file(path)["2"].unique().tolist() == [2.0]


def test_tensors_are_read_in_the_given_order_wherever_they_are_in_the_file(tmp_path):
    seen = []

    def read(name: str) -> torch.Tensor:
        seen.append(name)
        return SAVED[name]

    declared = {name: streamed(value) for name, value in SAVED.items()}
    lazy = {name: one._replace(read=lambda n=name: read(n)) for name, one in declared.items()}
    write_safetensors_streamed(tmp_path / "a.safetensors", lazy)
    assert seen == list(SAVED)
    assert torch.equal(load_file(tmp_path / "a.safetensors")["wide"], SAVED["wide"])


def test_a_tensor_may_come_in_pieces_of_rows(tmp_path):
    whole = torch.arange(7 * 3.0).reshape(7, 3)
    write_safetensors_streamed(
        tmp_path / "a.safetensors", {"w": StreamedTensor((7, 3), "F32", lambda: iter(whole.split(2)))}
    )
    assert torch.equal(load_file(tmp_path / "a.safetensors")["w"], whole)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda: torch.zeros(3, 2), r"w was declared as \(2, 3\), but it was read as \(3, 2\)"),
        (lambda: torch.zeros(2, 3).half(), "w was declared as F32, but it was read as torch.float16"),
        (lambda: iter([torch.zeros(4)]), r"w was declared as \(2, 3\), 6 values, but 4 were read"),
    ],
    ids=["shape", "dtype", "pieces"],
)
def test_a_tensor_that_is_not_as_declared_leaves_no_file(tmp_path, read, said):
    with pytest.raises(CheckpointError, match=said):
        write_safetensors_streamed(tmp_path / "a.safetensors", {"w": StreamedTensor((2, 3), "F32", read)})
    assert not list(tmp_path.iterdir())


def test_a_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_safetensors(tmp_path / "a.safetensors", SAVED)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


def test_another_suffix_and_a_dtype_that_the_format_lacks_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must end in"):
        write_safetensors(tmp_path / "a.gguf", SAVED)
    with pytest.raises(CheckpointError, match="complex128 cannot be written"):
        write_safetensors(tmp_path / "a.safetensors", {"w": torch.zeros(2, dtype=torch.complex128)})


def test_shards_are_filled_in_order_and_indexed_under_the_names_of_transformers(tmp_path):
    tensors = {f"w{number}": streamed(torch.full((number, 5), float(number))) for number in range(1, 6)}
    files = write_sharded_safetensors(tmp_path, tensors, "model", shard_bytes=70)
    names = [f"model-0000{number}-of-00004.safetensors" for number in range(1, 5)]
    assert [file.name for file in files] == [*names, "model.safetensors.index.json"]
    index = json.loads(files[-1].read_text())
    assert index["metadata"]["total_size"] == 20 * (1 + 2 + 3 + 4 + 5)
    assert list(index["weight_map"].values()) == [names[0], names[0], names[1], names[2], names[3]]
    read = open_component(tmp_path, "text_encoder").tensors
    assert {name: value.read()[0, 0].item() for name, value in read.items()} == {
        f"w{number}": float(number) for number in range(1, 6)
    }


def test_one_shard_is_a_plain_file(tmp_path):
    files = write_sharded_safetensors(tmp_path, {"w": streamed(torch.ones(3))}, "diffusion_pytorch_model")
    assert [file.name for file in files] == ["diffusion_pytorch_model.safetensors"]
    assert [file.name for file in tmp_path.iterdir()] == ["diffusion_pytorch_model.safetensors"]


def test_a_folder_that_is_written_again_keeps_no_files_of_other_sizes(tmp_path):
    tensors = {name: streamed(torch.full((5,), float(number))) for number, name in enumerate("abc")}
    for shard_bytes, num_files in ((20, 4), (40, 3), (60, 1), (20, 4)):
        files = write_sharded_safetensors(tmp_path, tensors, shard_bytes=shard_bytes)
        assert sorted(files) == sorted(tmp_path.iterdir()) and len(files) == num_files
        assert open_component(tmp_path, "text_encoder").tensors["c"].read()[0] == 2.0


def test_an_exported_denoiser_can_be_read_by_others(tmp_path):
    save_denoiser(tiny_denoiser(num_layers=1), tmp_path / "denoiser")
    (weights,) = (tmp_path / "denoiser").glob("*.safetensors")
    config = tmp_path / "denoiser" / "config.json"
    assert weights.stat().st_mode == config.stat().st_mode
