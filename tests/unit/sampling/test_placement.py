"""Pipelines by the rungs of the ladder: two blocks on the device, values to the bit, packed weights too."""

import pytest
import torch
from tiny_models import tiny_pipeline
from torch import nn

from lens.errors import GenerationCancelledError
from lens.models.quantized import mxfp8
from lens.models.quantized.packed_modules import PackedLinear
from lens.models.quantized.packed_weight import MXFP8, PackedWeight
from lens.models.quantized.torchao import quantize_weights
from lens.sampling.placement import DeviceStream, place, stream_denoiser

SMALL = {"height": 64, "width": 48, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}


def draw(pipeline):
    return pipeline("a fox", generator=torch.Generator().manual_seed(0), **SMALL).images


def pack_linears(module: nn.Module) -> None:
    """Replace linear layers in place by MXFP8 ones, with whatever values these can hold."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and layer.in_features % mxfp8.BLOCK_SIZE == 0:
            parts = mxfp8.quantize(layer.weight.data)
            packed = PackedWeight(MXFP8, parts, tuple(layer.weight.shape))
            module.set_submodule(name, PackedLinear(packed, layer.bias, torch.float32))


@pytest.mark.parametrize("weights", ["plain", "packed", "int8"])
def test_a_streamed_pipeline_draws_what_a_resident_one_draws(weights):
    pipeline = tiny_pipeline()
    if weights == "packed":
        pack_linears(pipeline.transformer.transformer_blocks)
    if weights == "int8":
        quantize_weights(pipeline.transformer, "int8")
    expected = draw(pipeline)
    place(pipeline, "cpu", "streamed")
    assert torch.equal(draw(pipeline), expected)
    assert torch.equal(draw(pipeline), expected)


class Witness(nn.Module):
    """A block that notes which blocks are on the device while it runs."""

    def __init__(self, blocks: list["Witness"], width: int):
        super().__init__()
        self.linear = nn.Linear(width, width + 1)
        self.register_buffer("packed", torch.arange(width))
        self.others, self.seen = [blocks], []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 0:
            raise GenerationCancelledError("stopped")
        for block in self.others[0]:
            places = {tensor.device.type for tensor in (*block.parameters(), *block.buffers())}
            self.seen.append(places.pop() if len(places) == 1 else "torn")
        return x


def witnesses(count: int) -> list[Witness]:
    blocks: list[Witness] = []
    blocks.extend(Witness(blocks, width) for width in range(3, 3 + count))
    return blocks


def test_a_block_is_on_the_device_while_it_runs_and_its_memory_is_the_same_afterwards():
    blocks = witnesses(4)
    homes = [[tensor.data_ptr() for tensor in (*one.parameters(), *one.buffers())] for one in blocks]
    stream = DeviceStream(blocks, torch.device("meta"))
    for _ in range(2):
        for block in blocks:
            block(torch.zeros(1))
    for index, block in enumerate(blocks):
        for seen in (block.seen[:4], block.seen[4:]):
            assert [place == "meta" for place in seen] == [place == index for place in range(4)]
            assert "torn" not in seen
    stream.remove()
    again = [[tensor.data_ptr() for tensor in (*one.parameters(), *one.buffers())] for one in blocks]
    assert again == homes


def test_the_next_block_is_copied_before_it_is_asked_for():
    blocks = witnesses(3)
    DeviceStream(blocks, torch.device("meta"))
    blocks[0](torch.zeros(1))
    assert [one.linear.weight.device.type for one in blocks] == ["cpu", "meta", "cpu"]


def test_a_call_that_is_stopped_leaves_its_block_at_home_and_the_next_call_is_whole():
    blocks = witnesses(3)
    DeviceStream(blocks, torch.device("meta"))
    blocks[0](torch.zeros(1))
    with pytest.raises(GenerationCancelledError):
        blocks[1](torch.tensor(0.0))
    assert blocks[1].linear.weight.device.type == "cpu"
    for block in blocks:
        block(torch.zeros(1))
    assert [place == "meta" for place in blocks[0].seen[3:]] == [True, False, True]
    assert [one.linear.weight.device.type for one in blocks] == ["meta", "cpu", "cpu"]


def test_all_but_the_blocks_goes_to_the_device():
    denoiser = tiny_pipeline().transformer
    stream_denoiser(denoiser, torch.device("meta"))
    away = {name for name, weight in denoiser.named_parameters() if weight.device.type == "cpu"}
    assert away == {name for name, _ in denoiser.named_parameters() if name.startswith("transformer_blocks.")}
    assert denoiser.device.type == "meta"
