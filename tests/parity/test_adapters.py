"""Adapters in every published key style on a tiny real denoiser, against the sums of their matrices."""

import json

import pytest
import torch
from comparisons import normal, same_state, velocity
from safetensors.torch import load_file, save_file
from tiny_models import tiny_denoiser

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.adapters.lora import (
    adapter_of,
    fuse_loras,
    load_lora,
    load_loras,
    save_lora,
    set_lora_weights,
    unfuse_loras,
    unload_loras,
)
from lens.models.checkpoints.adapters.lora_formats import STYLES, LoKrWeights, LoraWeights, write_adapter
from lens.models.checkpoints.convert import convert

QKV, OUT, MLP, TEXT = (
    "transformer_blocks.1.attn.img_qkv",
    "transformer_blocks.0.attn.to_out.0",
    "transformer_blocks.2.img_mlp.w2",
    "transformer_blocks.1.attn.to_add_out",
)


def adapter(seed=0):
    """A LoRA with another rank and alpha for each layer; the scales 0.5, 0.25 and 2 are exact."""
    return {
        QKV: LoraWeights(normal(4, 32, seed=seed), normal(96, 4, seed=seed + 1), 2.0),
        OUT: LoraWeights(normal(2, 32, seed=seed + 2), normal(32, 2, seed=seed + 3), 0.5),
        MLP: LoraWeights(normal(3, 85, seed=seed + 4), normal(32, 3, seed=seed + 5), 6.0),
    }


def with_deltas(denoiser, *weighted):
    """Add adapters to the weights themselves: the independent way to the same result."""
    for parts, weight in weighted:
        for module, part in parts.items():
            denoiser.get_submodule(module).weight.data += weight * part.delta()
    return denoiser


@pytest.mark.parametrize("style", list(STYLES))
def test_a_lora_in_every_style_adds_what_its_matrices_say(tmp_path, style):
    parts = adapter()
    write_adapter(parts, tmp_path / "a.safetensors", style)
    model = tiny_denoiser()
    load_lora(model, tmp_path / "a.safetensors", weight=0.7)
    wanted = velocity(with_deltas(tiny_denoiser(), (parts, 0.7)))
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-5, atol=1e-5)
    assert (velocity(tiny_denoiser()) - wanted).abs().max() > 0.1


KEYS = {
    "bare": f"{QKV}.lora_A.weight",
    "transformer": f"transformer.{QKV}.lora_A.weight",
    "peft": f"base_model.model.{QKV}.lora_A.weight",
    "peft of a pipeline": f"base_model.model.transformer.{QKV}.lora_A.default.weight",
    "comfy": f"diffusion_model.{QKV}.lora_A.weight",
    "kohya": "lora_unet_transformer_blocks_1_attn_img_qkv.lora_down.weight",
    "kohya, dotted": f"diffusion_model.{QKV}.lora_down.weight",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_published_keys_are_understood_as_written(tmp_path, key):
    down, up = normal(4, 32, seed=0), normal(96, 4, seed=1)
    up_key = key.replace("lora_A", "lora_B").replace("lora_down", "lora_up")
    save_file({key: down, up_key: up}, tmp_path / "a.safetensors")
    model = tiny_denoiser()
    load_lora(model, tmp_path / "a.safetensors")
    wanted = velocity(with_deltas(tiny_denoiser(), ({QKV: LoraWeights(down, up, 4.0)}, 1.0)))
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-5, atol=1e-5)


