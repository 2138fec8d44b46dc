"""Packed layers compute with the values of their stored bytes, whatever the format."""

import copy

import gguf
import pytest
import torch
from torch import nn
from torch.nn.functional import embedding, linear

from lens.errors import CheckpointError
from lens.models.quantized import gguf_values, lookup, mxfp4_values, mxfp8, nvfp4
from lens.models.quantized.fp4 import quantize_mxfp4
from lens.models.quantized.packed_modules import PackedEmbedding, PackedLinear, packed_formats
from lens.models.quantized.packed_weight import MXFP4, MXFP8, NVFP4, PackedWeight, gguf_format, plain_format

OUTPUTS, INPUTS, ROWS = 7, 96, 5


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gguf_bytes(kind: str, values: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(gguf.quantize(values.numpy(), gguf.GGMLQuantizationType[kind]))


def packed_and_values(kind: str) -> tuple[PackedWeight, torch.Tensor]:
    """Return a packed matrix, and its values by the format's own formula or by the gguf package."""
    values, shape = normal(OUTPUTS, INPUTS), (OUTPUTS, INPUTS)
    if kind == "MXFP8":
        weight, scale = mxfp8.quantize(values)
        exponents = mxfp8.from_blocked(scale, OUTPUTS, INPUTS // 32).int() - 127
        truth = (weight.float().view(OUTPUTS, -1, 32) * torch.exp2(exponents.float())[..., None]).flatten(1)
        return PackedWeight(MXFP8, (weight, scale), shape), truth
    if kind == "NVFP4":
        parts = nvfp4.quantize(values)
        return PackedWeight(NVFP4, parts, shape), nvfp4.dequantize(*parts)
    if kind == "MXFP4":
        blocks, scales = quantize_mxfp4(values)
        table = torch.tensor(lookup.E2M1)
        codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
        truth = (table[codes] * torch.exp2(scales.float() - 127)[..., None]).flatten(1)
        return PackedWeight(MXFP4, (blocks, scales), shape), truth
    if kind in ("F32", "F16", "BF16"):
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
        return PackedWeight(plain_format(kind), (values.to(dtype),), shape), values.to(dtype).float()
    stored = gguf_bytes(kind, values)
    truth = gguf.dequantize(stored.numpy(), gguf.GGMLQuantizationType[kind])
    return PackedWeight(gguf_format(kind), (stored,), shape), torch.from_numpy(truth.copy())


KINDS = ("MXFP8", "NVFP4", "MXFP4", "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_layer_multiplies_by_the_values_of_its_bytes(kind):
    packed, truth = packed_and_values(kind)
    bias, x = normal(OUTPUTS, seed=1), normal(ROWS, INPUTS, seed=2)
    layer = PackedLinear(packed, bias, torch.float32)
    assert torch.equal(layer.weight, truth)
    assert torch.equal(layer(x), linear(x, truth, bias))
    assert isinstance(layer, nn.Linear) and (layer.in_features, layer.out_features) == (INPUTS, OUTPUTS)
    assert torch.equal(layer.state_dict()["weight"], truth)
    assert not any(parameter.ndim == 2 for parameter in layer.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_by_rows_is_the_product_with_few_rows_dequantized_at_a_time(kind, monkeypatch):
    packed, truth = packed_and_values(kind)
    layer, x = PackedLinear(packed, None, torch.float32), normal(ROWS, INPUTS, seed=2)
    counts, by_rows = [], PackedWeight.dequantize_rows

    def counted(self, rows, dtype):
        counts.append(len(rows))
        return by_rows(self, rows, dtype)

    monkeypatch.setattr(PackedWeight, "dequantize_rows", counted)
    torch.testing.assert_close(layer.product_by_rows(x, 3), linear(x, truth), rtol=1e-5, atol=1e-5)
    if packed.format.is_by_rows:
        assert sum(counts) == OUTPUTS and max(counts) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_dtype_and_a_copy_keep_the_stored_bytes(kind):
    packed, truth = packed_and_values(kind)
    layer = copy.deepcopy(PackedLinear(packed, None, torch.float32)).to(torch.bfloat16).to(torch.float64)
    assert torch.equal(layer.packed.dequantize(torch.float32), truth)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_a_packed_embedding_reads_the_rows_of_its_tokens(kind):
    packed, truth = packed_and_values(kind)
    ids = torch.tensor([[6, 0, 3], [3, 3, 1]])
    assert torch.equal(PackedEmbedding(packed, torch.float32)(ids), embedding(ids, truth))


def test_blocks_of_rows_give_the_values_of_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(lookup, "BLOCK_VALUES", 2 * INPUTS + 1)  # three full blocks and a half one
    for kind in ("MXFP8", "NVFP4", "MXFP4", "Q4_0"):
        packed, truth = packed_and_values(kind)
        assert torch.equal(packed.dequantize(torch.float32), truth)
        with torch.inference_mode():
            assert torch.equal(packed.dequantize(torch.float32), truth)


def test_alternating_outputs_of_two_stacks_are_one_expert():
    gate, up = (gguf_bytes("Q8_0", normal(3 * OUTPUTS, INPUTS, seed=seed)) for seed in (3, 4))
    shape = (3, OUTPUTS, INPUTS)
    stacks = [part.reshape(3, OUTPUTS, -1) for part in (gate, up)]
    weights = [PackedWeight(gguf_format("Q8_0"), (stack,), shape) for stack in stacks]
    both = PackedWeight(gguf_format("Q8_0"), (stacks[0],), shape, interleaved=weights[1])
    for expert in range(3):
        values = both.dequantize(torch.float32, expert)
        assert values.shape == (2 * OUTPUTS, INPUTS)
        assert torch.equal(values[0::2], weights[0].dequantize(torch.float32, expert))
        assert torch.equal(values[1::2], gguf_values.dequantize(stacks[1][expert], "Q8_0"))


def test_other_weights_are_not_loaded_into_a_packed_layer():
    packed, truth = packed_and_values("MXFP8")
    layer = PackedLinear(packed, normal(OUTPUTS), torch.float32)
    with pytest.raises(CheckpointError, match=r"weight is kept in MXFP8.*keep_packed=False"):
        layer.load_state_dict({"weight": truth, "bias": normal(OUTPUTS)})
    layer.load_state_dict({"bias": torch.ones(OUTPUTS)}, strict=False)
    assert torch.equal(layer.bias, torch.ones(OUTPUTS)) and packed_formats(layer) == ["MXFP8"]


def test_scales_that_are_no_numbers_are_an_error():
    blocks, scales = quantize_mxfp4(normal(OUTPUTS, INPUTS))
    scales[2, 1] = 255
    with pytest.raises(CheckpointError, match="not a number"):
        mxfp4_values.dequantize(blocks, scales)


@pytest.mark.parametrize("kind", [one.name for one in gguf.GGMLQuantizationType])
def test_every_type_of_gguf_has_the_values_of_its_own_package(kind):
    quantization = gguf.GGMLQuantizationType[kind]
    size, num_bytes = gguf.GGML_QUANT_SIZES[quantization]
    if kind in ("F32", "F16", "F64", "I8", "I16", "I32", "I64"):
        return  # plain numbers, which are no blocks
    rows = torch.randint(0, 60, (3, 2 * num_bytes), generator=torch.Generator().manual_seed(5)).to(
        torch.uint8
    )
    try:
        truth = torch.from_numpy(gguf.dequantize(rows.numpy(), quantization).copy())
    except NotImplementedError:
        with pytest.raises(CheckpointError, match=f"number type {kind} cannot be read"):
            gguf_values.dequantize(rows, kind)
        return
    values = gguf_values.dequantize(rows, kind)
    assert values.shape == (3, 2 * size) and torch.equal(values, truth)
