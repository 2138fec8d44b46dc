"""Memory maps: views of files, their release and their limits."""

import sys

import pytest
import torch
from tiny_models import tiny_denoiser
from torch import nn

from lens.models.block_streaming import stream_blocks
from lens.models.checkpoints.single_file import load_denoiser, save_denoiser
from lens.models.mapped_memory import MappedFile, is_mapped, prefetch, release

SIDES = (1100, 3000)


@pytest.fixture
def mapped(tmp_path):
    """Return a matrix of 13 MB that is a view of a file, behind 16 other bytes, and its values."""
    values = torch.randn(SIDES, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(16) + values.numpy().tobytes())
    return MappedFile(path).tensor(16, SIDES, torch.float32), values


def resident_kb() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile"))


def test_a_tensor_is_a_view_of_its_file_and_writes_do_not_reach_the_file(mapped, tmp_path):
    tensor, values = mapped
    assert is_mapped(tensor) and not is_mapped(values)
    before = (tmp_path / "weights.bin").read_bytes()
    assert torch.equal(tensor, values)
    tensor[0, 0] = 7.0
    assert tensor[0, 0] == 7.0 and (tmp_path / "weights.bin").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the mapped pages of a process")
def test_released_pages_leave_the_memory_and_come_back_with_the_same_values(mapped):
    tensor, values = mapped
    assert torch.equal(tensor, values)
    used = resident_kb()
    release(tensor)
    assert used - resident_kb() > 0.9 * values.nbytes / 1024
    prefetch(tensor)
    assert torch.equal(tensor, values)


def test_an_offset_between_the_numbers_gives_a_copy_and_an_empty_tensor_nothing(tmp_path):
    values = torch.arange(5, dtype=torch.float32)
    (tmp_path / "odd.bin").write_bytes(b"abc" + values.numpy().tobytes())
    file = MappedFile(tmp_path / "odd.bin")
    tensor = file.tensor(3, (5,), torch.float32)
    assert torch.equal(tensor, values) and not is_mapped(tensor)
    assert file.tensor(0, (3, 0), torch.float32).shape == (3, 0)


def test_streamed_blocks_release_what_they_used_and_compute_the_same(mapped):
    tensor, values = mapped
    blocks = nn.ModuleList(nn.Linear(SIDES[1], SIDES[0], bias=False) for _ in range(2))
    for block in blocks:
        block.weight = nn.Parameter(tensor, requires_grad=False)
    x = torch.randn(2, SIDES[1], generator=torch.Generator().manual_seed(1))
    handles = stream_blocks(blocks)
    with torch.no_grad():
        outputs = [block(x) for block in blocks]
        if sys.platform == "linux":
            used = resident_kb()
            tensor.sum()
            assert resident_kb() - used > 0.9 * values.nbytes / 1024, "the block's pages were not released"
        assert all(torch.equal(one, nn.functional.linear(x, values)) for one in outputs)
    for handle in handles:
        handle.remove()


def test_what_one_model_writes_to_its_weights_reaches_no_other_model_of_the_same_file(tmp_path):
    path = tmp_path / "denoiser.safetensors"
    save_denoiser(tiny_denoiser(), path)
    first, second = load_denoiser(path, torch.float32), load_denoiser(path, torch.float32)
    name = "transformer_blocks.1.attn.img_qkv.weight"
    before = second.state_dict()[name].clone()
    assert is_mapped(first.get_parameter(name))
    with torch.no_grad():
        first.get_parameter(name).add_(1.0)
    assert torch.equal(second.state_dict()[name], before)
    assert torch.equal(load_denoiser(path, torch.float32).state_dict()[name], before)