def test_kohyas_joined_names_of_numbered_children_are_undone(tmp_path):
    names = {"to_out_0": "transformer_blocks.2.attn.to_out.0", "img_mod_1": "transformer_blocks.2.img_mod.1"}
    tensors, parts = {}, {}
    for seed, (joined, module) in enumerate(names.items()):
        outputs = tiny_denoiser().get_submodule(module).out_features
        down, up = normal(2, 32, seed=seed), normal(outputs, 2, seed=9 + seed)
        joined = f"lora_unet_transformer_blocks_2_{'attn_' * (joined == 'to_out_0')}{joined}"
        tensors |= {
            f"{joined}.lora_down.weight": down,
            f"{joined}.lora_up.weight": up,
            f"{joined}.alpha": torch.tensor(1.0),
        }
        parts[module] = LoraWeights(down, up, 1.0)
    save_file(tensors, tmp_path / "k.safetensors")
    model = tiny_denoiser()
    load_lora(model, tmp_path / "k.safetensors")
    torch.testing.assert_close(
        velocity(model), velocity(with_deltas(tiny_denoiser(), (parts, 1.0))), rtol=1e-5, atol=1e-5
    )


def test_a_folder_of_peft_scales_by_its_settings(tmp_path):
    write_adapter(
        {QKV: LoraWeights(normal(4, 32, seed=0), normal(96, 4, seed=1), 4.0)},
        tmp_path / "adapter_model.safetensors",
        "base_model",
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 12, "peft_type": "LORA"}))
    model = tiny_denoiser()
    load_lora(model, tmp_path)
    assert adapter_of(model)[QKV].scale == 3.0


def test_what_diffusers_saves_is_read(tmp_path):
    model = tiny_denoiser()
    write_adapter(adapter(), tmp_path / "a.safetensors", "kohya")
    load_lora(model, tmp_path / "a.safetensors")
    wanted = velocity(model)
    model.save_lora_adapter(
        tmp_path / "saved", adapter_name="a", weight_name="pytorch_lora_weights.safetensors"
    )
    again = tiny_denoiser()
    load_lora(again, tmp_path / "saved")
    torch.testing.assert_close(velocity(again), wanted, rtol=1e-5, atol=1e-5)


def test_what_is_saved_is_read_by_diffusers(tmp_path):
    model = tiny_denoiser()
    write_adapter(adapter(), tmp_path / "a.safetensors", "kohya")
    load_lora(model, tmp_path / "a.safetensors")
    save_lora(model, tmp_path / "b.safetensors", "peft")
    other = tiny_denoiser()
    other.load_lora_adapter(load_file(tmp_path / "b.safetensors"), prefix=None)
    torch.testing.assert_close(velocity(other), velocity(model), rtol=1e-5, atol=1e-5)


