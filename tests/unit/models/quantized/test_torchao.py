"""Quantised weights: what is kept, what is lost, what it takes."""

import builtins

import pytest
import torch
from comparisons import velocity
from tiny_models import tiny_denoiser, tiny_encoder

from lens.errors import MissingExtraError, SettingError
from lens.models.checkpoints.adapters.lora import add_adapter, unload_loras
from lens.models.checkpoints.adapters.lora_formats import LoKrWeights, LoraWeights
from lens.models.quantized.torchao import is_quantizable, quantize_weights

WIDE = {"num_attention_heads": 6, "inner_dim": 96}


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.01), ("float8", 0.04)])
def test_a_quantised_denoiser_draws_nearly_the_same(kind, bound):
    wanted = velocity(tiny_denoiser(**WIDE))
    got = velocity(quantize_weights(tiny_denoiser(**WIDE), kind))
    assert 0.0005 < ((got - wanted).norm() / wanted.norm()).item() < bound


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_the_sensitive_layers_keep_their_precision(kind):
    model = quantize_weights(tiny_denoiser(**WIDE), kind)
    plain = {
        name
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and type(m.weight) is torch.nn.Parameter
    }
    block = "transformer_blocks.2"
    assert {
        "img_in",
        "txt_in",
        "proj_out",
        "norm_out.linear",
        f"{block}.img_mod.1",
        f"{block}.txt_mod.1",
    } <= plain
    assert {f"time_text_embed.timestep_embedder.linear_{i}" for i in (1, 2)} <= plain
    changed = {name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - plain
    assert {name.removeprefix(f"{block}.") for name in changed if name.startswith(block)} == {
        "attn.img_qkv",
        "attn.txt_qkv",
        "attn.to_out.0",
        "attn.to_add_out",
        "img_mlp.w1",
        "img_mlp.w2",
        "img_mlp.w3",
        "txt_mlp.w1",
        "txt_mlp.w2",
        "txt_mlp.w3",
    }


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_adapters_go_on_a_quantised_denoiser_and_come_off(kind):
    qkv, out = "transformer_blocks.1.attn.img_qkv", "transformer_blocks.0.attn.to_out.0"
    generator = torch.Generator().manual_seed(0)
    normal = [torch.randn(shape, generator=generator) for shape in ((4, 96), (288, 4), (8, 12), (12, 8))]
    adapter = {qkv: LoraWeights(normal[0], normal[1], 2.0), out: LoKrWeights(normal[2], normal[3], 1.0)}
    wanted = tiny_denoiser(**WIDE)
    for module, part in adapter.items():
        wanted.get_submodule(module).weight.data += part.delta()
    model = quantize_weights(tiny_denoiser(**WIDE), kind)
    before = velocity(model)
    add_adapter(model, adapter, "both")
    error = (velocity(model) - velocity(wanted)).norm() / velocity(wanted).norm()
    assert error < 0.04 < (before - velocity(wanted)).norm() / velocity(wanted).norm()
    unload_loras(model)
    assert torch.equal(velocity(model), before)


def test_a_quantised_text_encoder_gives_nearly_the_same_features():
    ids = torch.arange(7, 27).reshape(2, 10)
    wanted = torch.stack(tiny_encoder().text_features(ids, layers=(1, 4)))
    encoder = quantize_weights(tiny_encoder(), "int8")
    got = torch.stack(encoder.text_features(ids, layers=(1, 4)))
    assert type(encoder.lm_head.weight) is torch.nn.Parameter and not is_quantizable(
        "model.layers.0.mlp.router"
    )
    assert 0 < ((got - wanted).norm() / wanted.norm()).item() < 0.05


def test_an_unknown_kind_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(SettingError, match=r"quantize is 'int2', but it needs one of int8, float8"):
        quantize_weights(tiny_denoiser(), "int2")
    real = builtins.__import__

    def without_torchao(name, *rest):
        if name.startswith("torchao"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_torchao)
    with pytest.raises(MissingExtraError, match=r'package torchao\..*pip install .*"\.\[quantize\]"'):
        quantize_weights(tiny_denoiser(), "int8")
