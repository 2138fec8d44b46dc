"""Quantized layers of files: which format a layer has, and what is refused."""

import json

import pytest
import torch

from lens.errors import CheckpointError
from lens.models.checkpoints.quantized_layers import dequantize_layers, quantized_layers
from lens.models.checkpoints.reader import LazyTensor
from lens.models.quantized import mxfp8, nvfp4


def stored(tensor, dtype):
    return LazyTensor(tuple(tensor.shape), dtype, lambda: tensor)


def stored_layer(name, parts):
    codes = {torch.float8_e4m3fn: "F8_E4M3", torch.uint8: "U8", torch.float32: "F32"}
    return {f"{name}.{part}": stored(value, codes[value.dtype]) for part, value in parts.items()}


def test_each_layer_of_a_file_is_read_by_its_own_format():
    values = torch.linspace(-2, 2, 6 * 32).reshape(6, 32)
    packed, scale, matrix_scale = nvfp4.quantize(values)
    weight, exponents = mxfp8.quantize(values)
    four = {"weight": packed, "weight_scale": scale, "weight_scale_2": matrix_scale}
    four |= {"input_scale": torch.ones(1)}
    eight = {"weight": weight, "weight_scale": exponents}
    tensors = stored_layer("a", four) | stored_layer("b", eight) | stored_layer("c", {"weight": values})
    formats = {layer: stored_format.name for layer, stored_format in quantized_layers(tensors).items()}
    assert formats == {"a": "NVFP4", "b": "MXFP8"}
    plain = dequantize_layers(tensors, source="f")
    assert set(plain) == {"a.weight", "b.weight", "c.weight"}
    assert {tensor.shape for tensor in plain.values()} == {(6, 32)}
    assert torch.equal(plain["a.weight"].read(), nvfp4.dequantize(packed, scale, matrix_scale))
    assert torch.equal(plain["b.weight"].read(), mxfp8.dequantize(weight, exponents))
    assert plain["c.weight"].read() is values
    halved = dequantize_layers(tensors, source="f", dtype=torch.bfloat16)
    assert halved["a.weight"].read().dtype == halved["b.weight"].read().dtype == torch.bfloat16


def test_a_layer_of_another_format_is_named():
    weight, scale = mxfp8.quantize(torch.ones(2, 32))
    settings = torch.tensor(list(json.dumps({"format": "nvfp4"}).encode()), dtype=torch.uint8)
    tensors = {
        "img_in.weight": stored(weight, "F8_E4M3"),
        "img_in.weight_scale": stored(scale, "U8"),
        "img_in.comfy_quant": stored(settings, "U8"),
    }
    said = r"img_in in f says that its format is 'nvfp4', but its tensors are MXFP8"
    with pytest.raises(CheckpointError, match=said):
        dequantize_layers(tensors, source="f")
    with pytest.raises(CheckpointError, match=r"proj in f is not MXFP8: it has weight F32 \(2, 32\)"):
        plain = {"proj.weight": stored(torch.ones(2, 32), "F32"), "proj.weight_scale": stored(scale, "U8")}
        dequantize_layers(plain, source="f")