@pytest.fixture
def one_thread():
    """Equal weights give equal bits on one thread only; on two, the same comparison failed every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_several_adapters_add_up_by_their_weights_and_come_off_without_a_trace(tmp_path, one_thread):
    first, second = (
        adapter(0),
        {TEXT: LoraWeights(normal(5, 32, seed=7), normal(32, 5, seed=8), 5.0)} | adapter(20),
    )
    lokr = {
        OUT: LoKrWeights(normal(4, 8, seed=3), normal(8, 4, seed=4), 1.0),
        TEXT: LoKrWeights(normal(2, 4, seed=5), normal(16, 8, seed=6), 0.5),
    }
    for name, parts in (("one", first), ("two", second), ("three", lokr)):
        write_adapter(parts, tmp_path / f"{name}.safetensors", "diffusion_model")
    model, plain = tiny_denoiser(), velocity(tiny_denoiser())
    names = load_loras(model, [(tmp_path / "one.safetensors", 0.5), (tmp_path / "two.safetensors", -0.25)])
    assert names == ["one", "two"]
    wanted = velocity(with_deltas(tiny_denoiser(), (first, 0.5), (second, -0.25)))
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-5, atol=1e-4)
    load_lora(model, tmp_path / "three.safetensors", weight=0.3)
    wanted = velocity(with_deltas(tiny_denoiser(), (first, 0.5), (second, -0.25), (lokr, 0.3)))
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-5, atol=1e-4)
    set_lora_weights(model, {"two": 1.0, "three": 2.0})
    wanted = velocity(with_deltas(tiny_denoiser(), (second, 1.0), (lokr, 2.0)))
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-5, atol=1e-4)
    model.set_adapters(["one", "three"], [1.0, 0.5])
    wanted = velocity(with_deltas(tiny_denoiser(), (first, 1.0), (lokr, 0.5)))
    torch.testing.assert_close(velocity(model), wanted, rtol=1e-5, atol=1e-4)
    unload_loras(model)
    assert torch.equal(velocity(model), plain) and same_state(model, tiny_denoiser())


def test_an_adapter_scaled_for_one_call_is_scaled_for_that_call_alone(tmp_path):
    lokr = {OUT: LoKrWeights(normal(4, 8, seed=3), normal(8, 4, seed=4), 1.0)}
    write_adapter(lokr, tmp_path / "k.safetensors", "diffusion_model")
    model = tiny_denoiser()
    load_lora(model, tmp_path / "k.safetensors", weight=0.8)
    before = velocity(model)
    tokens, features = normal(1, 6, 16, seed=1), [normal(1, 5, 24, seed=2)] * 4
    t = torch.tensor([0.4])
    with torch.no_grad():
        half = model(tokens, features, None, t, [(1, 2, 3)], attention_kwargs={"scale": 0.5}).sample
        wanted = with_deltas(tiny_denoiser(), (lokr, 0.4))(tokens, features, None, t, [(1, 2, 3)]).sample
    torch.testing.assert_close(half, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(velocity(model), before)


def lokr_file(path, tensors, metadata=None):
    save_file(
        {f"lycoris_transformer_blocks_0_attn_to_out_0.{name}": value for name, value in tensors.items()},
        path,
        metadata=metadata,
    )
    return path


W1, W2A, W2B = normal(4, 2, seed=0), normal(8, 3, seed=1), normal(3, 16, seed=2)


@pytest.mark.parametrize(
    ("tensors", "metadata", "scale"),
    [
        ({"lokr_w1": W1, "lokr_w2": W2A @ W2B}, None, 1.0),
        ({"lokr_w1": W1, "lokr_w2": W2A @ W2B, "alpha": torch.tensor(12.0)}, None, 1.0),
        ({"lokr_w1": W1, "lokr_w2_a": W2A, "lokr_w2_b": W2B, "alpha": torch.tensor(6.0)}, None, 2.0),
        ({"lokr_w1": W1, "lokr_w2_a": W2A, "lokr_w2_b": W2B}, {"ss_network_alpha": "1.5"}, 0.5),
        ({"lokr_w1": W1, "lokr_w2_a": W2A, "lokr_w2_b": W2B}, None, 1.0),
        (
            {"lokr_w1": W1, "lokr_w2": W2A @ W2B},
            {"lora_adapter_metadata": json.dumps({"r": 8, "alpha": 2})},
            0.25,
        ),
    ],
    ids=[
        "whole",
        "whole, alpha idle",
        "product, alpha 6 of rank 3",
        "product, alpha in metadata",
        "product",
        "PEFT's settings",
    ],
)
def test_a_lokr_adds_its_kronecker_product(tmp_path, tensors, metadata, scale):
    model = tiny_denoiser()
    load_lora(model, lokr_file(tmp_path / "k.safetensors", tensors, metadata))
    plain = tiny_denoiser()
    before = velocity(plain)
    plain.get_submodule(OUT).weight.data += scale * torch.kron(W1, W2A @ W2B)
    torch.testing.assert_close(velocity(model), velocity(plain), rtol=1e-5, atol=1e-4)
    fuse_loras(model)
    torch.testing.assert_close(model.get_submodule(OUT).weight, plain.get_submodule(OUT).weight)
    torch.testing.assert_close(velocity(model), velocity(plain), rtol=1e-5, atol=1e-4)
    unfuse_loras(model)
    torch.testing.assert_close(velocity(model), velocity(plain), rtol=1e-5, atol=1e-4)
    unload_loras(model)
    torch.testing.assert_close(velocity(model), before, rtol=1e-5, atol=1e-4)


def test_a_saved_lokr_comes_back(tmp_path):
    model = tiny_denoiser()
    load_lora(
        model,
        lokr_file(
            tmp_path / "k.safetensors",
            {"lokr_w1": W1, "lokr_w2_a": W2A, "lokr_w2_b": W2B, "alpha": torch.tensor(6.0)},
        ),
    )
    for style in ("peft", "kohya"):
        save_lora(model, tmp_path / f"{style}.safetensors", style)
        again = tiny_denoiser()
        load_lora(again, tmp_path / f"{style}.safetensors")
        torch.testing.assert_close(velocity(again), velocity(model), rtol=1e-5, atol=1e-5)


def test_keys_that_match_nothing_are_listed_and_the_denoiser_stays_untouched(tmp_path):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    write_adapter(adapter(), good)
    save_file(
        load_file(good)
        | {f"transformer_blocks.{i}.attn.to_q.lora_A.weight": torch.ones(2, 2) for i in range(12)},
        bad,
    )
    model = tiny_denoiser()
    with pytest.raises(CheckpointError, match=r"12 keys without a layer \(([^,)]+, ){9}[^,)]+ and 2 more\)"):
        load_loras(model, [(good, 1.0), (bad, 1.0)])
    assert same_state(model, tiny_denoiser())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{QKV}.lora_A.weight": torch.ones(2, 32)}, r"1 incomplete \(.*img_qkv has only down\)"),
        (
            {f"{QKV}.lora_A.weight": torch.ones(2, 7), f"{QKV}.lora_B.weight": torch.ones(96, 2)},
            r"is for \(96, 7\), the layer is \(96, 32\)",
        ),
        (
            {"lora_te1_text_model_encoder.lora_down.weight": torch.ones(2, 2)},
            "has no adapter weights, only 1 keys of a text encoder .lora_te1",
        ),
        (
            {f"{QKV}.vera_lambda_b": torch.ones(96), f"{QKV}.vera_lambda_d": torch.ones(4)},
            r"2 of the kind VeRA, which is not supported \(.*lambda_b.*\).* Supported are LoRA, DoRA, LoHa",
        ),
        ({"double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(2, 2)}, "probably a LoRA for FLUX.1"),
    ],
    ids=["half", "other width", "text encoder", "VeRA", "FLUX"],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_lora(tiny_denoiser(), tmp_path / "a.safetensors")


def test_a_name_that_is_taken_or_unknown_is_refused(tmp_path):
    write_adapter(adapter(), tmp_path / "a.safetensors")
    model = tiny_denoiser()
    load_lora(model, tmp_path / "a.safetensors", adapter_name="style")
    assert (
        load_lora(model, tmp_path / "a.safetensors") == "a"
        and load_lora(model, tmp_path / "a.safetensors") == "a_2"
    )
    with pytest.raises(SettingError, match=r"adapter_name is 'style'"):
        load_lora(model, tmp_path / "a.safetensors", adapter_name="style")
    with pytest.raises(SettingError, match=r"'other', but it needs the name of a loaded adapter"):
        set_lora_weights(model, {"other": 1.0})


def test_a_lora_goes_through_every_style_and_back(tmp_path):
    write_adapter(adapter(), tmp_path / "0.safetensors", "kohya")
    steps = ["lora-diffusion-model", "lora-peft", "lora-kohya", "lora-peft"]
    for index, format in enumerate(steps):
        convert(tmp_path / f"{index}.safetensors", tmp_path / f"{index + 1}.safetensors", format)
    model = tiny_denoiser()
    load_lora(model, tmp_path / "4.safetensors")
    torch.testing.assert_close(
        velocity(model), velocity(with_deltas(tiny_denoiser(), (adapter(), 1.0))), rtol=1e-5, atol=1e-5
    )
